"""Tests of what image data skips, counts, explains or refuses."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from PIL import Image

from hf_genmodels.errors import UserError
from tests.data.image_folders import fill, first_pixels, lines, png, shades


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


def test_clips_that_are_left_out_are_called_clips(folder, load, caplog):
    fill(folder, {**shades(2), "2.gif": b"junk"})
    with pytest.raises(UserError, match=r"None of the clips of .* can be used"):
        load(folder, num_frames=4)
    pictures = [Image.new("L", (8, 8), 40 * number) for number in range(4)]
    pictures[0].save(folder / "3.gif", save_all=True, append_images=pictures[1:])
    with caplog.at_level(logging.WARNING):
        load(folder, num_frames=4, validation_split_percentage=0)
    assert "3 of 4 clips are left out" in caplog.text


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
    with pytest.raises(
        UserError, match=r"None of the images of .* can be used: .*1\.png is no image"
    ):
        load(folder)
    fill(folder, shades(2))
    with pytest.raises(
        UserError, match=r"no table .* 'text' .* metadata\.jsonl.*--text_column null"
    ):
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
