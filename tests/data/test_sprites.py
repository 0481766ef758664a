"""Sprites that move: what a clip shows is a pure function of its number."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_genmodels.config.images import ImageDataConfig
from hf_genmodels.config.videos import DIRECTIONS
from hf_genmodels.data.image_batches import ImageBatches
from hf_genmodels.data.images import load_image_data
from hf_genmodels.data.sprites import SHORTEST_WAY, SpriteClips, moving_sprite
from hf_genmodels.errors import UserError

SIDE, CANVAS, FRAMES = 4, 12, 6


def options(**values):
    defaults = {"num_frames": FRAMES, "sprite_size": SIDE, "image_size": CANVAS}
    return ImageDataConfig(**(defaults | {"train_file": ["images"]} | values))


@pytest.fixture
def sprites():
    """Dark squares with a bright middle of their own value."""
    pixels = np.full((10, 1, SIDE, SIDE), 20, np.uint8)
    pixels[:, :, 1:3, 1:3] = (100 + np.arange(10))[:, None, None, None]
    return pixels


@pytest.fixture
def folder(tmp_path: Path, sprites):
    """The sprites as files with a class, a caption and an attribute each."""
    rows = []
    for number, sprite in enumerate(sprites):
        Image.fromarray(sprite[0]).save(tmp_path / f"{number}.png")
        row = {"file_name": f"{number}.png", "kind": "Even" if number % 2 == 0 else "Odd"}
        rows.append(row | {"caption": f"number {number}", "is_even": int(number % 2 == 0)})
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def load(folder: Path, tmp_path: Path, conditioning=None, **values):
    config = options(
        train_file=[str(folder)],
        cache_dir=str(tmp_path / "cache"),
        validation_split_percentage=20,
        **values,
    )
    return load_image_data(config, conditioning=conditioning, show_progress=False)


def edges(clip):
    """Left and top of the bright middle of each frame, (T, 2)."""
    return np.array([[np.argwhere(f[0] >= 100)[:, axis].min() for axis in (1, 0)] for f in clip])


def test_a_sprite_stands_where_it_is_told_on_the_colour_of_its_edges(sprites):
    places = np.array([[0, 3], [8, 8]])
    clip = moving_sprite(sprites[2], places, CANVAS)
    assert clip.shape == (2, 1, CANVAS, CANVAS)
    assert np.array_equal(clip[0, :, 3:7, 0:4], sprites[2])
    assert np.array_equal(clip[1, :, 8:, 8:], sprites[2])
    assert clip[0, 0, :, 5:].max() == 20


def test_every_clip_moves_straight_where_its_direction_says(sprites):
    clips = SpriteClips(sprites, options(), seed=3)
    names = options().sprite_directions
    for number, direction in enumerate(clips.directions(np.arange(len(clips))).tolist()):
        found = edges(clips[number])
        step = np.array(DIRECTIONS[names[direction]])
        way = (found[-1] - found[0]) @ step
        assert (CANVAS - SIDE) * SHORTEST_WAY - 1 <= way <= CANVAS - SIDE
        assert (np.diff(found, axis=0) @ step >= 0).all()
        assert (np.diff(found, axis=0)[:, step == 0] == 0).all()


def test_a_clip_is_the_same_however_it_is_asked_for(sprites):
    clips = SpriteClips(sprites, options(), seed=3)
    every = clips[:]
    assert every.shape == clips.shape == (40, FRAMES, 1, CANVAS, CANVAS)
    chosen = np.array([31, 2, 2, 17])
    assert np.array_equal(clips[chosen], every[chosen])
    assert np.array_equal(clips[5], every[5])
    assert np.array_equal(SpriteClips(sprites, options(), seed=3)[7:9], every[7:9])
    assert not np.array_equal(SpriteClips(sprites, options(), seed=4)[:], every)


def test_the_clips_of_a_sprite_take_every_direction_as_often(sprites):
    clips = SpriteClips(sprites, options(clips_per_image=8), seed=0)
    directions = clips.directions(np.arange(80)).reshape(8, 10)
    for own in directions.T:
        assert np.bincount(own, minlength=4).tolist() == [2, 2, 2, 2]


def test_classes_become_captions_that_say_where_something_moves(folder, tmp_path):
    data = load(folder, tmp_path, label_column="kind")
    assert data.kind == "text"
    assert data.factor_names == {"class": ["Even", "Odd"], "direction": list(DIRECTIONS)}
    assert len(data.train) == 32
    assert len(data.validation) == 8
    factors = data.train.factors
    for number, (caption,) in enumerate(data.train.captions):
        kind = data.factor_names["class"][factors["class"][number]].lower()
        assert caption == f"{kind} moving {list(DIRECTIONS)[factors['direction'][number]]}"
        value = data.train.images[number].max() - 100
        assert ("even", "odd")[value % 2] == kind


def test_captions_are_kept_and_go_on(folder, tmp_path):
    data = load(folder, tmp_path, text_column="caption")
    assert data.factor_names == {"direction": list(DIRECTIONS)}
    assert all(text.startswith("number ") and " moving " in text for (text,) in data.train.captions)


def test_clips_are_drawn_by_class_or_by_attributes_or_by_nothing(folder, tmp_path):
    by_class = load(folder, tmp_path, "class", label_column="kind")
    assert by_class.label_names == ["Even", "Odd"]
    assert np.array_equal(by_class.train.labels, by_class.train.factors["class"])
    flags = load(folder, tmp_path, "attributes", label_column="kind")
    assert flags.label_names == ["Even", "Odd", *(f"moving {name}" for name in DIRECTIONS)]
    assert (flags.train.labels.sum(axis=1) == 2).all()
    assert np.array_equal(flags.train.labels[:, 2:].argmax(1), flags.train.factors["direction"])
    own = load(folder, tmp_path, attribute_columns=["is_even"])
    assert own.label_names[0] == "is_even"
    assert np.array_equal(own.train.labels[:, 0], 1 - (own.train.images[:].max((1, 2, 3, 4)) % 2))
    nothing = load(folder, tmp_path, "none")
    assert nothing.kind == "none"
    assert nothing.train.labels is nothing.train.captions is None


def test_batches_of_clips_are_a_pure_function_of_the_position(folder, tmp_path):
    config = options(train_file=[str(folder)])
    data = load(folder, tmp_path, "class", label_column="kind")
    both = ImageBatches(config, data.train, seed=1, batch_size=4)
    whole = [next(both) for _ in range(12)]
    assert whole[0]["images"].shape == (4, FRAMES, 1, CANVAS, CANVAS)
    again = ImageBatches(config, data.train, seed=1, batch_size=4, start={"images": 20})
    for expected in whole[5:]:
        found = next(again)
        assert (found["images"] == expected["images"]).all()
        assert (found["class_labels"] == expected["class_labels"]).all()


def test_another_motion_is_another_data_set(folder, tmp_path):
    first = load(folder, tmp_path, label_column="kind")
    assert load(folder, tmp_path, label_column="kind").fingerprint == first.fingerprint
    for values in ({"sprite_seed": 1}, {"num_frames": 5}, {"sprite_directions": ["left"]}):
        other = load(folder, tmp_path, label_column="kind", **values)
        assert other.fingerprint != first.fingerprint, values


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"num_frames": 1}, ["--sprite_size 4", "--num_frames too, 16"]),
        ({"sprite_size": CANVAS}, ["no room to move", "6 for example"]),
        ({"sprite_directions": ["sideways"]}, ["sideways", "left"]),
        ({"sprite_directions": []}, ["--sprite_directions is empty"]),
        ({"flip": True}, ["--flip", "--sprite_size"]),
        ({"clips_per_image": 0}, ["--clips_per_image is 0"]),
        ({"num_frames": 0, "sprite_size": None}, ["--num_frames is 0"]),
    ],
)
def test_what_cannot_move_is_refused(values, words):
    with pytest.raises(UserError) as caught:
        options(**values)
    for word in words:
        assert word in str(caught.value)


def test_sprites_without_classes_have_none_to_be_drawn_by(folder, tmp_path):
    with pytest.raises(UserError, match="Classes are needed"):
        load(folder, tmp_path, "class")
    with pytest.raises(UserError, match="--balanced"):
        load(folder, tmp_path, label_column="kind", balanced=True)
