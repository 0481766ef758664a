"""Pairs on several processes: the same batches, the same losses, exact resumes."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests import runs

NO_DROPOUT = {f"model__{part}_dropout": 0.0 for part in ("attention", "residual", "embedding")}
pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def unequal_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of 1 to 12 words, whose targets are short where their sources are long."""
    words = runs.text(60).split()
    rows = []
    for number in range(80):
        source = [words[(number * 7 + place) % len(words)] for place in range(1 + number * 5 % 12)]
        target = source[: 13 - len(source)]
        rows.append(json.dumps({"source": " ".join(source), "target": " ".join(target)}) + "\n")
    path = tmp_path_factory.mktemp("unequal") / "pairs.jsonl"
    path.write_text("".join(rows), encoding="utf-8")
    return path


@pytest.mark.invariants
@pytest.mark.parametrize(
    "options",
    [
        {"translate__num_pairs": 3},
        {"architecture": "rnn", "rnn__hidden_size": 16, "rnn__dropout": 0.0},
    ],
    ids=["transformer", "rnn"],
)
def test_processes_times_accumulation_have_the_same_losses_and_translations(
    options: dict[str, Any], unequal_pairs: Path, tmp_path: Path
):
    """1 x 4, 2 x 2 and 4 x 1 cut the same batches, of unequal lengths and numbers of tokens."""
    found = []
    for size in (1, 2, 4):
        folder, log = tmp_path / str(size), tmp_path / "log"
        command = runs.tiny_translation(
            unequal_pairs, output_dir=folder, gradient_accumulation_steps=4 // size, eval_every=3,
            max_steps=6, max_source_length=80, max_target_length=80, **(NO_DROPOUT | options),
        )  # fmt: skip
        for outcome in runs.run_group(command, log, size):
            outcome.succeeded()
        found.append([dict(line) for line in runs.losses(folder)])
        if "translate__num_pairs" in options:
            translations = (folder / "report" / "translations.md").read_text(encoding="utf-8")
            found[-1].append({"translations": translations})
    one, *others = found
    for several in others:
        assert [line.keys() for line in several] == [line.keys() for line in one]
        for ours, theirs in zip(one, several, strict=True):
            for name in ("step", "tokens", "padding", "eval_tokens", "translations", "eval_chrf"):
                assert ours.get(name) == theirs.get(name)
            for name in ("loss", "eval_loss"):
                assert theirs.get(name, 0) == pytest.approx(ours.get(name, 0), abs=1e-6)


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
