"""How a picture of any shape becomes a square with the wanted channels."""

import numpy as np
from PIL import Image

WHITE = 255


def fitted(image: Image.Image, size: int, resize: str) -> Image.Image:
    """Bring an image to a square.

    Args:
        image: The image.
        size: Height and width of the result.
        resize: `crop` takes the middle square, `pad` adds the colour of the edges, `stretch` changes the
            shape.
    """
    width, height = image.size
    if (width, height) == (size, size):
        return image
    if resize == "pad" and width != height:
        return _padded(image, size)
    box: tuple[float, float, float, float] = (0, 0, width, height)
    if resize == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box)


def with_channels(image: Image.Image, num_channels: int) -> Image.Image:
    """Return an image with so many channels: 1 (grey), 3 (RGB) or 4 (RGBA).

    What is transparent becomes white.
    """
    if num_channels == 4:
        pixels = np.array(image.convert("RGBA"))
        pixels[pixels[..., 3] == 0, :3] = WHITE
        return Image.fromarray(pixels)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (WHITE,) * 4), image)
    return image.convert("L" if num_channels == 1 else "RGB")


def channels_first(image: Image.Image) -> np.ndarray:
    """Return the bytes of an image, shape (C, H, W), uint8."""
    return np.ascontiguousarray(np.atleast_3d(np.asarray(image)).transpose(2, 0, 1))


def _padded(image: Image.Image, size: int) -> Image.Image:
    """Put an image in the middle of a square of the middle colour of the edges that it extends."""
    scale = size / max(image.size)
    inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = image.resize(inner, Image.Resampling.BICUBIC)
    pixels = np.atleast_3d(np.asarray(small))
    pixels = pixels if image.width > image.height else pixels.transpose(1, 0, 2)
    edges = np.concatenate([pixels[0], pixels[-1]])
    colour = tuple(int(value) for value in np.median(edges, axis=0))
    square = Image.new(image.mode, (size, size), colour if len(colour) > 1 else colour[0])
    square.paste(small, ((size - inner[0]) // 2, (size - inner[1]) // 2))
    return square


__all__ = ["WHITE", "channels_first", "fitted", "with_channels"]
