"""Tests of images with attributes: columns of yes and no, and lists of names."""

from __future__ import annotations

import numpy as np
import pytest

from hf_genmodels.errors import UserError
from tests.data.image_folders import commas, fill, lines, shades


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
