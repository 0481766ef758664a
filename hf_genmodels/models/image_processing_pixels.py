"""Pictures as colours of a palette, and back: what a language model of pixels reads and draws.

Chen et al. 2020, "Generative Pretraining from Pixels": a small palette shortens a pixel to one token.
"""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from .picture_fitting import MODES, fitted, to_bytes, to_image, with_channels

PIXELS_AT_A_TIME = 1 << 16


class GenPixelsImageProcessor(BaseImageProcessor):
    """Brings pictures to size and says the nearest colour of a palette for each pixel.

    Args:
        palette: The colours, each of 1 (grey), 3 (RGB) or 4 (RGBA) values from 0 to 255.
        image_sizes: Heights, which are the widths, of the pictures that the model knows.
        resize: How a rectangle becomes a square: `crop` its middle, `pad` it, or `stretch` it.
        labels: Names of the classes of the training pictures, which are their prompts; empty where the
            prompts are texts.
        **kwargs: What `preprocessor_config.json` says besides.

    Raises:
        ValueError: If the palette or the sizes cannot be.
    """

    model_input_names = ["pixel_ids"]

    def __init__(
        self,
        palette: Sequence[Sequence[int]] = ((0,), (255,)),
        image_sizes: Sequence[int] = (8,),
        resize: str = "crop",
        labels: Sequence[str] = (),
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.palette = [[int(value) for value in colour] for colour in palette]
        self.image_sizes = [int(size) for size in image_sizes]
        self.resize = resize
        self.labels = list(labels)
        lengths = {len(colour) for colour in self.palette}
        values = [value for colour in self.palette for value in colour]
        if len(self.palette) < 2 or lengths not in ({1}, {3}, {4}):
            raise ValueError("A palette has two or more colours of 1, 3 or 4 values each.")
        if min(values) < 0 or max(values) > 255:
            raise ValueError("The values of a palette's colours lie from 0 to 255.")
        if not self.image_sizes or min(self.image_sizes) < 1:
            raise ValueError(f"image_sizes={self.image_sizes} must be at least 1.")

    @property
    def num_channels(self) -> int:
        """Values of a colour: 1 (grey), 3 (RGB) or 4 (RGBA)."""
        return len(self.palette[0])

    def preprocess(self, images: Any, size_index: int = 0, **kwargs: Any) -> BatchFeature:
        """Turn pictures into colours of the palette.

        Args:
            images: A picture of PIL, a list of such, or bytes (B, C, H, W) as an array or tensor.
            size_index: Which of `image_sizes` they are brought to.
            **kwargs: What the pipelines of transformers give besides; nothing of it is needed.

        Returns:
            `pixel_ids`: index of each pixel's colour in raster order, (B, size * size), int64.

        Raises:
            ValueError: If these are no pictures.
        """
        size = self.image_sizes[size_index]
        return BatchFeature({"pixel_ids": self._nearest(self._fit(images, size))})

    def to_pixels(self, pixel_ids: Any) -> torch.Tensor:
        """Return the pictures of colours.

        Args:
            pixel_ids: Indices of colours in raster order, (B, size * size).

        Returns:
            Bytes, (B, C, size, size), uint8.
        """
        ids = torch.as_tensor(pixel_ids).cpu().long()
        size = round(ids.shape[-1] ** 0.5)
        colours = torch.tensor(self.palette, dtype=torch.uint8)[ids]  # (B, S, C)
        return colours.view(len(ids), size, size, -1).permute(0, 3, 1, 2).contiguous()

    def to_images(self, pixel_ids: Any) -> list[Image.Image]:
        """Return the pictures of colours as images of PIL.

        Args:
            pixel_ids: Indices of colours in raster order, (B, size * size).
        """
        return [to_image(pixels) for pixels in self.to_pixels(pixel_ids)]

    def _fit(self, images: Any, size: int) -> torch.Tensor:
        """Return bytes (B, C, size, size) of pictures, and those of the right size as they are."""
        if isinstance(images, Image.Image):
            images = [images]
        if not isinstance(images, list | tuple):
            pixels = _checked(images)
            if tuple(pixels.shape[1:]) == (self.num_channels, size, size):
                return pixels
            images = [to_image(picture) for picture in pixels]
        if not images or not all(isinstance(image, Image.Image) for image in images):
            raise ValueError("Give a picture of PIL, a list of such, or bytes (B, C, H, W).")
        squares = [
            with_channels(fitted(_plain(image), size, self.resize), self.num_channels)
            for image in images
        ]
        return torch.stack([to_bytes(square) for square in squares])

    def _nearest(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the index of the nearest colour of each pixel of (B, C, H, W), (B, H * W)."""
        palette = torch.tensor(self.palette, dtype=torch.float)  # (K, C)
        if self.num_channels == 1:
            greys = torch.arange(256, dtype=torch.float)[:, None]
            table = (greys - palette.T).abs().argmin(dim=1)
            return table[pixels.flatten(1).long()]
        flat = pixels.permute(0, 2, 3, 1).reshape(-1, self.num_channels)
        offset = palette.square().sum(dim=1)
        found = [
            (offset - 2 * part.float() @ palette.T).argmin(dim=1)
            for part in flat.split(PIXELS_AT_A_TIME)
        ]
        return torch.cat(found).view(len(pixels), -1)


def _checked(images: Any) -> torch.Tensor:
    """Return an array or a tensor of bytes as a tensor (B, C, H, W)."""
    try:
        pixels = torch.as_tensor(images)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError("Give a picture of PIL, a list of such, or bytes (B, C, H, W).") from None
    if pixels.ndim != 4 or pixels.dtype != torch.uint8 or pixels.shape[1] not in MODES:
        raise ValueError(
            "Pictures are images of PIL or bytes (B, C, H, W) with 1, 3 or 4 channels, not "
            f"{pixels.dtype} {tuple(pixels.shape)}."
        )
    return pixels


def _plain(image: Image.Image) -> Image.Image:
    """Return an image whose mode can be resized without loss."""
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


__all__ = ["GenPixelsImageProcessor"]
