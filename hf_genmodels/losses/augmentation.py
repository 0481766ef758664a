"""Differentiable augmentation of real and drawn images (DiffAugment; Zhao et al. 2020, arXiv:2006.10738).

A discriminator that sees nothing but augmented images cannot learn few images by heart, and the
generator learns the images without the augmentation, because gradients flow through it.
Letters: B images, C channels (the fourth is opacity), H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch

Policy = Literal["color", "translation", "cutout"]
POLICIES = ("color", "translation", "cutout")
DRAWS = 7  # brightness, saturation, contrast, two of translation, two of cutout
SHIFT = 1 / 8  # largest translation over the side
HOLE = 1 / 2  # side of what is cut out over the side


def augment(
    images: torch.Tensor, policies: Sequence[Policy], generator: torch.Generator
) -> torch.Tensor:
    """Transform each image of a batch in a way of its own.

    Equal seeds transform real and drawn images alike.

    Args:
        images: (B, C, H, W) in [-1, 1].
        policies: Of `POLICIES`, applied in the order of the paper: `color` (brightness by up to 0.5,
            saturation by 0 to 2, contrast by 0.5 to 1.5), `translation` (by up to an eighth of the
            side, filled with 0), `cutout` (a square of half the side becomes 0).
        generator: Where the random numbers come from.

    Returns:
        Images of the same shape and type, in [-1, 1].

    Raises:
        ValueError: If a policy is unknown.
    """
    return transform(images, policies, draws(len(images), generator))


def draws(num_images: int, generator: torch.Generator) -> torch.Tensor:
    """Return the random numbers behind the transformations, uniform on [0, 1), (B, 7).

    They are drawn on the generator's device, as many whatever the policies are: rows of one draw can be
    dealt out to processes and micro-batches.

    Args:
        num_images: B.
        generator: Where the numbers come from.
    """
    return torch.rand(num_images, DRAWS, generator=generator, device=generator.device)


def transform(
    images: torch.Tensor, policies: Sequence[Policy], numbers: torch.Tensor
) -> torch.Tensor:
    """Transform each image as the numbers say.

    Args:
        images: (B, C, H, W) in [-1, 1]; or clips (B, T, C, H, W), whose frames are transformed alike.
        policies: See `augment`.
        numbers: What `draws` returned for these images, (B, 7).

    Returns:
        See `augment`.

    Raises:
        ValueError: If a policy is unknown or the numbers are not as many as the images.
    """
    for given in policies:
        if given not in POLICIES:
            raise ValueError(f"policy={given!r} is unknown. Choose from: {', '.join(POLICIES)}.")
    if tuple(numbers.shape) != (len(images), DRAWS):
        raise ValueError(
            f"Each of the {len(images)} images needs {DRAWS} numbers, but they are {tuple(numbers.shape)}."
        )
    numbers = numbers.to(images.device)
    if images.ndim == 5:
        frames = images.shape[1]
        alike = numbers.repeat_interleave(frames, dim=0)
        return transform(images.flatten(0, 1), policies, alike).unflatten(0, (-1, frames))
    for policy, (function, columns) in _TRANSFORMATIONS.items():
        if policy in policies:
            images = function(images, numbers[:, columns])
    return images


def _color(images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    brightness, saturation, contrast = numbers.to(images.dtype)[..., None, None, None].unbind(dim=1)
    colors, opacity = images[:, :3], images[:, 3:]
    colors = colors + (brightness - 0.5)
    grey = colors.mean(dim=1, keepdim=True)
    colors = grey + (colors - grey) * (2 * saturation)
    mean = colors.mean(dim=(1, 2, 3), keepdim=True)
    colors = mean + (colors - mean) * (contrast + 0.5)
    return torch.cat([colors.clamp(-1, 1), opacity], dim=1)


def _translation(images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    for dim in (2, 3):
        images = _shifted(images, numbers[:, dim - 2], dim)
    return images


def _shifted(images: torch.Tensor, numbers: torch.Tensor, dim: int) -> torch.Tensor:
    """Move images along one side by whole pixels."""
    side = images.shape[dim]
    largest = int(side * SHIFT + 0.5)
    moves = (numbers * (2 * largest + 1)).floor().long() - largest
    sources = torch.arange(side, device=images.device) - moves[:, None]  # (B, side)
    shape = [len(images), 1, 1, 1]
    shape[dim] = side
    inside = ((sources >= 0) & (sources < side)).view(shape)
    index = sources.clamp(0, side - 1).view(shape).expand_as(images)
    return images.gather(dim, index) * inside


def _cutout(images: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    height, width = images.shape[2:]
    rows = _hole(height, numbers[:, 0])[:, None, :, None]
    columns = _hole(width, numbers[:, 1])[:, None, None, :]
    return images * ~(rows & columns)


def _hole(side: int, numbers: torch.Tensor) -> torch.Tensor:
    """Return which places of a side are cut out, (B, side); a hole may reach over the edge."""
    size = int(side * HOLE + 0.5)
    first = (numbers * (side + 1 - size % 2)).floor().long()[:, None] - size // 2
    places = torch.arange(side, device=numbers.device)
    return (places >= first) & (places < first + size)


_TRANSFORMATIONS: dict[str, tuple[Callable[..., torch.Tensor], slice]] = {
    "color": (_color, slice(0, 3)),
    "translation": (_translation, slice(3, 5)),
    "cutout": (_cutout, slice(5, 7)),
}
