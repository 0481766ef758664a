"""Tests of what becomes of image files of every kind."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hf_genmodels.data.image_decoding import (
    BrokenImageError,
    channels_of,
    common_channels,
    decode,
    open_image,
    quietly,
)

COLOUR = (204, 51, 102)  # of the palette of the web, so that no palette changes it


def encoded(image, form="PNG", **options):
    """The bytes of an image file."""
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def picture(mode, size=(20, 12)):
    return Image.new("RGB", size, COLOUR).convert(mode)


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    ("mode", "form"),
    [
        ("1", "PNG"),
        ("L", "PNG"),
        ("LA", "PNG"),
        ("P", "PNG"),
        ("P", "GIF"),
        ("RGB", "PNG"),
        ("RGB", "JPEG"),
        ("RGB", "WEBP"),
        ("RGB", "BMP"),
        ("RGB", "TIFF"),
        ("RGB", "PPM"),
        ("RGBA", "PNG"),
        ("CMYK", "JPEG"),
        ("CMYK", "TIFF"),
        ("YCbCr", "JPEG"),
        ("F", "TIFF"),
    ],
)
def test_every_kind_of_file_gives_its_colour_in_every_number_of_channels(
    mode, form, channels, resize
):
    pixels = decode(
        encoded(picture(mode), form), image_size=16, num_channels=channels, resize=resize
    )
    assert pixels.shape == (channels, 16, 16)
    assert pixels.dtype == np.uint8
    if channels == 4:
        assert (pixels[3] == 255).all()
    if mode in ("RGB", "RGBA", "CMYK", "YCbCr", "P") and channels >= 3:
        assert np.abs(pixels[:3, 8, 8].astype(int) - COLOUR).max() < 12
    elif mode != "1":
        grey = 0.299 * COLOUR[0] + 0.587 * COLOUR[1] + 0.114 * COLOUR[2]
        assert np.abs(pixels[0, 8, 8] - grey) < 6


def test_sixteen_bits_are_scaled_and_not_cut():
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    for data in (
        encoded(Image.fromarray(values)),
        encoded(Image.fromarray(values), "TIFF"),
        encoded(Image.fromarray(values.astype(np.int32)), "TIFF"),
        encoded(Image.fromarray(values.astype(np.float32) / 65535), "TIFF"),
    ):
        pixels = decode(data, image_size=16, num_channels=1, resize="crop")
        assert np.abs(pixels[0].ravel().astype(int) - np.arange(256)).max() <= 1


def test_values_without_a_known_range_are_refused():
    for values in (np.full((8, 8), -1, np.int32), np.full((8, 8), np.nan, np.float32)):
        with pytest.raises(BrokenImageError, match="has values from"):
            open_image(encoded(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_images_are_turned_as_their_exif_data_say(form):
    image = Image.new("RGB", (24, 16), "white")
    image.paste("black", (0, 0, 24, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # the first row is at the right
    turned = open_image(encoded(image, form, exif=exif))
    assert turned.size == (16, 24)
    assert np.asarray(turned.convert("L"))[:, -2].max() < 20
    assert np.asarray(turned.convert("L"))[:, 2].min() > 235


def test_what_is_transparent_becomes_white_or_stays_transparent():
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (4, 4, 12, 12))
    data = encoded(image)
    flat = decode(data, image_size=16, num_channels=3, resize="crop")
    assert flat[:, 0, 0].tolist() == [255, 255, 255]
    assert flat[:, 8, 8].tolist() == [0, 0, 255]
    whole = decode(data, image_size=16, num_channels=4, resize="crop")
    assert whole[:, 0, 0].tolist() == [255, 255, 255, 0]
    assert whole[:, 8, 8].tolist() == [0, 0, 255, 255]
    palette = encoded(image.convert("P"), transparency=image.convert("P").getpixel((0, 0)))
    assert decode(palette, image_size=16, num_channels=3, resize="crop")[:, 0, 0].tolist() == [
        *[255] * 3
    ]


def test_policies_of_resizing_keep_what_they_promise():
    image = Image.new("RGB", (30, 10), "white")
    image.paste("black", (0, 0, 10, 10))
    data = encoded(image)
    crop, pad, stretch = (
        decode(data, image_size=12, num_channels=1, resize=policy)[0]
        for policy in ("crop", "pad", "stretch")
    )
    assert crop.min() > 200
    assert (pad[5, :3] < 60).all()
    assert (pad[0] == pad[0, 0]).all()
    assert pad[5, 8] > 240
    assert (stretch[:, :3] < 60).all()
    assert (stretch[:, 5:] > 200).all()


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1)])
@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
def test_extreme_shapes_work(size, resize):
    pixels = decode(encoded(picture("RGB", size)), image_size=8, num_channels=3, resize=resize)
    assert np.abs(pixels[:, 4, 4].astype(int) - COLOUR).max() < 4


def _png_header(width, height):
    """A PNG that says it is large and holds almost nothing."""
    chunk = lambda name, data: (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


@pytest.mark.parametrize("side", [11_000, 50_000, 2_000_000])
def test_decompression_bombs_are_refused_without_decoding_or_warning(side):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with quietly(), pytest.raises(BrokenImageError, match="pixels"):
            open_image(_png_header(side, side))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no image", "no image"),
        (b"", "no image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image"),
        (encoded(picture("RGB", (99, 99)), "BMP")[:2000], "cannot be decoded"),
        (encoded(picture("RGB"))[:-30], "cannot be decoded"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason(content, reason):
    with pytest.raises(BrokenImageError, match=reason):
        open_image(content)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BrokenImageError, match="does not exist"):
        open_image(tmp_path / "none.png")


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"]), st.data())
def test_damaged_files_give_pixels_or_a_reason_and_nothing_else(form, data):
    content = bytearray(encoded(picture("RGB", (9, 7)), form))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with quietly(), contextlib.suppress(BrokenImageError):
        pixels = decode(bytes(content), image_size=8, num_channels=3, resize="crop")
        assert pixels.shape == (3, 8, 8)


def test_a_large_photograph_is_decoded_small_and_alike():
    values = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    large = Image.fromarray(values).resize((512, 512), Image.Resampling.BICUBIC)
    fast = decode(encoded(large, "JPEG", quality=95), image_size=32, num_channels=3, resize="crop")
    exact = decode(encoded(large), image_size=32, num_channels=3, resize="crop")
    assert np.abs(fast.astype(int) - exact).mean() < 3
    assert open_image(encoded(large, "JPEG"), near=32).size < (512, 512)


def test_the_channels_that_images_need_are_found():
    grey_palette = Image.new("L", (4, 4), 7).convert("P")
    images = [
        (Image.new("L", (4, 4), 7), 1),
        (grey_palette, 1),
        (Image.new("RGB", (4, 4), (9, 9, 9)), 1),
        (Image.new("RGB", (4, 4), (9, 9, 8)), 3),
        (Image.new("RGBA", (4, 4), (9, 9, 8, 255)), 3),
        (Image.new("RGBA", (4, 4), (9, 9, 8, 254)), 4),
        (Image.new("LA", (4, 4), (9, 100)), 4),
    ]
    assert [channels_of(open_image(encoded(image))) for image, _ in images] == [
        count for _, count in images
    ]
    assert [common_channels(counts) for counts in ([1, 1], [1, 1, 3], [3, 3, 4], [3, 4])] == [
        *[1, 3, 3, 4]
    ]
