"""Palettes: the colours of images, found again in the same way."""

from __future__ import annotations

import numpy as np
import pytest

from hf_genmodels.errors import UserError
from hf_genmodels.tokenization.palette import train_palette


def images_of(*colours: tuple[int, ...], noise: int = 0, seed: int = 0) -> np.ndarray:
    """Return one image of 8 x 8 in each colour, all of them with some noise."""
    random = np.random.default_rng(seed)
    flat = np.array(colours, dtype=np.int64)[:, :, None, None]
    shape = (len(colours), len(colours[0]), 8, 8)
    return np.clip(flat + random.integers(-noise, noise + 1, shape), 0, 255).astype(np.uint8)


def test_images_of_few_colours_keep_them_all():
    colours = [(250, 10, 10), (0, 0, 0), (10, 10, 250)]
    found = train_palette(images_of(*colours), size=16)
    assert sorted(map(tuple, found.tolist())) == sorted(colours)
    assert found.dtype == np.uint8


def test_each_group_of_colours_gets_its_middle():
    colours = [(30, 30, 30), (220, 40, 40), (40, 200, 220)]
    found = train_palette(images_of(*colours, noise=8), size=3)
    for colour in colours:
        assert np.abs(found.astype(int) - colour).sum(axis=1).min() < 9


def test_greys_are_sorted_from_dark_to_light_and_span_the_range():
    greys = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    found = train_palette(greys, size=8)[:, 0].astype(int)
    assert (np.diff(found) > 0).all()
    assert len(found) == 8
    assert found[0] < 40
    assert found[-1] > 215


def test_the_same_seed_gives_the_same_palette():
    images = np.random.default_rng(1).integers(0, 256, (5, 3, 8, 8)).astype(np.uint8)
    assert np.array_equal(train_palette(images, 12, seed=3), train_palette(images, 12, seed=3))
    assert not np.array_equal(train_palette(images, 12, seed=3), train_palette(images, 12, seed=4))


def test_more_colours_are_nearer_to_the_images():
    images = np.random.default_rng(1).integers(0, 256, (5, 3, 8, 8)).astype(np.uint8)
    pixels = images.transpose(0, 2, 3, 1).reshape(-1, 1, 3).astype(float)

    def error(size: int) -> float:
        palette = train_palette(images, size)[None].astype(float)
        return ((pixels - palette) ** 2).sum(-1).min(1).mean()

    assert error(32) < error(8) < error(2)


@pytest.mark.parametrize(
    ("images", "size", "message"),
    [
        (images_of((1,), (200,)), 1, "palette of 1 colours"),
        (images_of((7,), (7,)), 4, "the same colour"),
    ],
)
def test_a_palette_that_draws_nothing_is_refused(images, size, message):
    with pytest.raises(UserError, match=message):
        train_palette(images, size)
