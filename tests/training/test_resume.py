"""A run that is stopped and resumed is, to the last bit, the run that was not stopped."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests import runs

HARD = {"model__residual_dropout": 0.1, "model__attention_dropout": 0.1}
CASES: dict[str, dict[str, Any]] = {
    "adamw, accumulation, average, workers": {
        "gradient_accumulation_steps": 2,
        "ema_decay": 0.9,
        "num_workers": 2,
    },
    "muon, bf16": {"optim__name": "muon", "mixed_precision": "bf16"},
    "stream": {"streaming": "true"},
    "shuffled stream": {"streaming": "true", "shuffle_buffer": 3, "sample_by": "line"},
}
WINDOWS = 44
STOPS = {3: signal.SIGTERM, 5: signal.SIGINT, 8: signal.SIGTERM}


@pytest.mark.parametrize("case", CASES)
def test_losses_and_weights_after_stops_are_those_of_a_run_without(
    case: str, train_file: Path, tmp_path: Path
):
    options = {**HARD, **CASES[case]}
    whole, parts, log = tmp_path / "whole", tmp_path / "parts", tmp_path / "log"
    runs.run(runs.tiny_run(train_file, output_dir=whole, **options), log).succeeded()
    command = runs.tiny_run(train_file, output_dir=parts, **options)
    for step, number in STOPS.items():
        stop = {"prepare": runs.signal_at_step, "prepare_arguments": (step, number)}
        outcome = runs.run(command, log, **stop).succeeded()
        assert f"stopped after step {step}: {number.name}" in outcome.output
        assert runs.saved_steps(parts)[-1] == step
        command = ["train", "lm", "--resume", str(parts)]
    outcome = runs.run(command, log).succeeded()
    assert "going on after step 8" in outcome.output
    assert runs.losses(parts) == runs.losses(whole)
    assert runs.weights(parts) == runs.weights(whole)


def test_at_the_borders_of_epochs(train_file: Path, tmp_path: Path):
    """A step takes all windows, so that every stop is at the end of an epoch."""
    whole, parts, log = tmp_path / "whole", tmp_path / "parts", tmp_path / "log"
    options = {**HARD, "per_device_train_batch_size": WINDOWS, "max_steps": 4, "num_workers": 2}
    output = (
        runs.run(runs.tiny_run(train_file, output_dir=whole, **options), log).succeeded().output
    )
    assert f"{WINDOWS} windows" in output
    stop = {"prepare": runs.signal_at_step, "prepare_arguments": (2, signal.SIGTERM)}
    runs.run(runs.tiny_run(train_file, output_dir=parts, **options), log, **stop).succeeded()
    runs.run(["train", "lm", "--resume", str(parts)], log).succeeded()
    assert runs.losses(parts) == runs.losses(whole)
    assert runs.states(parts) == runs.states(whole)


def test_the_patience_of_early_stopping_goes_on_where_it_was(train_file: Path, tmp_path: Path):
    whole, parts, log = tmp_path / "whole", tmp_path / "parts", tmp_path / "log"
    options = {**HARD, "early_stopping_patience": 4, "eval_every": 1, "optim__lr": 1e-12}
    output = (
        runs.run(runs.tiny_run(train_file, output_dir=whole, **options), log).succeeded().output
    )
    assert "has not improved since step" in output
    last = runs.saved_steps(whole)[-1]
    assert 4 < last < 10
    stop = {"prepare": runs.signal_at_step, "prepare_arguments": (last - 2, signal.SIGTERM)}
    runs.run(runs.tiny_run(train_file, output_dir=parts, **options), log, **stop).succeeded()
    runs.run(["train", "lm", "--resume", str(parts)], log).succeeded()
    assert runs.losses(parts) == runs.losses(whole)
    assert runs.weights(parts) == runs.weights(whole)
    assert runs.saved_steps(parts)[-1] == last
