"""Tests of images from folders, tables and datasets: what is found, and what it is taken for."""

from __future__ import annotations

import numpy as np
import pytest

from hf_genmodels.data.images import scaled
from hf_genmodels.errors import UserError
from tests.data.image_folders import RED, commas, fill, first_pixels, lines, parquet, png, shades


def test_subfolders_are_classes(folder, load):
    fill(folder, {"b/x.png": png(1), "a/deep/z.png": png(2), "a/y.JPG": png(3), "b/notes.txt": "-"})
    fill(folder, {".hidden/x.png": "-", "__MACOSX/b/._x.png": "-", "b/._x.png": "-"})
    data = load(folder)
    assert (data.kind, data.label_names, data.num_channels) == ("class", ["a", "b"], 1)
    assert first_pixels(data.train) == [3, 2, 1]
    assert data.train.labels.tolist() == [0, 0, 1]
    assert data.skipped == []
    assert data.validation is None


def test_a_folder_without_classes_gives_images_alone(folder, load):
    fill(folder, {"images/1.png": png(5), "images/2.png": png(6)})
    data = load(folder)
    assert (data.kind, data.label_names, data.train.labels) == ("none", [], None)
    with pytest.raises(UserError, match="one class only, 'images'"):
        load(folder, conditioning="class")
    fill(folder, {"others/3.png": png(7)})
    assert load(folder).kind == "class"
    assert load(folder, conditioning="none").kind == "none"
    fill(folder, {"4.png": png(8)})
    assert load(folder).kind == "none"
    with pytest.raises(UserError, match="do not stand in subfolders"):
        load(folder, conditioning="class")


def test_folders_train_and_test_are_taken_for_what_they_are_called(folder, load):
    fill(folder, {"train/a/1.png": png(1), "train/b/2.png": png(2), "test/b/3.png": png(3)})
    data = load(folder, validation_split_percentage=5)
    assert first_pixels(data.train) == [1, 2]
    assert first_pixels(data.validation) == [3]
    assert data.validation.labels.tolist() == [1]
    fill(folder, {"bus/4.png": png(4)})
    assert load(folder).label_names == ["bus", "test", "train"]


def test_image_files_may_be_named_by_a_pattern(folder, load):
    fill(folder, {**shades(3), "notes.txt": "-", "table.jsonl": "{}"})
    assert first_pixels(load(folder / "*.png").train) == [0, 1, 2]
    with pytest.raises(UserError, match="only images"):
        load(folder / "*.png", conditioning="class")
    with pytest.raises(UserError, match="only images"):
        load(folder / "1.png", text_column="text")
    with pytest.raises(UserError, match="too few to hold some out"):
        load(folder / "1.png", validation_split_percentage=5)


def test_several_folders_follow_each_other(folder, load):
    fill(folder, {"one/a/1.png": png(1), "one/b/2.png": png(2), "two/a/3.png": png(3)})
    fill(folder, {"two/b/4.png": png(4)})
    data = load(folder / "one", folder / "two")
    assert first_pixels(data.train) == [1, 2, 3, 4]
    assert data.train.labels.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_table_beside_the_images_says_what_they_are(form, folder, load):
    rows = [
        {"file_name": "sub/1.png", "text": "a red heart", "label": "heart"},
        {"file_name": "2.png", "text": "an apple", "label": "fruit"},
    ]
    fill(folder, {"sub/1.png": png(1), "2.png": png(2)})
    fill(folder, {f"metadata.{form}": lines(rows) if form == "jsonl" else commas(rows)})
    for name in (folder, folder / f"metadata.{form}"):
        data = load(name)
        assert data.label_names == ["fruit", "heart"]
        assert data.train.labels.tolist() == [1, 0]
        assert first_pixels(data.train) == [1, 2]
        data = load(name, text_column="text")
        assert data.train.captions == [["a red heart"], ["an apple"]]
        assert data.train.labels is None
        assert load(name, conditioning="text").kind == "text"


def test_images_have_several_captions(folder, load):
    rows = [
        {"img": "0.png", "caption": [], "keywords": []},
        {"img": "1.png", "caption": ["one", " two  words ", ""], "keywords": ["k", "one"]},
        {"img": "2.png", "caption": ["three"], "keywords": None},
    ]
    fill(folder, {**shades(3), "table.jsonl": lines(rows)})
    data = load(folder / "table.jsonl", extra_text_columns=["keywords"])
    assert data.train.captions == [["one", "two words", "k"], ["three"]]
    assert [reason for _, reason in data.skipped] == ["has no caption"]
    rows = [{"img": f"{i}.png", "label": i, "words": ["a", "b"]} for i in range(3)]
    fill(folder, {"table.jsonl": lines(rows)})
    data = load(folder / "table.jsonl", extra_text_columns=["words"])
    assert data.train.captions == [["a", "b"]] * 3


