"""What an earlier release saved is loaded, makes what it made, and its training goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests import runs
from tests.golden.write import COMMANDS, GOLDEN, MORE_STEPS, STEPS, losses_of, made_by
from tests.training.conftest import own_cache

__all__ = ["own_cache"]
DATA = {"lm": "train.txt", "seq2seq": "pairs.jsonl", "lm-adversarial": "train.txt"}


@pytest.mark.parametrize("family", COMMANDS)
def test_a_golden_model_makes_what_it_made(family: str):
    expected = json.loads((GOLDEN / family / "expected.json").read_text())
    assert made_by(family, GOLDEN / family) == pytest.approx(expected["made"], abs=1e-4)


@pytest.mark.parametrize("family", COMMANDS)
def test_a_golden_run_goes_on_as_it_went_on(family: str, tmp_path: Path):
    folder = tmp_path / "run"
    shutil.copytree(GOLDEN / family, folder)
    data = {"train_file": GOLDEN / DATA[family]} if family in DATA else {}
    command = runs.resume_of(family, folder, max_steps=MORE_STEPS, **data)
    output = runs.run(command, tmp_path / "log").succeeded().output
    assert f"going on after step {STEPS}" in output
    expected = json.loads((GOLDEN / family / "expected.json").read_text())
    assert losses_of(folder) == pytest.approx(expected["losses"], rel=1e-3)
    assert runs.saved_steps(folder) == [MORE_STEPS]
