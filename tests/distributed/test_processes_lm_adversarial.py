"""Texts and their adversary on several processes: the same texts, the same losses, exact resumes."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests import runs

pytestmark = pytest.mark.distributed
METHODS = ("gumbel", "reinforce")


def run(command: list[str], log: Path, size: int, **options: Any) -> str:
    if size == 1:
        return runs.run(command, log).succeeded().output
    outcomes = runs.run_group(command, log, size, **options)
    outputs = [outcome.succeeded().output for outcome in outcomes]
    return outputs[0]


@pytest.mark.invariants
@pytest.mark.parametrize("method", METHODS)
def test_processes_times_micro_batches_have_the_same_losses(
    method: str, train_file: Path, tmp_path: Path
):
    """1 x 2 and 2 x 1 processes x micro-batches, two discriminator steps; no dropout."""
    found = []
    for size in (1, 2):
        folder = tmp_path / str(size)
        command = runs.tiny_lm_adversarial(
            train_file, output_dir=folder, adversarial__method=method, max_steps=3, eval_every=3,
            gradient_accumulation_steps=2 // size, adversarial__discriminator_steps=2,
            adversarial__loss="non_saturating", discriminator__dropout=0.0,
            discriminator__attention_dropout=0.0,
            adversarial__mle_weight=0.0,  # the cross-entropy has the dropout of the start
        )  # fmt: skip
        run(command, tmp_path / "log", size)
        found.append([dict(line) for line in runs.losses(folder)])
    one, two = found
    assert one[0]["d_loss"] != one[1]["d_loss"]
    for ours, theirs in zip(one, two, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ("d_loss", "kl", "entropy", "g_adversarial", "tokens", "eval_num_texts"):
            assert ours.get(name, 0) == pytest.approx(theirs.get(name, 0), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_go_on_exactly(method: str, train_file: Path, tmp_path: Path):
    """With dropout, whose random numbers each process has of its own."""
    options: dict[str, Any] = {
        "adversarial__method": method, "gradient_accumulation_steps": 2, "ema_decay": 0.9,
        "discriminator__dropout": 0.2, "max_steps": 5,
    }  # fmt: skip
    whole, parts, log = tmp_path / "whole", tmp_path / "parts", tmp_path / "log"
    run(runs.tiny_lm_adversarial(train_file, output_dir=whole, **options), log, 2)
    command = runs.tiny_lm_adversarial(train_file, output_dir=parts, **options)
    stop = {1: (runs.signal_at_step, 3, signal.SIGTERM)}
    assert "stopped after step 3" in run(command, log, 2, prepares=stop)
    run(["train", "lm-adversarial", "--resume", str(parts)], log, 2)
    assert runs.losses(parts) == runs.losses(whole)
    ours, theirs = runs.states(parts), runs.states(whole)
    assert any("rank-00001" in name for name in ours)
    assert [name for name in theirs if ours[name] != theirs[name]] == []