def test_parquet_and_datasets_keep_the_names_of_classes(folder, load, tmp_path):
    datasets = pytest.importorskip("datasets")
    features = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=["zebra", "ant"]),
        "tags": datasets.List(datasets.ClassLabel(names=["x", "y", "z"])),
    }
    rows = [
        {"image": {"bytes": png(i), "path": None}, "label": label, "tags": tags}
        for i, (label, tags) in enumerate([(1, [2]), (0, []), (-1, [0, 1])])
    ]
    parquet(folder / "train.parquet", rows, features)
    data = load(folder / "train.parquet")
    assert data.label_names == ["zebra", "ant"]
    assert data.train.labels.tolist() == [1, 0]
    assert data.skipped == [(f"row 3 of the file '{folder / 'train.parquet'}'", "has no label")]
    tagged = load(folder / "train.parquet", attribute_columns=["tags"])
    assert tagged.train.labels.tolist() == [[0, 0, 1], [0, 0, 0], [1, 1, 0]]
    parquet(folder / "test.parquet", rows[:1], features)
    hub = load(dataset_name=str(folder), label_column="label")
    assert hub.label_names == ["zebra", "ant"]
    assert first_pixels(hub.train) == [0, 1]
    assert hub.train.labels.tolist() == [1, 0]
    assert first_pixels(hub.validation) == [0]


def test_a_folder_that_datasets_reads_works_too(folder, load):
    pytest.importorskip("datasets")
    fill(folder, {f"train/{name}/{i}.png": png(i) for i, name in enumerate("abab")})
    data = load(dataset_name=str(folder))
    assert data.label_names == ["a", "b"]
    assert sorted(first_pixels(data.train)) == [0, 1, 2, 3]
    with pytest.raises(UserError, match=r"no column 'lable'.*Did you mean 'label'"):
        load(dataset_name=str(folder), label_column="lable")
    with pytest.raises(UserError, match="cannot be loaded"):
        load(dataset_name=str(folder / "nowhere"))


def test_numbers_are_classes_in_their_order(folder, load):
    rows = [{"image": f"{i}.png", "label": label} for i, label in enumerate([10, 2, 2.0, "10"])]
    fill(folder, {**shades(4), "table.jsonl": lines(rows)})
    data = load(folder / "table.jsonl")
    assert data.label_names == ["2", "10"]
    assert data.train.labels.tolist() == [1, 0, 0, 1]


def test_bundled_images_are_named_by_sample(load):
    pytest.importorskip("pyarrow")
    data = load("sample:emoji/test.parquet", extra_text_columns=["keywords"], max_train_images=20)
    assert data.kind == "text"
    assert data.train.images.shape == (20, 3, 8, 8)
    assert any(len(texts) > 1 for texts in data.train.captions)


def test_channels_are_found_or_given_and_validation_has_the_same(folder, load):
    fill(folder, {"train/1.png": png(RED), "train/2.png": png(7), "test/3.png": png(9)})
    data = load(folder)
    assert data.num_channels == 3
    assert data.train.images[0, :, 0, 0].tolist() == [255, 0, 0]
    assert data.validation.images.shape == (1, 3, 8, 8)
    assert load(folder, num_channels=1).train.images.shape == (2, 1, 8, 8)
    assert load(folder, num_channels=4).train.images[0, :, 0, 0].tolist() == [255, 0, 0, 255]


def test_a_random_part_is_held_out_once_and_the_same_every_time(folder, load):
    fill(folder, {f"{'ab'[i >= 50]}/{i:02}.png": png(i) for i in range(100)})
    data = load(folder, validation_split_percentage=20)
    apart, kept = first_pixels(data.validation), first_pixels(data.train)
    assert len(apart) == 20
    assert sorted(apart + kept) == list(range(100))
    assert 4 < sum(shade >= 50 for shade in apart) < 16
    assert [int(label) for label in data.validation.labels] == [int(s >= 50) for s in apart]
    again = load(folder, validation_split_percentage=20)
    assert first_pixels(again.validation) == apart
    assert data.validation_name == "20 % of images"
    assert len(load(folder, validation_split_percentage=10).train) == 90


def test_a_limit_takes_images_from_everywhere(folder, load):
    fill(folder, {f"{'ab'[i >= 50]}/{i:02}.png": png(i) for i in range(100)})
    data = load(folder, max_train_images=20, validation_split_percentage=25)
    assert (len(data.train), len(data.validation)) == (15, 5)
    assert set(data.train.labels.tolist()) == {0, 1}


def test_folders_that_link_to_themselves_are_read_once(folder, load):
    fill(folder, {"a/1.png": png(1), "b/2.png": png(2)})
    (folder / "a" / "loop").symlink_to(folder, target_is_directory=True)
    assert first_pixels(load(folder).train) == [1, 2]


def test_tables_without_facts_are_read_whole(folder, load):
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    rows = [{"picture": png(i), "number": i} for i in range(3)]
    parquet.write_table(arrow.Table.from_pylist(rows), folder / "t.parquet")
    data = load(folder / "t.parquet")
    assert (data.kind, first_pixels(data.train)) == ("none", [0, 1, 2])


def test_bytes_are_scaled_to_what_models_compute_with():
    values = np.array([[0, 255], [128, 127]], np.uint8)
    expected = np.array([[-1, 1], [1 / 255, -1 / 255]])
    np.testing.assert_allclose(scaled(values).numpy(), expected, atol=1e-7)
