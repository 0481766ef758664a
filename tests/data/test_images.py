"""Tests of images from folders, tables and datasets: what is found, skipped, cached and refused."""

from __future__ import annotations

import csv
import errno
import io
import json
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_genmodels.config.images import ImageDataConfig
from hf_genmodels.data import image_cache
from hf_genmodels.data.images import load_image_data, scaled
from hf_genmodels.errors import UserError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def png(colour=RED, size=(10, 8)):
    stream = io.BytesIO()
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


def fill(folder, files):
    """Write files: name -> bytes or text."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def lines(rows):
    return "\n".join(json.dumps(row) for row in rows)


def commas(rows):
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def shades(number):
    return {f"{i}.png": png(i) for i in range(number)}


@pytest.fixture
def folder(tmp_path):
    """An empty folder for images."""
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


@pytest.fixture
def load(tmp_path):
    """Loads image data with a cache of its own."""

    def load_with(*train, conditioning=None, **options):
        options = {"image_size": 8, "validation_split_percentage": 0, **options}
        config = ImageDataConfig(
            train_file=[str(name) for name in train], cache_dir=str(tmp_path / "cache"), **options
        )
        return load_image_data(config, conditioning=conditioning, show_progress=True)

    return load_with


def first_pixels(images):
    """The first value of each image."""
    return images.images[:, 0, 0, 0].tolist()


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


def test_what_is_wrong_with_a_later_table_is_said_of_its_own_images(folder, load):
    tables = {}
    for name, images in (("x", ["0.png", "1.png"]), ("y", ["2.png", "gone.png", "3.png"])):
        rows = [{"image": image, "label": i} for i, image in enumerate(images)]
        tables[f"{name}.jsonl"] = lines(rows)
    fill(folder, {**shades(4), **tables})
    data = load(folder / "*.jsonl")
    assert first_pixels(data.train) == [0, 1, 2, 3]
    assert data.train.labels.tolist() == [0, 1, 0, 2]
    assert data.skipped == [(str(folder / "gone.png"), "does not exist")]


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


@pytest.mark.parametrize(
    "values",
    [("1", "-1"), ("1", "0"), ("TRUE", " false"), ("1.0", "0.0"), (1, -1), (1.0, 0), (True, False)],
)
def test_columns_of_yes_and_no_are_attributes(values, folder, load):
    yes, no = values
    rows = [
        {"image_id": "0.png", "Young": yes, "Smiling": no, "age": 7},
        {"image_id": "1.png", "Young": no, "Smiling": no, "age": 8},
    ]
    table = commas(rows) if isinstance(yes, str) else lines(rows)
    fill(folder, {**shades(2), "table.csv" if isinstance(yes, str) else "table.jsonl": table})
    (name,) = folder.glob("table.*")
    data = load(name, attribute_columns=["Smiling", "Young"])
    assert (data.kind, data.label_names) == ("attributes", ["Smiling", "Young"])
    assert data.train.labels.tolist() == [[0, 1], [0, 0]]
    assert data.train.labels.dtype == np.uint8
    assert load(name, attribute_columns=["*"]).label_names == ["Young", "Smiling"]


def test_validation_must_have_the_attributes_of_training(folder, load):
    train, test = [{"image": "0.png", "a": 1, "b": 0}], [{"image": "1.png", "a": 1}]
    fill(folder, {**shades(2), "train.jsonl": lines(train), "test.jsonl": lines(test)})
    files = {"validation_file": [str(folder / "test.jsonl")], "attribute_columns": ["*"]}
    with pytest.raises(UserError, match="has the attributes a, and the training images have a, b"):
        load(folder / "train.jsonl", **files)
    fill(folder, {"test.jsonl": lines([{"image": "1.png", "a": 1, "b": 1}])})
    assert load(folder / "train.jsonl", **files).validation.labels.tolist() == [[1, 1]]


def test_a_missing_attribute_is_no_attribute(folder, load):
    rows = [{"image": f"{i}.png", "hat": value} for i, value in enumerate([1, None, 0])]
    fill(folder, {**shades(3), "table.jsonl": lines(rows)})
    data = load(folder / "table.jsonl", attribute_columns=["hat"])
    assert data.train.labels.tolist() == [[1], [0]]
    assert [reason for _, reason in data.skipped] == ["has no value in the column 'hat'"]


def test_lists_of_names_are_attributes(folder, load):
    rows = [{"image": "0.png", "has": ["hat", "beard"]}, {"image": "1.png", "has": []}]
    other = [{"image": "1.png", "has": ["hat"]}]
    fill(folder, {**shades(2), "train.jsonl": lines(rows), "test.jsonl": lines(other)})
    options = {"attribute_columns": ["has"]}
    data = load(folder / "train.jsonl", validation_file=[str(folder / "test.jsonl")], **options)
    assert data.label_names == ["beard", "hat"]
    assert data.train.labels.tolist() == [[1, 1], [0, 0]]
    assert data.validation.labels.tolist() == [[0, 1]]
    fill(folder, {"test.jsonl": lines([{"image": "1.png", "has": ["hut"]}])})
    with pytest.raises(UserError, match=r"attribute 'hut'.*Did you mean 'hat'"):
        load(folder / "train.jsonl", validation_file=[str(folder / "test.jsonl")], **options)


def parquet(path, rows, features):
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_list(rows, features=datasets.Features(features))
    dataset.to_parquet(str(path))
    return path


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


def test_broken_images_are_skipped_counted_and_listed_or_refused(folder, load, caplog):
    fill(folder, {**shades(4), "2.png": b"junk", "empty.png": b""})
    with caplog.at_level(logging.WARNING):
        data = load(folder)
    assert first_pixels(data.train) == [0, 1, 3]
    assert data.skipped == [
        (str(folder / "2.png"), "is no image, or of an unknown format"),
        (str(folder / "empty.png"), "is no image, or of an unknown format"),
    ]
    assert "2 of 5 images are left out" in caplog.text
    with pytest.raises(UserError, match=r"2\.png is no image.*--broken skip"):
        load(folder, broken="error")
    assert load(folder).skipped == data.skipped


def test_labels_stay_with_their_images_when_others_are_skipped(folder, load):
    rows = [
        {"file_name": "0.png", "label": "x"},
        {"file_name": "gone.png", "label": "y"},
        {"file_name": "1.png", "label": None},
        {"file_name": "2.png", "label": "y"},
        {"file_name": "", "label": "y"},
    ]
    fill(folder, {**shades(3), "metadata.jsonl": lines(rows)})
    data = load(folder)
    assert first_pixels(data.train) == [0, 2]
    assert data.train.labels.tolist() == [0, 1]
    assert [reason for _, reason in data.skipped] == [
        "does not exist",
        "has no label",
        "has no file name in the column 'file_name'",
    ]
    for wrong in (rows[1], rows[2]):
        fill(folder, {"metadata.jsonl": lines([rows[0], rows[3], wrong])})
        with pytest.raises(UserError, match=r"does not exist|has no label"):
            load(folder, broken="error")


@pytest.mark.parametrize(
    "name", ["../secret.png", "sub/../../secret.png", "/etc/secret.png", "..\\secret.png"]
)
def test_names_must_stay_inside_the_folder_of_their_table(name, folder, load):
    fill(folder, {**shades(2), "../secret.png": png(9)})
    fill(folder, {"table.jsonl": lines([{"file_name": "0.png"}, {"file_name": name}])})
    with pytest.raises(UserError, match="not below the folder of the table"):
        load(folder / "table.jsonl")


def test_names_inside_a_parquet_image_must_stay_inside_too(folder, load):
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    fill(folder, {"../secret.png": png(9)})
    for path in ("../secret.png", "inside.png"):
        rows = [{"image": {"bytes": None, "path": path}}] * 2
        parquet.write_table(arrow.Table.from_pylist(rows), folder / f"{Path(path).stem}.parquet")
    fill(folder, {"inside.png": png(3)})
    assert first_pixels(load(folder / "inside.parquet").train) == [3, 3]
    with pytest.raises(UserError, match="not below the folder of the table"):
        load(folder / "secret.parquet")


def test_absolute_names_inside_and_folders_with_dots_work(folder, load, monkeypatch):
    fill(folder, {"sub/x.txt": "-", **shades(2)})
    rows = [{"file_name": str(folder / "0.png")}, {"file_name": "./sub/../1.png"}]
    fill(folder, {"table.jsonl": lines(rows)})
    assert first_pixels(load(folder / "table.jsonl").train) == [0, 1]
    monkeypatch.chdir(folder / "sub")
    assert first_pixels(load("../table.jsonl").train) == [0, 1]


def test_addresses_are_not_downloaded(folder, load):
    fill(folder, {"t.jsonl": lines([{"image": "https://example.org/1.png"}] * 2)})
    with pytest.raises(UserError, match="Download the images first"):
        load(folder / "t.jsonl")


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"file_name": "0.png", "label": "a"}], {"image_column": "imge"}, "no column 'imge'"),
        ([{"file_name": "0.png", "label": "a"}], {"label_column": "lable"}, "mean 'label'"),
        ([{"file_name": "0.png", "label": "a"}], {"label_column": "x"}, "Its columns: label"),
        ([{"file_name": "0.png", "text": "a"}], {"text_column": "txt"}, "mean 'text'"),
        ([{"file_name": "0.png", "a": 1}], {"attribute_columns": ["b"]}, "no column 'b'"),
        ([{"file_name": "0.png", "a": 3}], {"attribute_columns": ["a"]}, "Attributes are 0 and 1"),
        ([{"file_name": "0.png", "a": 3}], {"attribute_columns": ["*"]}, "no column '\\*'"),
        ([{"x": "0", "y": 1}], {}, "Which column .* holds the images.*Its columns: x, y"),
        ([{"x": 3, "y": 1}], {"image_column": "x"}, "values of type int, not images"),
        ([{"file_name": "0.png", "text": ""}] * 3, {}, "All captions .* are empty"),
        ([{"file_name": "0.png", "text": 5}], {}, "neither a text nor a list of texts"),
        ([{"file_name": "0.png", "label": [1]}], {}, "several labels of an image"),
        ([{"file_name": "0.png", "label": 0.5}], {}, "Labels are texts or whole numbers"),
        ([{"file_name": "0.png", "label": "a"}], {"label_column": "label"}, "one class only, 'a'"),
        ([{"file_name": "0.png"}], {"conditioning": "class"}, "has no such column.*--label_column"),
        ([{"file_name": "0.png"}], {"conditioning": "text"}, "has no such column.*--text_column"),
        (
            [{"file_name": "0.png", "text": "a"}],
            {"conditioning": "class", "text_column": "text"},
            "classes are needed",
        ),
        ([{"file_name": "0.png", "text": "a"}], {"balanced": True}, "--balanced draws classes"),
        ([{"file_name": "9.png", "text": "a"}], {}, "None of the 1 files .* first is looked for"),
        (
            [{"file_name": "0.png", "label": f"id{i}"} for i in range(50)],
            {},
            "50 different ones for 50",
        ),
    ],
)
def test_mistakes_in_tables_are_explained(rows, options, message, folder, load):
    fill(folder, {**shades(1), "table.jsonl": lines(rows)})
    with pytest.raises(UserError, match=message):
        load(folder / "table.jsonl", **options)


def test_tables_that_say_different_things_do_not_mix(folder, load):
    fill(folder, {**shades(2), "a.jsonl": lines([{"image": "0.png", "label": "x"}])})
    fill(folder, {"b.jsonl": lines([{"image": "1.png", "text": "y"}])})
    with pytest.raises(UserError, match=r"says label about its images, but the file .* says text"):
        load(folder / "a.jsonl", folder / "b.jsonl")
    fill(folder, {"a.jsonl": lines([{"image": f"{i}.png", "label": "xy"[i]} for i in range(2)])})
    with pytest.raises(UserError, match=r"Classes are needed, but the file .*b\.jsonl"):
        load(folder / "a.jsonl", validation_file=[str(folder / "b.jsonl")])


def test_mistakes_in_folders_are_explained(folder, load):
    with pytest.raises(UserError, match="holds no images: it is empty"):
        load(folder)
    fill(folder, {"a.txt": "x", "b.txt": "y", "c.parquet": "z"})
    with pytest.raises(UserError, match=r"no images, but other files: 2 \.txt, 1 \.parquet"):
        load(folder)
    with pytest.raises(UserError, match="plain text"):
        load(folder / "a.txt")
    with pytest.raises(UserError, match="does not exist"):
        load(folder / "nowhere")
    fill(folder, {"1.png": b"junk"})
    with pytest.raises(UserError, match=r"No image of .* can be used: .*1\.png is no image"):
        load(folder)
    fill(folder, shades(2))
    with pytest.raises(UserError, match=r"no table .* metadata\.jsonl"):
        load(folder, text_column="text")
    with pytest.raises(UserError, match=r"no table .* metadata\.jsonl"):
        load(folder, conditioning="attributes")


def test_a_single_class_that_nobody_asked_for_is_no_class(folder, load, caplog):
    rows = [{"file_name": f"{i}.png", "label": "a"} for i in range(3)]
    fill(folder, {**shades(3), "metadata.jsonl": lines(rows)})
    with caplog.at_level(logging.WARNING):
        data = load(folder)
    assert data.kind == "none"
    assert "one class only, 'a'" in caplog.text


def test_an_unknown_class_in_validation_is_refused_with_the_nearest(folder, load):
    fill(folder, {"train/cat/1.png": png(1), "train/dog/2.png": png(2), "test/cats/3.png": png(3)})
    with pytest.raises(UserError, match=r"'cats' .* Did you mean 'cat'.*They are: cat, dog"):
        load(folder)


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


def test_images_are_decoded_once(folder, load, monkeypatch, tmp_path):
    fill(folder, shades(3))
    first = load(folder)
    assert isinstance(first.train.images, np.memmap)
    monkeypatch.setattr(image_cache, "decode", None)
    again = load(folder)
    assert again.path == first.path
    assert again.fingerprint == first.fingerprint
    assert first_pixels(again.train) == [0, 1, 2]
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize("change", ["pixels", "added", "removed", "size", "resize", "channels"])
def test_what_changes_the_images_changes_the_fingerprint(change, folder, load):
    fill(folder, {**shades(3), "4.png": png(RED, (16, 8))})
    first = load(folder)
    options = {
        "size": {"image_size": 16},
        "resize": {"resize": "stretch"},
        "channels": {"num_channels": 1},
    }
    if change == "pixels":
        fill(folder, {"1.png": png(200)})
    elif change == "added":
        fill(folder, {"5.png": png(5)})
    elif change == "removed":
        (folder / "1.png").unlink()
    other = load(folder, **options.get(change, {}))
    assert other.path != first.path
    if change != "resize":  # one colour looks the same however it is resized
        assert other.fingerprint != first.fingerprint


def test_the_fingerprint_follows_the_pixels_and_not_the_names_or_times(folder, load, tmp_path):
    fill(folder, {f"a/{name}": data for name, data in shades(2).items()} | {"b/1.png": png(1)})
    first = load(folder)
    os.utime(folder / "b" / "1.png", (1, 1))
    (folder / "a" / "0.png").rename(folder / "a" / "00.png")
    other = load(folder)
    assert other.path != first.path
    assert other.fingerprint == first.fingerprint


@pytest.mark.parametrize("name", ["train_images.bin", "train_labels.bin", "manifest.json"])
def test_a_damaged_cache_is_built_again_with_a_warning(name, folder, load, caplog):
    fill(folder, {"a/1.png": png(1), "b/2.png": png(2)})
    first = load(folder)
    expected = first_pixels(first.train)
    content = (first.path / name).read_bytes()
    (first.path / name).unlink()
    (first.path / name).write_bytes(content[:-1])
    with caplog.at_level(logging.WARNING):
        assert first_pixels(load(folder).train) == expected
    assert "built again" in caplog.text


def test_a_full_disk_is_a_clear_error(folder, load, monkeypatch, tmp_path):
    def no_room(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    fill(folder, shades(2))
    monkeypatch.setattr(image_cache, "write_json", no_room)
    with pytest.raises(UserError, match="No space left"):
        load(folder)
    assert list((tmp_path / "cache").iterdir()) == []


def test_too_little_room_is_said_before_anything_is_decoded(folder, load, monkeypatch):
    fill(folder, shades(2))
    monkeypatch.setattr(image_cache, "decode", None)
    usage = type("Usage", (), {"free": 2 * 8 * 8 - 1})
    monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"decoded images need .*--max_train_images"):
        load(folder)


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


def test_several_may_decode_at_once(folder, load, monkeypatch, tmp_path):
    fill(folder, shades(40))
    both, channels_needed = threading.Barrier(2, timeout=60), image_cache._channels_needed

    def wait_for_the_other(*arguments):
        both.wait()
        return channels_needed(*arguments)

    monkeypatch.setattr(image_cache, "_channels_needed", wait_for_the_other)
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(load, folder) for _ in range(2)]
    assert len({data.result().fingerprint for data in found}) == 1
    assert sorted(first_pixels(found[0].result().train)) == list(range(40))
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_bytes_are_scaled_to_what_models_compute_with():
    values = np.array([[0, 255], [128, 127]], np.uint8)
    expected = np.array([[-1, 1], [1 / 255, -1 / 255]])
    np.testing.assert_allclose(scaled(values).numpy(), expected, atol=1e-7)
