"""The same command and seed give the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import runs
from tests.invariants.conftest import CROSSINGS, by_family

pytestmark = pytest.mark.invariants
FAMILIES: dict[str, dict[str, Any]] = {
    "lm": {"model__residual_dropout": 0.1, "sample__max_new_tokens": 4},
    "seq2seq": {"model__residual_dropout": 0.1, "translate__num_pairs": 2},
    "gan": {"label_column": "label", "model__architecture": "mlp", "grid__columns": 2},
    "pixels": {"model__residual_dropout": 0.1, "pixels__flip": "true", "sample__max_new_tokens": 1},
    "lm-adversarial": {"discriminator__dropout": 0.2, "sample__max_new_tokens": 4},
    "clips": {"label_column": "label", "grid__columns": 2},
}


@pytest.mark.parametrize("family", by_family(FAMILIES, quick=CROSSINGS))
@pytest.mark.parametrize("size", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_twice_the_same_command_writes_the_same_bytes(
    family: str, size: int, data_of: dict[str, Path], tmp_path: Path
):
    """Weights, averages, moments, random states, metrics and what is shown of the model."""
    found = []
    for name in ("one", "two"):
        command = runs.command_of(
            family, data_of[family], output_dir=tmp_path / name, ema_decay=0.9, num_workers=2,
            gradient_accumulation_steps=2, max_steps=4, eval_every=2, **FAMILIES[family],
        )  # fmt: skip
        for outcome in runs.run_group(command, tmp_path / "log", size):
            outcome.succeeded()
        report = tmp_path / name / "report"
        patterns = ("*.md", "grid*.png", "clips.webp")
        shown = {p.name: p.read_bytes() for pattern in patterns for p in report.glob(pattern)}
        assert shown
        found.append((runs.losses(tmp_path / name), runs.states(tmp_path / name), shown))
    assert found[0] == found[1]
    assert runs.losses(tmp_path / "one")


@pytest.mark.parametrize("family", by_family(FAMILIES))
def test_another_seed_does_not(family: str, data_of: dict[str, Path], tmp_path: Path):
    """So that the comparisons of bytes say something."""
    found = []
    for seed in (1, 2):
        folder = tmp_path / str(seed)
        command = runs.command_of(
            family, data_of[family], output_dir=folder, max_steps=2, seed=seed
        )
        runs.run(command, tmp_path / "log").succeeded()
        found.append(runs.states(folder))
    assert found[0].keys() == found[1].keys()
    assert found[0]["model.safetensors"] != found[1]["model.safetensors"]
