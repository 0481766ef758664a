"""Features of images or clips, by which generated ones are compared with real ones.

All images are given as bytes, so that generated ones go the same way as real ones, which were stored as
such. Letters: N images, T frames of a clip, C channels (1 grey, 3 colours, 4 colours and opacity), H rows,
W columns, D features, K classes. Where images are (N, C, H, W), clips are (N, T, C, H, W).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow turns colours to grey


@dataclass(frozen=True)
class Features:
    """What a network sees in images.

    Attributes:
        features: (N, D), float32.
        probabilities: Of its classes, or of each attribute on its own, (N, K), or of the classes of several
            factors, one after the other; `None` if it has none.
    """

    features: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.features)

    def take(self, places: npt.ArrayLike | slice) -> Features:
        """Return the features of some of the images.

        Args:
            places: Their numbers, a mask or a slice.
        """
        rows = places if isinstance(places, slice) else np.asarray(places)
        shares = None if self.probabilities is None else self.probabilities[rows]
        return Features(self.features[rows], shares)

    def halves(self, seed: int = 0) -> tuple[Features, Features]:
        """Split the images at random into two equal parts, to compare real images with real ones.

        Args:
            seed: Seed of the order.

        Returns:
            Two halves without a common image; one image is left out of an odd number.

        Raises:
            ValueError: If there are fewer than two images.
        """
        first, second = halves(len(self), seed)
        return self.take(first), self.take(second)


def halves(number: int, seed: int = 0) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the places of two random halves of as many images; see `Features.halves`.

    Args:
        number: How many images there are.
        seed: Seed of the order.

    Raises:
        ValueError: If there are fewer than two images.
    """
    half = number // 2
    if not half:
        raise ValueError(f"{number} images cannot be split in two.")
    order = np.random.default_rng(seed).permutation(number)
    return order[:half], order[half : 2 * half]


class Extractor(Protocol):
    """A network that sees features in images.

    Attributes:
        name: What to call it beside a figure.
        device: Where it computes.
    """

    name: str
    device: torch.device

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return features (B, D) and probabilities (B, K), if it has them, of bytes (B, C, H, W)."""


def extract(
    extractor: Extractor,
    images: torch.Tensor | npt.NDArray[np.uint8],
    batch_size: int = 250,
    progress: Callable[[int], None] | None = None,
) -> Features:
    """Take the features of images.

    Args:
        extractor: One of those of `image_extractors.py`.
        images: Bytes, (N, C, H, W) or clips, N at least 1; may be a file that is mapped into memory.
        batch_size: Images at once.
        progress: Is told the number of images of each batch.

    Raises:
        ValueError: If the images are no bytes of this shape.
    """
    if images.ndim not in (4, 5) or images.dtype not in (torch.uint8, np.uint8) or not len(images):
        raise ValueError(
            "Features are taken of bytes (N, C, H, W) or (N, T, C, H, W); as_bytes() turns numbers from -1 to 1 into "
            f"them. These images are {images.dtype}, {tuple(images.shape)}."
        )
    seen, shares = [], []
    with torch.no_grad():
        for start in range(0, len(images), batch_size):
            part = images[start : start + batch_size]
            batch = part if torch.is_tensor(part) else torch.from_numpy(np.array(part))
            features, probabilities = extractor(batch.to(extractor.device))
            seen.append(features.float().cpu().numpy())
            if probabilities is not None:
                shares.append(probabilities.float().cpu().numpy())
            if progress is not None:
                progress(len(batch))
    return Features(np.concatenate(seen), np.concatenate(shares) if shares else None)


def as_bytes(images: torch.Tensor) -> torch.Tensor:
    """Turn numbers from -1 to 1 into bytes, as they would be stored in a file.

    Args:
        images: (N, C, H, W), float, or clips.

    Returns:
        The same shape, uint8.
    """
    return images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def prepared(images: torch.Tensor, channels: int, size: tuple[int, int]) -> torch.Tensor:
    """Give images the channels and the size that a network reads.

    Args:
        images: Bytes, (B, C, H, W), or clips. What is not opaque is laid over white.
        channels: 1, 3 or 4.
        size: Rows and columns; other sizes are interpolated linearly, with antialiasing.

    Returns:
        (B, channels, *size) in [0, 1], float32; clips (B, T, channels, *size).
    """
    if images.ndim == 5:
        return prepared(images.flatten(0, 1), channels, size).unflatten(0, images.shape[:2])
    values = with_channels(images.float() / 255, channels)
    if tuple(values.shape[2:]) == tuple(size):
        return values
    return F.interpolate(values, size, mode="bilinear", antialias=True)


def with_channels(images: torch.Tensor, channels: int) -> torch.Tensor:
    """Give images in [0, 1] another number of channels; see `prepared`.

    Args:
        images: (B, C, H, W) in [0, 1].
        channels: 1, 3 or 4.

    Raises:
        ValueError: If there are other numbers of channels.
    """
    given = images.shape[1]
    if given not in (1, 3, 4) or channels not in (1, 3, 4):
        raise ValueError(f"Images have 1, 3 or 4 channels, not {given} or {channels}.")
    if given == channels:
        return images
    if given == 4:
        colors, opacity = images[:, :3], images[:, 3:]
        return with_channels(colors * opacity + (1 - opacity), channels)
    if channels == 1:
        return (images * images.new_tensor(LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    colors = images.expand(-1, 3, -1, -1)
    return colors if channels == 3 else torch.cat([colors, torch.ones_like(colors[:, :1])], dim=1)


def source_name(source: str | Path) -> str:
    """Return what to call a network beside a figure: its name on the hub, or of its folder or file."""
    return Path(source).expanduser().resolve().name if Path(source).exists() else str(source)
