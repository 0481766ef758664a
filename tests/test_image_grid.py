"""Grids show every image in its place, enlarged without smoothing, with readable labels."""

import numpy as np
import pytest
import torch
from PIL import Image

from hf_genmodels import image_grid
from hf_genmodels.image_grid import draw_animation, draw_grid, grid_image


def numbered(count, channels=1, side=8):
    """Images each of one grey value, 10, 20, ..."""
    values = 10 * (1 + np.arange(count, dtype=np.uint8))
    return np.broadcast_to(values[:, None, None, None], (count, channels, side, side)).copy()


def values_in(picture):
    return set(np.unique(np.asarray(picture.convert("L"))))


def test_images_stand_in_rows_and_are_enlarged_by_a_whole_factor():
    picture = grid_image(numbered(6), 3)

    pixels = np.asarray(picture)[..., 0]
    assert values_in(picture) == {10, 20, 30, 40, 50, 60, 255}
    places = {value: np.argwhere(pixels == value) for value in (10, 20, 30, 40, 50, 60)}
    for place in places.values():
        assert len(place) == 64 * 64
    tops = [places[value].min(0)[0] for value in (10, 20, 30, 40, 50, 60)]
    lefts = [places[value].min(0)[1] for value in (10, 20, 30, 40, 50, 60)]
    assert tops[0] == tops[2] < tops[3] == tops[5]
    assert lefts[0] < lefts[1] < lefts[2]
    assert lefts[:3] == lefts[3:]


def test_the_pixels_of_an_image_are_not_smoothed():
    image = np.zeros((1, 1, 2, 2), np.uint8)
    image[0, 0, 0, 0] = 200

    picture = grid_image(image, 1, scale=5)

    assert values_in(picture) == {0, 200, 255}
    assert (np.asarray(picture)[..., 0] == 200).sum() == 25


def test_large_images_keep_their_size_and_wide_grids_are_not_enlarged():
    assert grid_image(numbered(1, side=100), 1).size[0] < 130
    assert grid_image(numbered(2, side=16), 150).size[0] < 3000


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_all_numbers_of_channels_are_drawn_and_tensors_too(channels):
    images = torch.from_numpy(numbered(2, channels))
    if channels == 4:
        images[0, 3], images[1, 3] = 0, 255

    picture = grid_image(images, 2)

    values = values_in(picture)
    assert 20 in values
    assert (10 in values) == (channels < 4)  # what is transparent is white


def test_labels_stand_left_of_their_rows_and_titles_above_their_groups():
    plain = grid_image(numbered(6), 3)
    labelled = grid_image(
        numbered(6),
        [("drawn", 1), ("real ones that are nearest", 2)],
        ["sneaker", "a very long caption that has to be broken into several lines, and more"],
    )

    assert labelled.size[0] > plain.size[0] + 40
    assert labelled.size[1] > plain.size[1]
    pixels = np.asarray(labelled)[..., 0]
    first = np.argwhere(pixels == 10).min(0)
    beside = pixels[first[0] : first[0] + 64, : first[1]]
    above = pixels[: first[0], first[1] :]
    assert (beside < 128).any()
    assert (above < 128).any()


def test_labels_are_broken_into_lines_that_fit():
    lines = image_grid._lines("one two three four five six seven eight nine ten", 60)

    assert len(lines) == image_grid.MOST_LINES
    assert lines[-1].endswith("…")
    assert all(image_grid._width(line) <= 60 for line in lines)
    assert image_grid._lines("x" * 300, 60)[0].endswith("…")
    assert image_grid._lines("", 60) == []


def test_the_same_images_give_the_same_bytes_and_nothing_else_is_left(tmp_path):
    first, second = (
        draw_grid(tmp_path / "new" / f"{n}.png", numbered(3), 2, ["a", "b"]) for n in (1, 2)
    )
    assert first.read_bytes() == second.read_bytes()
    assert sorted(p.name for p in first.parent.iterdir()) == ["1.png", "2.png"]


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_an_animation_shows_all_pictures_and_holds_the_last(suffix, tmp_path):
    files = [draw_grid(tmp_path / f"{n}.png", numbered(n), 3) for n in (1, 2, 3)]
    frames = [*files[:2], Image.open(files[2])]

    with Image.open(draw_animation(tmp_path / f"a.{suffix}", frames, hold=1.5)) as animation:
        assert animation.n_frames == 3
        animation.seek(2)
        animation.load()
        assert animation.info["duration"] == 1500
        assert values_in(animation) == {10, 20, 30, 255}


@pytest.mark.parametrize(
    ("images", "columns", "labels", "message"),
    [
        (numbered(0), 2, [], "needs an image"),
        (numbered(2), 0, [], "needs an image"),
        (numbered(4), 2, ["a"], "1 labels do not fit 2 rows"),
        (numbered(2).astype(float), 2, [], "bytes"),
        (numbered(2, 2), 2, [], "1, 3 or 4"),
    ],
)
def test_what_cannot_be_drawn_is_refused(images, columns, labels, message):
    with pytest.raises(ValueError, match=message):
        grid_image(images, columns, labels)


def test_animations_of_other_kinds_or_sizes_are_refused(tmp_path):
    picture = Image.new("RGB", (4, 4))
    with pytest.raises(ValueError, match=r"moves is one of \.gif, \.webp, \.mp4"):
        draw_animation(tmp_path / "a.avi", [picture])
    with pytest.raises(ValueError, match="one size"):
        draw_animation(tmp_path / "a.gif", [picture, Image.new("RGB", (5, 4))])
    assert list(tmp_path.iterdir()) == []
