"""`genmodels train gan` with captions: losses of texts, frozen encoders, resume."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, BertConfig, BertModel

from hf_genmodels.engine.gan_text import MASKED_SHARE
from hf_genmodels.errors import UserError
from hf_genmodels.hub.loading import load_model
from hf_genmodels.training.train_gan import main

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 30), "blue": (30, 30, 220)}
STEPS = 4
TINY = [
    *("--image_size", "8", "--per_device_train_batch_size", "6", "--max_steps", str(STEPS)),
    *("--eval_every", "100", "--save_every", "2", "--judge.features", "none"),
    *("--model.generator_width", "4", "--model.discriminator_width", "4"),
    *("--model.condition_dim", "8", "--model.hidden_size", "16", "--model.latent_dim", "4"),
    *("--tokenizer_vocab_size", "270", "--mixed_precision", "no", "--log_every", "1"),
]
LOSSES = [
    *("--loss.agreement_weight", "1", "--loss.masked_token_weight", "1"),
    *("--loss.reconstruction_weight", "1", "--loss.paired_weight", "10"),
    *("--loss.matching_penalty", "0.1"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Squares of three colours with their captions."""
    root = tmp_path_factory.mktemp("squares")
    generator, lines = np.random.default_rng(0), []
    for name, colour in COLOURS.items():
        for number in range(6):
            pixels = np.full((8, 8, 3), 255, dtype=np.uint8)
            start = generator.integers(0, 4)
            pixels[start : start + 4, 2:6] = colour
            Image.fromarray(pixels).save(root / f"{name}{number}.png")
            row = {"file_name": f"{name}{number}.png", "text": f"a {name} square"}
            lines.append(json.dumps(row))
    (root / "metadata.jsonl").write_text("\n".join(lines))
    return root


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """A run with all losses of texts. Not to be changed."""
    output = tmp_path_factory.mktemp("runs") / "trained"
    patch = pytest.MonkeyPatch()
    patch.setattr("hf_genmodels.engine.publishing.verify_folder", lambda _folder: "not verified")
    main(["--train_file", str(folder), "--output_dir", str(output), *TINY, *LOSSES])
    patch.undo()
    return output


def measured(output):
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return {
        line["step"]: {name: value for name, value in line.items() if name.startswith(("d_", "g_"))}
        for line in lines
        if "d_loss" in line
    }


def test_every_loss_of_texts_is_measured_and_finite(trained):
    names = {"d_agreement", "d_masked_token", "d_reconstruction", "d_matching_penalty"}
    names |= {"g_agreement", "g_paired"}
    for step, values in measured(trained).items():
        assert names <= set(values), step
        assert np.isfinite(list(values.values())).all(), step
    assert 0 < MASKED_SHARE < 1


def test_what_is_published_draws_for_prompts_of_any_length(trained):
    generator, tokenizer = load_model(trained), AutoTokenizer.from_pretrained(trained)
    prompts = ["a red square", "green", "something else that nobody ever saw"]
    words = tokenizer(prompts, padding=True, truncation=True, return_tensors="pt")
    images = generator.sample(
        3, input_ids=words["input_ids"], attention_mask=words["attention_mask"]
    )
    assert images.shape == (3, 3, 8, 8)
    assert images.isfinite().all()
    config = json.loads((trained / "discriminator" / "config.json").read_text())
    assert config["text_agreement"]
    assert config["masked_tokens"]
    assert config["image_reconstruction"]


def test_a_resumed_run_with_texts_is_the_run_that_was_not_stopped(trained, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(trained, again)
    shutil.rmtree(again / "checkpoints" / f"step-{STEPS:06d}")
    main(["--resume", str(again)])
    assert measured(again)[STEPS] == measured(trained)[STEPS]
    first, second = load_model(trained).state_dict(), load_model(again).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_frozen_encoder_travels_with_the_checkpoint_as_it_was(folder, trained, tmp_path):
    config = BertConfig(
        vocab_size=300,
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    encoder = BertModel(config)
    encoder.save_pretrained(tmp_path / "bert")
    AutoTokenizer.from_pretrained(trained).save_pretrained(tmp_path / "bert")
    output = tmp_path / "run"
    options = ["--text_encoder_name", str(tmp_path / "bert"), "--ema_decay", "0.5"]
    main(["--train_file", str(folder), "--output_dir", str(output), *TINY, *options])
    shutil.rmtree(tmp_path / "bert")
    held = load_model(output).condition.text.encoder.state_dict()
    assert all(torch.equal(held[name], value) for name, value in encoder.state_dict().items())


def test_losses_of_texts_need_captions(folder, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(folder, images)
    (images / "metadata.jsonl").unlink()
    with pytest.raises(UserError, match=r"--loss\.paired_weight belongs to texts"):
        main(
            [
                *("--train_file", str(images), "--output_dir", str(tmp_path / "run"), *TINY),
                *("--loss.paired_weight", "1"),
            ]
        )
