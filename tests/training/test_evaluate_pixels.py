"""`genmodels evaluate` with a language model that draws."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hf_genmodels.data.image_set import ImageSet
from hf_genmodels.errors import UserError
from hf_genmodels.hub.folder import publish_folder
from hf_genmodels.hub.loading import load_model, load_tokenizer
from hf_genmodels.inference import pixel_scores
from hf_genmodels.models.configuration_gpt import GenGPTConfig
from hf_genmodels.models.image_processing_pixels import GenPixelsImageProcessor
from hf_genmodels.models.modeling_gpt import GenGPTForCausalLM
from hf_genmodels.tokenization.pixels import PixelVocabulary, train_pixel_tokenizer
from hf_genmodels.training.evaluate import EvaluateOptions, evaluate, main
from hf_genmodels.training.train_judge import main as train_judge

LABELS, SIZES, GREYS = ["inside", "left"], [8, 4], [[10], [90], [170], [250]]
JUDGE = ["--image_size", "8", "--width", "4", "--feature_dim", "6", "--max_steps", "5"]


def publish(folder: Path, **fields: Any) -> Path:
    """Publish a model with random weights."""
    tokenizer = train_pixel_tokenizer(LABELS, vocab_size=270, num_colours=4, model_max_length=128)
    vocabulary = PixelVocabulary.of(tokenizer, 2)
    torch.manual_seed(0)
    config = GenGPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=128,
        image_sizes=SIZES,
        bos_token_id=vocabulary.begin,
        eos_token_id=vocabulary.end,
        pad_token_id=vocabulary.pad,
        **{**vocabulary.config_fields, **fields},
    )
    model = GenGPTForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    processor = GenPixelsImageProcessor(GREYS, SIZES, labels=LABELS)
    return publish_folder(model, tokenizer, folder, image_processor=processor)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture(scope="module")
def judge(image_table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("judge") / "judge"
    data = ["--train_file", str(image_table), "--label_column", "label"]
    train_judge([*data, "--output_dir", str(output), *JUDGE])
    return output


@pytest.fixture(scope="module")
def options(image_table: Path, judge: Path) -> dict[str, Any]:
    return {"file": [str(image_table)], "label_column": "label", "judge": str(judge)}


@pytest.fixture(scope="module")
def measured(model: Path, options: dict[str, Any]) -> dict[str, Any]:
    return evaluate(EvaluateOptions(model=str(model), num_samples=12, **options))


def test_every_use_of_the_model_is_measured(measured: dict[str, Any], model: Path):
    assert measured["bits_per_dimension_low"] < measured["bits_per_dimension"]
    assert measured["bits_per_dimension"] < measured["bits_per_dimension_high"]
    assert 0 <= measured["captions"]["exact_match"] <= 1
    assert "signature" in "".join(measured["captions"])
    enlarged = measured["super_resolution"]
    assert enlarged["bicubic_psnr"] > enlarged["psnr"]  # of random weights
    assert -1 <= enlarged["ssim"] <= 1
    assert 0 <= measured["accuracy_12"] <= 1
    assert measured["real"]
    kept = json.loads((model / "report" / "results.json").read_text())["evaluation"]
    assert kept["bits_per_dimension"] == measured["bits_per_dimension"]
    assert {"samples.png", "neighbours.png"} == set(measured["pictures"])
    assert all((model / "report" / name).is_file() for name in measured["pictures"])


def test_the_card_and_the_terminal_show_it(measured: dict[str, Any], model: Path):
    card = (model / "README.md").read_text()
    assert f"| bits per dimension | {measured['bits_per_dimension']:.3f} |" in card
    shown = pixel_scores.table(measured)
    assert f"bits per dimension   {measured['bits_per_dimension']:.4f}" in shown
    assert "bicubic" in shown
    assert "exact" in shown


def test_bits_per_dimension_are_those_of_every_pixel_given_its_prompt(model: Path):
    processor = GenPixelsImageProcessor(GREYS, SIZES)
    loaded: Any = load_model(model)
    tokenizer = load_tokenizer(model)
    pixels = np.random.default_rng(0).choice([10, 90, 170, 250], (5, 1, 8, 8)).astype(np.uint8)
    images = ImageSet(pixels, labels=np.array([0, 1, 1, 0, 1]))
    vocabulary = PixelVocabulary.of(tokenizer, 2)
    encoded = pixel_scores.EncodedPictures.of(images, LABELS, processor, tokenizer, 16)
    prompts = [[LABELS[label]] for label in images.labels]
    held_out = pixel_scores.HeldOut(images, encoded, prompts, vocabulary)
    options = EvaluateOptions(model=str(model), batch_size=2)
    found = pixel_scores.likelihood(loaded, held_out, 1, options)["bits_per_dimension"]

    total = 0.0
    for index in range(5):
        text = tokenizer(prompts[index][0])["input_ids"]
        colours = (encoded.colours[0][index] + vocabulary.first_colour).tolist()
        ids = [vocabulary.begin, *text, vocabulary.images[0], *colours]
        with torch.no_grad():
            logs = loaded(torch.tensor([ids])).logits[0].log_softmax(-1)
        first = len(ids) - len(colours)
        total -= sum(logs[first + i - 1, token].item() for i, token in enumerate(colours))
    assert found == pytest.approx(total / 5 / 64 / math.log(2), rel=1e-5)


def test_what_a_model_was_not_trained_for_is_not_measured(options: dict[str, Any], tmp_path: Path):
    plain = publish(tmp_path / "plain", caption_token_id=None)
    found = evaluate(EvaluateOptions(model=str(plain), num_samples=2, **options))
    assert "captions" not in found


def test_guidance_and_temperature_change_what_is_drawn(
    model: Path, measured: dict[str, Any], options: dict[str, Any]
):
    given = {**options, "num_samples": 12, "temperature": 0.1, "guidance_scale": 3.0}
    found = evaluate(EvaluateOptions(model=str(model), **given))
    assert found["bits_per_dimension"] == measured["bits_per_dimension"]
    assert found["kid_12"] != measured["kid_12"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--truncation", "0.5"], "--truncation has no meaning.*--temperature"),
        (["--generate", "5"], "--generate has no meaning"),
        (["--temperature", "-1"], "--temperature is -1"),
        (["--top_p", "0"], "--top_p is 0"),
        (["--judge", "nowhere/at/all"], "there is no such folder"),
    ],
)
def test_what_cannot_work_is_said(model: Path, image_table: Path, flags: list[str], message: str):
    with pytest.raises(UserError, match=f"(?s){message}"):
        main([str(model), "--file", str(image_table), "--label_column", "label", *flags])
