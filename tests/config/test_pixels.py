"""Options of a language model that draws."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_genmodels.config.lm import TrainLMConfig
from hf_genmodels.config.pixels import LARGEST_PALETTE, PixelOptions
from hf_genmodels.errors import UserError


@pytest.mark.parametrize("size", [1, LARGEST_PALETTE + 1])
def test_a_palette_has_some_colours_and_not_too_many(size: int):
    with pytest.raises(UserError, match=f"--pixels.palette_size is {size}"):
        PixelOptions(palette_size=size)


def test_colours_are_tokens_beside_those_of_texts(tmp_path: Path):
    pixels = PixelOptions(image_size=8, palette_size=600)

    config = TrainLMConfig(
        train_file=[str(tmp_path)], output_dir="run", tokenizer_vocab_size=300, pixels=pixels
    )

    assert config.expected_vocab_size == 300 + 600 + 3


def test_a_tokenizer_of_texts_is_not_silently_left_out(tmp_path: Path):
    with pytest.raises(UserError, match=r"--tokenizer_name mine .* Leave it out"):
        TrainLMConfig(
            train_file=[str(tmp_path)],
            output_dir="run",
            tokenizer_name="mine",
            pixels=PixelOptions(image_size=8),
        )


def test_mistakes_in_options_of_images_are_called_by_their_flags(tmp_path: Path):
    with pytest.raises(UserError, match=r"--pixels\.num_channels is 2\."):
        TrainLMConfig(
            train_file=[str(tmp_path)],
            output_dir="run",
            pixels=PixelOptions(image_size=8, num_channels=2),
        )
    with pytest.raises(UserError, match=r"^--pixels\.label_column and --text_column were given"):
        TrainLMConfig(
            train_file=[str(tmp_path)],
            output_dir="run",
            text_column="text",
            pixels=PixelOptions(image_size=8, label_column="label"),
        )
