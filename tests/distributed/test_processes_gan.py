"""GANs on several processes: the same images and noise, the same losses, exact resumes."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests import runs

pytestmark = pytest.mark.distributed
COMMON: dict[str, Any] = {"label_column": "label", "ema_decay": 0.9}


def run(command: list[str], log: Path, size: int) -> None:
    outcomes = runs.run_group(command, log, size) if size > 1 else [runs.run(command, log)]
    for outcome in outcomes:
        outcome.succeeded()


TEXTS = {
    "text_column": "caption", "tokenizer_vocab_size": 290, "model__hidden_size": 8,
    "model__num_hidden_layers": 1, "model__num_attention_heads": 2,
    "model__text_dropout": 0.0, "ema_decay": 0.9,
}  # fmt: skip


@pytest.mark.invariants
@pytest.mark.parametrize("conditions", [COMMON, TEXTS], ids=["classes", "texts of unequal lengths"])
def test_processes_times_micro_batches_have_the_same_losses(
    conditions: dict[str, Any], image_table: Path, tmp_path: Path
):
    """1 x 4, 2 x 2 and 4 x 1, two discriminator steps, penalties, augmentation; no BatchNorm.

    Not with the relativistic loss, in which rounding alone moves the bias of all verdicts.
    """
    found = []
    for size in (1, 2, 4):
        folder = tmp_path / str(size)
        command = runs.tiny_gan(
            image_table, output_dir=folder, gradient_accumulation_steps=4 // size, max_steps=4,
            per_device_train_batch_size=2, optim__discriminator_steps=2, optim__max_grad_norm=1.0,
            optim__lr=1e-3, loss__adversarial="non_saturating", loss__r1=0.5, loss__augment=["color", "translation"], flip="true",
            balanced=str("label_column" in conditions).lower(),
            loss__penalty_every=2, **conditions,
        )  # fmt: skip
        run(command, tmp_path / "log", size)
        found.append([dict(line) for line in runs.losses(folder)])
    one, *others = found
    assert [line["images"] for line in one] == [16, 32, 48, 64]
    assert one[0]["d_loss"] != one[1]["d_loss"]
    for several in others:
        assert [line.keys() for line in several] == [line.keys() for line in one]
        for ours, theirs in zip(one, several, strict=True):
            assert theirs == pytest.approx(ours, rel=1e-6, abs=1e-6)


def test_two_processes_go_on_exactly(image_table: Path, tmp_path: Path):
    """With BatchNorm and with dropout, whose random numbers each process has of its own."""
    options: dict[str, Any] = {
        **COMMON, "model__architecture": "mlp", "optim__discriminator_steps": 2,
        "gradient_accumulation_steps": 2, "max_steps": 6,
    }  # fmt: skip
    whole, parts, log = tmp_path / "whole", tmp_path / "parts", tmp_path / "log"
    run(runs.tiny_gan(image_table, output_dir=whole, **options), log, 2)
    command = runs.tiny_gan(image_table, output_dir=parts, **options)
    stop = {1: (runs.signal_at_step, 4, signal.SIGTERM)}
    outcomes = runs.run_group(command, log, 2, prepares=stop)
    assert "stopped after step 4" in outcomes[0].succeeded().output
    run(["train", "gan", "--resume", str(parts)], log, 2)
    assert runs.losses(parts) == runs.losses(whole)
    for name in ("model", "discriminator/model", "checkpoints/step-000006/ema",
                 "checkpoints/step-000006/model", "checkpoints/step-000006/optimizer",
                 "checkpoints/step-000006/rank-00001"):  # fmt: skip
        ours, theirs = ((folder / f"{name}.safetensors").read_bytes() for folder in (parts, whole))
        assert ours == theirs, name


def test_two_processes_measure_what_one_measures(image_table: Path, tmp_path: Path):
    """Each draws every other image; a number that is odd leaves none out and none twice."""
    judge = tmp_path / "judge"
    command = ["train", "judge", "--train_file", image_table, "--label_column", "label"]
    command += ["--image_size", 16, "--width", 4, "--feature_dim", 8, "--max_steps", 3]
    runs.run([*map(str, command), "--output_dir", str(judge)], tmp_path / "log").succeeded()
    found = []
    for size in (1, 2):
        folder = tmp_path / str(size)
        command = runs.tiny_gan(
            image_table, output_dir=folder, per_device_train_batch_size=4 // size, max_steps=2,
            eval_every=1, judge__features=judge, judge__num_samples=41,
            model__architecture="modern", optim__lr=1e-5, **COMMON,
        )  # fmt: skip
        run(command, tmp_path / "log", size)
        found.append([dict(line) for line in runs.losses(folder) if "eval_fid" in dict(line)])
    assert [line["eval_num_samples"] for line in found[0]] == [41, 41]
    for ours, theirs in zip(*found, strict=True):
        assert theirs == pytest.approx(ours, rel=0.02, abs=0.05)
