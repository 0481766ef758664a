"""Options that came with someone else's file or run import nothing and read nothing else."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hf_genmodels.cli import main
from tests import runs
from tests.security.conftest import bounded

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n"
    for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)
OPTIONS = {
    "a tag of Python": "seed: !!python/object/apply:os.system ['touch MARK']\n",
    "a tag of a module": "seed: !!python/module:trap\n",
    "another tag": "seed: !trap 1\n",
    "aliases of aliases": BOMB,
    "an alias of itself": "train_file: &a [*a]\n",
    "a class": "model:\n  class_path: trap.Trap\n",
    "a class of a section": "model: trap.Trap\n",
    "a class with arguments": "optim:\n  class_path: trap.Trap\n  init_args: {a: 1}\n",
    "a class in a list": "train_file:\n- class_path: trap.Trap\n",
    "another file": "config: MARK.yaml\n",
    "a deep list": "seed: " + "[" * 20_000,
    "a section as list": "model: [1, 2]\n",
    "numbers as names": "1: 2\n",
    "not a text": "output_dir: [1]\n",
    "a negative size": "model:\n  hidden_size: -8\n",
    "control characters": "seed: \x1b[2J\n",
}


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that leaves a mark where it is imported."""
    mark = tmp_path / "mark"
    (tmp_path / "trap.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Trap: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    return mark


@pytest.mark.parametrize("case", OPTIONS)
def test_a_file_of_options(case: str, trap: Path, tmp_path: Path, capfd):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(OPTIONS[case].replace("MARK", str(trap)), encoding="utf-8")
    resumed = ["--resume", str(run)]
    given = ["--config", str(run / "config.yaml"), "--output_dir", str(tmp_path / "out")]
    for arguments in (resumed, given):
        with bounded(), pytest.raises(SystemExit) as ending:
            main(["train", "lm", *arguments])
        assert ending.value.code == 2
        error = capfd.readouterr().err
        assert error.count("error: ") == 1, error
        assert "\x1b" not in error
    assert not trap.exists()
    assert "trap" not in sys.modules
    assert not (tmp_path / "out").exists()


def test_a_resumed_run_writes_into_the_folder_that_was_named(
    run_of: Callable[[str], Path], tmp_path: Path
):
    run = shutil.copytree(run_of("lm"), tmp_path / "run")
    config = (run / "config.yaml").read_text()
    elsewhere = tmp_path / "elsewhere"
    lines = [line for line in config.splitlines() if not line.startswith("output_dir")]
    (run / "config.yaml").write_text("\n".join([*lines, f"output_dir: {elsewhere}"]))
    runs.call(["train", "lm", "--resume", run])
    assert not elsewhere.exists()
