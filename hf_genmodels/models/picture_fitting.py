"""How a picture of any shape becomes a square with the wanted channels, and bytes."""

import torch
from PIL import Image

WHITE = 255
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


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
        image = image.convert("RGBA")
        unseen = image.getchannel("A").point(lambda value: WHITE * (value == 0))
        image.paste((WHITE, WHITE, WHITE, 0), mask=unseen)
        return image
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (WHITE,) * 4), image)
    return image.convert(MODES[num_channels])


def to_bytes(image: Image.Image) -> torch.Tensor:
    """Return the pixels of an image, shape (C, H, W), uint8."""
    flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    pixels = flat.view(image.height, image.width, -1)
    return pixels.permute(2, 0, 1).contiguous()


def to_image(pixels: torch.Tensor) -> Image.Image:
    """Return an image of pixels (C, H, W), uint8."""
    channels, height, width = pixels.shape
    flat = bytes(pixels.permute(1, 2, 0).flatten().tolist())
    return Image.frombytes(MODES[channels], (width, height), flat)


def _padded(image: Image.Image, size: int) -> Image.Image:
    """Put an image in the middle of a square of the middle colour of the edges that it extends."""
    scale = size / max(image.size)
    inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = image.resize(inner, Image.Resampling.BICUBIC)
    pixels = to_bytes(small)
    if image.width <= image.height:
        pixels = pixels.transpose(1, 2)
    edges = torch.cat([pixels[:, 0], pixels[:, -1]], dim=1).float()  # (C, edge)
    colour = tuple(int(value) for value in edges.quantile(0.5, dim=1).tolist())
    square = Image.new(image.mode, (size, size), colour if len(colour) > 1 else colour[0])
    square.paste(small, ((size - inner[0]) // 2, (size - inner[1]) // 2))
    return square


__all__ = ["MODES", "WHITE", "fitted", "to_bytes", "to_image", "with_channels"]
