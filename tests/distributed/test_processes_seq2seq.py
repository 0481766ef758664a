"""Pairs on several processes: the same batches, the same losses, exact resumes."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests import runs

NO_DROPOUT = {f"model__{part}_dropout": 0.0 for part in ("attention", "residual", "embedding")}
pytestmark = pytest.mark.distributed


@pytest.mark.invariants
def test_one_and_two_processes_have_the_same_losses_and_translations(
    pair_file: Path, tmp_path: Path
):
    """1 x 2 and 2 x 1 processes x accumulation cut the same batches of unequal numbers of tokens."""
    found = []
    for size in (1, 2):
        folder, log = tmp_path / str(size), tmp_path / "log"
        command = runs.tiny_translation(
            pair_file,
            output_dir=folder,
            gradient_accumulation_steps=2 // size,
            eval_every=3,
            max_steps=6,
            translate__num_pairs=3,
            **NO_DROPOUT,
        )
        for outcome in runs.run_group(command, log, size) if size > 1 else [runs.run(command, log)]:
            outcome.succeeded()
        found.append([dict(line) for line in runs.losses(folder)])
        translations = (folder / "report" / "translations.md").read_text(encoding="utf-8")
        found[-1].append({"translations": translations})
    for ours, theirs in zip(*found, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ("step", "tokens", "eval_tokens", "translations", "eval_chrf"):
            assert ours.get(name) == theirs.get(name)
        for name in ("loss", "eval_loss"):
            assert ours.get(name, 0) == pytest.approx(theirs.get(name, 0), abs=1e-5)


def test_two_processes_go_on_exactly_and_one_goes_on_for_them(pair_file: Path, tmp_path: Path):
    options = {"model__residual_dropout": 0.1, "ema_decay": 0.9, "loss__consistency": "kl"}
    whole, parts, log = tmp_path / "whole", tmp_path / "parts", tmp_path / "log"
    for outcome in runs.run_group(
        runs.tiny_translation(pair_file, output_dir=whole, **options), log, 2
    ):
        outcome.succeeded()
    command = runs.tiny_translation(pair_file, output_dir=parts, **options)
    stop = {1: (runs.signal_at_step, 4, signal.SIGTERM)}
    outcomes = runs.run_group(command, log, 2, prepares=stop)
    assert "stopped after step 4" in outcomes[0].succeeded().output
    command = ["train", "seq2seq", "--resume", str(parts)]
    for outcome in runs.run_group(command, log, 2):
        outcome.succeeded()
    assert runs.losses(parts) == runs.losses(whole)
    assert runs.weights(parts) == runs.weights(whole)
