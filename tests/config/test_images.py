"""Options of images: what is accepted, filled in and refused."""

from __future__ import annotations

import pytest

from hf_genmodels.config.images import ImageDataConfig
from hf_genmodels.config.parser import parse_config
from hf_genmodels.errors import UserError

SAMPLE = "sample:fashion_mnist/train.parquet"


def parsed(*arguments):
    return parse_config(ImageDataConfig, list(arguments), command="genmodels", description="")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "in one way.*sample:fashion_mnist"),
        ({"train_file": ["a"], "dataset_name": "b"}, "in one way"),
        ({"dataset_name": "b", "validation_file": ["c"]}, "goes with --train_file"),
        ({"validation_split_percentage": 100}, "below 100"),
        ({"validation_split_percentage": -1}, "at least 0"),
        ({"image_size": 7}, "at least 8"),
        ({"num_channels": 2}, "1 .grey., 3 .RGB., 4"),
        ({"max_train_images": 1}, "at least 2"),
        ({"label_column": "a", "text_column": "b"}, "leave one out"),
        ({"label_column": "a", "extra_text_columns": ["b"]}, "does not go with --label_column"),
        ({"balanced": True, "text_column": "a"}, "--text_column gives none"),
    ],
)
def test_what_cannot_work_is_refused(options, message):
    if not {"train_file", "dataset_name"} & set(options) and options:
        options = {"train_file": ["images"], **options}
    with pytest.raises(UserError, match=message):
        ImageDataConfig(**options)


def test_the_command_line_takes_folders_and_switches():
    config = parsed("--train_file", "one", "two", "--flip", "--resize", "pad", "--image_size", "64")
    assert config.train_file == ["one", "two"]
    assert (config.flip, config.resize, config.image_size) == (True, "pad", 64)
    assert config.num_channels is None
    assert config.train_names == "one, two"


def test_a_wrong_choice_is_refused():
    with pytest.raises(UserError, match="resize"):
        parsed("--train_file", "x", "--resize", "squeeze")


def test_images_of_the_user_replace_bundled_ones():
    config = ImageDataConfig(dataset_name="mine", train_file=[SAMPLE], validation_file=[SAMPLE])
    assert (config.train_file, config.validation_file) == ([], [])
    config = ImageDataConfig(train_file=["mine"], validation_file=[SAMPLE])
    assert config.validation_file == []
    config = ImageDataConfig(train_file=[SAMPLE], validation_file=[SAMPLE])
    assert config.validation_names == "fashion_mnist/train.parquet"
