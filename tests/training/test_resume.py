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
