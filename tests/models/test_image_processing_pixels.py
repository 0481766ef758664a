"""GenPixelsImageProcessor: nearest colours, sizes, channels, files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from hf_genmodels.models.image_processing_pixels import GenPixelsImageProcessor

COLOURS = [[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]


@pytest.fixture
def processor() -> GenPixelsImageProcessor:
    return GenPixelsImageProcessor(COLOURS, image_sizes=[4, 2])


def random_bytes(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def test_every_pixel_gets_its_nearest_colour(processor):
    pixels = random_bytes(3, 3, 4, 4)
    found = processor(pixels)["pixel_ids"]
    each = pixels.transpose(0, 2, 3, 1).reshape(3, 16, 1, 3).astype(int)
    expected = ((each - np.array(COLOURS)) ** 2).sum(-1).argmin(-1)
    assert np.array_equal(found.numpy(), expected)
    assert found.dtype == torch.int64


def test_greys_get_their_nearest_grey():
    processor = GenPixelsImageProcessor([[10], [100], [240]], image_sizes=[4])
    pixels = random_bytes(2, 1, 4, 4)
    each = pixels.reshape(2, 16, 1).astype(int)
    assert np.array_equal(
        processor(pixels)["pixel_ids"].numpy(), np.abs(each - [10, 100, 240]).argmin(-1)
    )


@pytest.mark.parametrize("size_index", [0, 1])
def test_pictures_of_the_palette_come_back_as_they_were(processor, size_index):
    size = processor.image_sizes[size_index]
    ids = torch.randint(len(COLOURS), (3, size * size), generator=torch.Generator().manual_seed(0))
    images = processor.to_images(ids)
    assert images[0].size == (size, size)
    assert torch.equal(processor(images, size_index=size_index)["pixel_ids"], ids)
    assert torch.equal(processor(processor.to_pixels(ids), size_index)["pixel_ids"], ids)


def test_a_rectangle_is_cropped_padded_or_stretched():
    wide = Image.new("RGB", (8, 4), (255, 0, 0))
    wide.paste((0, 0, 255), (2, 0, 6, 4))  # the middle square
    cropped = GenPixelsImageProcessor(COLOURS, [4], "crop")(wide)["pixel_ids"]
    stretched = GenPixelsImageProcessor(COLOURS, [4], "stretch")(wide)["pixel_ids"]
    assert set(cropped.flatten().tolist()) == {3}
    assert set(stretched.flatten().tolist()) == {1, 3}


def test_transparent_and_paletted_and_grey_images_are_read(processor):
    see_through = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    paletted = Image.new("RGB", (4, 4), (0, 255, 0)).convert("P")
    images = [see_through, paletted, Image.new("L", (9, 9), 255), Image.new("1", (4, 4), 0)]
    assert processor(images)["pixel_ids"][:, 0].tolist() == [4, 2, 4, 0]


@pytest.mark.parametrize(
    "images", [[], "picture.png", torch.zeros(1, 3, 4, 4), np.zeros((3, 4, 4), np.uint8)]
)
def test_what_is_no_picture_is_refused(processor, images):
    with pytest.raises(ValueError, match=r"PIL|[Pp]icture"):
        processor(images)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"palette": [[0]]}, "two or more colours"),
        ({"palette": [[0], [1, 2, 3]]}, "1, 3 or 4 values"),
        ({"palette": [[0], [256]]}, "from 0 to 255"),
        ({"image_sizes": []}, "at least 1"),
    ],
)
def test_a_palette_or_size_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        GenPixelsImageProcessor(**{"palette": COLOURS, "image_sizes": [4], **fields})


def test_it_is_the_same_after_saving_and_loading(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    loaded = GenPixelsImageProcessor.from_pretrained(tmp_path)
    assert (loaded.palette, loaded.image_sizes, loaded.resize) == (COLOURS, [4, 2], "crop")
    pixels = random_bytes(2, 3, 4, 4)
    assert torch.equal(loaded(pixels)["pixel_ids"], processor(pixels)["pixel_ids"])
