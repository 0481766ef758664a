"""`genmodels train lm-adversarial`, from a checkpoint to the folder and through interruptions."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from hf_genmodels import GenGPTForCausalLM, GenTextDiscriminator
from hf_genmodels.config.lm_adversarial import TrainLMAdversarialConfig
from hf_genmodels.config.parser import parse_config
from hf_genmodels.hub.loading import load_companion, load_model
from tests import runs
from tests.hub.painters import painter

PRESETS = Path(__file__).parents[2] / "training" / "configs" / "lm_adversarial"
METHODS = ("gumbel", "reinforce")
RESUMES: dict[str, dict[str, Any]] = {
    "gumbel, two discriminator steps, average": {
        "adversarial__method": "gumbel", "adversarial__discriminator_steps": 2, "ema_decay": 0.9,
    },
    "gumbel, bf16, accumulation, workers": {
        "adversarial__method": "gumbel", "mixed_precision": "bf16",
        "gradient_accumulation_steps": 2, "num_workers": 2,
    },
    "reinforce, accumulation, average": {
        "adversarial__method": "reinforce", "gradient_accumulation_steps": 2, "ema_decay": 0.9,
    },
    "reinforce, stream": {"adversarial__method": "reinforce", "streaming": "true"},
}  # fmt: skip
# Before the generator learns, and after.
STOPS = {1: signal.SIGTERM, 4: signal.SIGINT}


def lines_of(folder: Path, name: str) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if name in line]


@pytest.mark.parametrize("method", METHODS)
def test_a_run_leaves_both_networks_and_a_report(method: str, train_file: Path, tmp_path: Path):
    folder = tmp_path / "run"
    command = runs.tiny_lm_adversarial(
        train_file, output_dir=folder, adversarial__method=method, eval_every=2, max_steps=4,
        sample__max_new_tokens=4,
    )  # fmt: skip
    output = runs.call(command).succeeded().output
    assert "health ok" in output
    first, *others = lines_of(folder, "d_loss")
    assert "g_loss" not in first  # the discriminator learns alone
    names = {"g_loss", "loss", "kl", "entropy", "d_accuracy", "g_grad_norm"}
    assert all(names <= line.keys() for line in others)
    assert [line["tokens"] for line in (first, *others)] == [60, 120, 180, 240]
    measured = lines_of(folder, "eval_ngram_js")
    assert [line["step"] for line in measured] == [2, 4]
    assert measured[0]["eval_num_texts"] == 4

    model = AutoModelForCausalLM.from_pretrained(folder)
    assert type(model) is GenGPTForCausalLM
    assert AutoTokenizer.from_pretrained(folder).eos_token_id == model.config.eos_token_id
    judge = AutoModelForSequenceClassification.from_pretrained(folder / "discriminator")
    assert type(judge) is GenTextDiscriminator
    assert judge.config.attention == ("bidirectional" if method == "gumbel" else "causal")
    start = load_model(train_file.with_name("writer"))
    assert not torch.equal(model.lm_head.weight, start.lm_head.weight)
    for name in ("curves.png", "loss_curve.png", "samples.md", "results.json"):
        assert (folder / "report" / name).stat().st_size > 0
    card = (folder / "README.md").read_text(encoding="utf-8")
    for words in (
        f"adversarial, {method}", "## Health of the training", 'subfolder="discriminator"',
        "fine-tuned from", "self-BLEU", "4 texts",
    ):  # fmt: skip
        assert words in card


@pytest.mark.parametrize("case", RESUMES)
def test_a_resumed_run_is_to_the_bit_the_run_that_was_not_stopped(
    case: str, train_file: Path, tmp_path: Path
):
    """Also where its starting checkpoint is gone."""
    text = tmp_path / "text" / "train.txt"
    text.parent.mkdir()
    shutil.copy(train_file, text)
    options = {**RESUMES[case], "discriminator__dropout": 0.2}
    whole, parts, log = tmp_path / "whole", tmp_path / "parts", tmp_path / "log"
    command = runs.tiny_lm_adversarial(text, output_dir=whole, **options)
    runs.run(command, log).succeeded()
    command = runs.tiny_lm_adversarial(text, output_dir=parts, **options)
    for step, number in STOPS.items():
        stop = {"prepare": runs.signal_at_step, "prepare_arguments": (step, number)}
        outcome = runs.run(command, log, **stop).succeeded()
        assert f"stopped after step {step}: {number.name}" in outcome.output
        assert runs.saved_steps(parts)[-1] == step
        command = ["train", "lm-adversarial", "--resume", str(parts)]
        shutil.rmtree(text.with_name("writer"), ignore_errors=True)
    assert "going on after step 4" in runs.run(command, log).succeeded().output
    assert runs.losses(parts) == runs.losses(whole)
    ours, theirs = runs.states(parts), runs.states(whole)
    assert "discriminator/model.safetensors" in ours
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


def test_a_run_that_becomes_unhealthy_ends_and_is_published(train_file: Path, tmp_path: Path):
    folder = tmp_path / "run"
    options = {"eval_every": 5, "max_steps": 30, "adversarial__leash": 1e-6}
    command = runs.tiny_lm_adversarial(train_file, output_dir=folder, **options)
    output = runs.call(command).succeeded().output
    assert "ended after step 10: health collapsed: the generator is over the leash" in output
    assert runs.saved_steps(folder)[-1] == 10
    assert load_companion(folder, "discriminator") is not None
    again = runs.call(["train", "lm-adversarial", "--resume", folder]).succeeded().output
    assert "ended after step 10: health collapsed" in again
    goes_on = runs.tiny_lm_adversarial(
        train_file, output_dir=tmp_path / "other", adversarial__stop_if_unhealthy="false",
        **{**options, "max_steps": 11},
    )  # fmt: skip
    output = runs.call(goes_on).succeeded().output
    assert "over the leash" in output
    assert runs.saved_steps(tmp_path / "other")[-1] == 11


def test_a_checkpoint_loads_as_the_generator_in_it(train_file: Path, tmp_path: Path):
    folder = tmp_path / "run"
    runs.call(runs.tiny_lm_adversarial(train_file, output_dir=folder, max_steps=2)).succeeded()
    saved = load_model(folder / "checkpoints" / "step-000002")
    published = load_model(folder)
    for name, tensor in published.state_dict().items():
        assert torch.equal(tensor, saved.state_dict()[name]), name


def test_a_dry_run_says_what_a_run_would_be_and_leaves_nothing(train_file: Path, tmp_path: Path):
    folder = tmp_path / "run"
    command = runs.tiny_lm_adversarial(train_file, output_dir=folder)
    output = runs.call([*command, "--dry_run"]).succeeded().output
    for words in ("parameters ", "generator, ", "texts a step    4", "texts/s", "estimated time"):
        assert words in output
    assert not folder.exists()


@pytest.mark.verified
def test_a_stranger_loads_both_networks(train_file: Path, tmp_path: Path):
    folder = tmp_path / "run"
    command = runs.tiny_lm_adversarial(train_file, output_dir=folder, max_steps=2)
    output = runs.call(command).succeeded().output
    assert "AutoModelForCausalLM, discriminator, text-generation pipeline" in output


def test_the_package_is_found_again_by_generate_and_evaluate(train_file: Path, tmp_path: Path):
    folder = tmp_path / "run"
    runs.call(runs.tiny_lm_adversarial(train_file, output_dir=folder, max_steps=2)).succeeded()
    runs.call(["generate", folder, "She", "--max_new_tokens", "4"]).succeeded()
    wrong = runs.call(["generate", folder / "discriminator", "She"])
    assert "is a discriminator: it generates nothing" in wrong.error
    assert f"belongs to, '{folder}'" in wrong.error
    wrong = runs.call(["evaluate", folder / "discriminator", "--file", train_file])
    assert "is a discriminator: it generates nothing" in wrong.error


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model_name_or_path": None}, "--model_name_or_path is missing"),
        ({"adversarial__method": "gumble"}, "Did you mean 'gumbel'?"),
        ({"adversarial__method": "reinforce", "adversarial__loss": "relativistic"},
         "compares whole texts, but reinforce rewards tokens"),
        ({"adversarial__method": "reinforce", "per_device_train_batch_size": 1},
         "--per_device_train_batch_size 2 or more"),
        ({"adversarial__sample_tokens": 40}, "more than --block_size 16"),
        ({"adversarial__leash": 0}, "--adversarial.leash is 0"),
        ({"block_size": 64}, "longer than the model's context of 32 tokens"),
        ({"mixed_precision": "fp16"}, "Choose bf16, no or auto"),
        ({"gradient_checkpointing": "true"}, "--gradient_checkpointing does not go with"),
        ({"tokenizer_name": "other"}, "the model's own tokenizer is used"),
        ({"optim__generator_lr": 2}, "--optim.generator_lr is 2"),
    ],
)  # fmt: skip
def test_mistakes_are_said_in_one_line_and_leave_nothing(
    options: dict[str, Any], words: str, train_file: Path, tmp_path: Path
):
    folder = tmp_path / "run"
    command = runs.tiny_lm_adversarial(train_file, output_dir=folder, **options)
    assert words in runs.call(command).error
    assert not folder.exists()


def test_a_model_of_another_family_is_refused(train_file: Path, translator: Path, tmp_path: Path):
    command = runs.tiny_lm_adversarial(
        train_file, output_dir=tmp_path / "run", model_name_or_path=translator
    )
    assert "goes on with 'gen_gpt' models" in runs.call(command).error


@pytest.mark.parametrize("tiny", [runs.tiny_lm_adversarial, runs.tiny_run])
def test_a_model_that_draws_does_not_go_on_with_texts(
    tiny: Callable[..., list[str]], train_file: Path, tmp_path: Path
):
    drawing = painter().publish(tmp_path / "drawing")
    folder = tmp_path / "run"
    command = tiny(train_file, output_dir=folder, model_name_or_path=drawing)
    assert "is a language model that draws" in runs.call(command).error
    assert not folder.exists()


@pytest.mark.parametrize("name", sorted(path.stem for path in PRESETS.glob("*.yaml")))
def test_a_preset_trains_on_bundled_data(name: str, tmp_path: Path):
    parsed = parse_config(
        TrainLMAdversarialConfig, [f"--config={name}", "--model_name_or_path=unused"],
        command="try", description="", presets=PRESETS,
    )  # fmt: skip
    assert parsed.adversarial.method == name
    start = runs.random_writer(tmp_path / "writer", max_position_embeddings=64)
    small = {
        "config": name, "model_name_or_path": start, "output_dir": tmp_path / "run",
        "max_steps": 2, "eval_every": 2, "max_eval_windows": 4, "adversarial.eval_texts": 2,
        "adversarial.discriminator_first": 1, "discriminator.hidden_size": 16,
        "per_device_train_batch_size": 2, "sample.max_new_tokens": 2,
        "validation_file": "sample:english/validation.txt",
        "train_file": "sample:english/validation.txt",
    }  # fmt: skip
    command = ["train", "lm-adversarial", *(f"--{key}={value}" for key, value in small.items())]
    runs.call(command).succeeded()
    assert (tmp_path / "run" / "discriminator" / "config.json").is_file()
