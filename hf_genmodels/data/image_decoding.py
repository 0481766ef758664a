"""Image files of every kind become squares of bytes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from hf_genmodels.config.images import Resize
from hf_genmodels.errors import UserError
from hf_genmodels.models.picture_fitting import WHITE, fitted, to_bytes, with_channels

# Endings of the files of a folder that are taken for images.
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".dib"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2"),
)
# None of these formats starts another program or reads another file, as PostScript does.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_MAX_PIXELS = 100_000_000
_WIDE_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")


class BrokenImageError(ValueError):
    """An image that cannot be used; the message is the reason."""


@contextmanager
def quietly() -> Iterator[None]:
    """Keep Pillow from warning about images that are refused, or read with a small flaw."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
        yield


def open_image(content: bytes | Path, near: int | None = None) -> Image.Image:
    """Decode an image file.

    Args:
        content: The file's bytes, or where it is.
        near: Pixels of the side that is wanted in the end; a large JPEG is decoded at a fraction of its
            size that is no smaller.

    Returns:
        The image, or the first one of an animation: turned as its EXIF data say, 8 bits a channel, of
        mode L, RGB or RGBA.

    Raises:
        BrokenImageError: If the file is missing, damaged, no image, or has too many pixels.
    """
    with broken_if_failing(), Image.open(stream(content), formats=FORMATS) as image:
        check_pixels(image.size)
        if near is not None:
            image.draft(None, (near, near))
        return plain(ImageOps.exif_transpose(image))


@contextmanager
def broken_if_failing() -> Iterator[None]:
    """Turn whatever a damaged file makes a decoder trip over into a `BrokenImageError`."""
    try:
        yield
    except (BrokenImageError, UserError):
        raise
    except FileNotFoundError:
        raise BrokenImageError("does not exist") from None
    except Image.UnidentifiedImageError:
        raise BrokenImageError("is no image, or of an unknown format") from None
    except Image.DecompressionBombError:
        raise BrokenImageError(f"has more than {_MAX_PIXELS:,} pixels") from None
    except Exception as error:
        raise BrokenImageError(f"cannot be decoded: {' '.join(str(error).split())}") from error


def check_pixels(size: tuple[int, int]) -> None:
    """Refuse an image that is too large.

    Args:
        size: Width and height.

    Raises:
        BrokenImageError: If it has too many pixels.
    """
    width, height = size
    if width * height > _MAX_PIXELS:
        raise BrokenImageError(
            f"has {width:,} x {height:,} pixels, and at most {_MAX_PIXELS:,} are read"
        )


def decode(
    content: bytes | Path, *, image_size: int, num_channels: int, resize: Resize
) -> np.ndarray:
    """Decode an image file and bring it to size.

    Args:
        content: The file's bytes, or where it is.
        image_size: Height and width of the result.
        num_channels: 1 (grey), 3 (RGB) or 4 (RGBA). What is transparent becomes white.
        resize: ``crop`` takes the middle square, ``pad`` adds the colour of the edges, ``stretch``
            changes the shape.

    Returns:
        Shape (C, H, W), uint8.

    Raises:
        BrokenImageError: As `open_image`.
    """
    image = fitted(open_image(content, near=image_size), image_size, resize)
    return to_bytes(with_channels(image, num_channels)).numpy()


def channels_of(image: Image.Image) -> int:
    """Return how many channels an image needs: 1 if it is grey, 4 if it is transparent, else 3."""
    if image.mode == "RGBA" and np.asarray(image)[..., 3].min() < WHITE:
        return 4
    pixels = np.asarray(image.convert("RGB"))
    return 1 if image.mode == "L" or (pixels == pixels[..., :1]).all() else 3


def common_channels(counts: Sequence[int]) -> int:
    """Return the channels that fit most of some images.

    Args:
        counts: What `channels_of` said of each.

    Returns:
        4 if at least half are transparent, else 1 if all are grey, else 3.
    """
    if 2 * sum(count == 4 for count in counts) >= len(counts):
        return 4
    return 1 if all(count == 1 for count in counts) else 3


def stream(content: bytes | Path) -> io.BytesIO | Path:
    """Return what a decoder reads from."""
    return io.BytesIO(content) if isinstance(content, bytes) else content


def plain(image: Image.Image) -> Image.Image:
    """Return an image of 8 bits a channel, of mode L, RGB or RGBA."""
    if image.mode in _WIDE_MODES:
        return Image.fromarray(_to_bytes(np.asarray(image)))
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode in ("1", "L"):
        return image.convert("L")
    return image.convert("RGB")


def _to_bytes(values: np.ndarray) -> np.ndarray:
    """Scale 16-bit values, or fractions, to 0 .. 255."""
    ranges = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (65535.0,)
    largest = next((limit for limit in ranges if values.max() <= limit), 65535.0)
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= largest):
        raise BrokenImageError(
            f"has values from {values.min():g} to {values.max():g}; "
            "0 .. 65,535 are read, and fractions from 0 to 1"
        )
    return np.rint(values.astype(np.float64) * (255 / largest)).astype(np.uint8)
