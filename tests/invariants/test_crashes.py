"""Runs that are killed, run out of disk, or whose files are damaged."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests import runs


def test_a_batch_worker_does_not_hold_the_folder_when_its_run_is_killed(
    train_file: Path, tmp_path: Path
):
    folder, log = tmp_path / "run", tmp_path / "log"
    command = runs.tiny_run(train_file, output_dir=folder, num_workers=2, save_every=2)
    killed = {"prepare": runs.signal_at_step, "prepare_arguments": (4, signal.SIGKILL)}
    assert runs.run(command, log, **killed).status == -signal.SIGKILL
    runs.run(["train", "lm", "--resume", str(folder)], log).succeeded()


@pytest.fixture(scope="module")
def stopped_run(train_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ten steps that was stopped after six, with checkpoints of steps 4 and 6."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    command = runs.tiny_run(train_file, output_dir=folder, save_every=2)
    stop = {"prepare": runs.signal_at_step, "prepare_arguments": (6, signal.SIGTERM)}
    runs.run(command, folder.with_name("log"), **stop).succeeded()
    return folder


@pytest.fixture
def run_folder(stopped_run: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    shutil.copytree(stopped_run, folder)
    return folder


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGE = {
    "truncated weights": ("model.safetensors", truncate, "bytes instead of"),
    "one bit of the optimizer": ("optimizer.safetensors", flip_a_bit, "has changed"),
    "missing random state": ("rank-00000.safetensors", Path.unlink, "is missing"),
    "truncated manifest": ("manifest.json", truncate, "cannot be read"),
    "no manifest": ("manifest.json", Path.unlink, "is missing"),
    "empty state": ("state.json", lambda file: os.truncate(file, 0), "bytes instead of"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_checkpoint_is_passed_over_and_named(case: str, run_folder: Path):
    name, damage, problem = DAMAGE[case]
    damage(run_folder / "checkpoints" / "step-000006" / name)
    output = runs.call(["train", "lm", "--resume", run_folder]).succeeded().output
    assert "step-000006 is damaged" in output
    assert f"{name} " in output
    assert problem in output
    assert "going on after step 4" in output
    assert runs.saved_steps(run_folder) == [8, 10]


def test_with_one_checkpoint_kept_a_damaged_newer_one_does_not_push_out_the_good(run_folder: Path):
    truncate(run_folder / "checkpoints" / "step-000006" / "model.safetensors")
    resume = ["train", "lm", "--resume", run_folder, "--keep_checkpoints", "1"]
    runs.call([*resume, "--max_steps", "5"]).succeeded()
    assert runs.saved_steps(run_folder) == [5]
    runs.call([*resume, "--max_steps", "10"]).succeeded()
    assert runs.saved_steps(run_folder) == [10]


def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_over(run_folder: Path):
    for folder in run_folder.glob("checkpoints/step-*"):
        truncate(folder / "optimizer.safetensors")
    before = runs.losses(run_folder)
    error = runs.call(["train", "lm", "--resume", run_folder]).error
    assert "No checkpoint" in error
    assert "step-000004" in error
    assert "step-000006" in error
    assert runs.losses(run_folder) == before


def test_leftovers_of_an_interrupted_save_are_removed(run_folder: Path):
    leftover = run_folder / "checkpoints" / ".staging-step-000008"
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    runs.call(["train", "lm", "--resume", run_folder, "--max_steps", "6"]).succeeded()
    assert not list(run_folder.glob("checkpoints/.*"))


def full_disk(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("moment", ["_write_main_state", "write_rank_state", "_flush", "_digest"])
def test_a_full_disk_while_saving_costs_one_checkpoint_only(
    moment: str, run_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    from hf_genmodels.engine import checkpoint

    real = getattr(checkpoint, moment)
    monkeypatch.setattr(checkpoint, "check_manifest", lambda _folder: None)

    def fills_at_step_8(*arguments: Any) -> Any:
        named = [str(a) for a in arguments if isinstance(a, Path)]
        return (full_disk if any("step-000008" in name for name in named) else real)(*arguments)

    monkeypatch.setattr(checkpoint, moment, fills_at_step_8)
    output = runs.call(["train", "lm", "--resume", run_folder]).succeeded().output
    assert "The checkpoint of step 8 was not saved" in output
    assert "No space left on device" in output
    assert runs.saved_steps(run_folder) == [6, 10]
    assert not list(run_folder.glob("checkpoints/.*"))


def test_a_full_disk_under_the_report_the_metrics_and_the_model_stops_nothing(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """At the end it says what is missing, and the same command makes up for it."""
    from hf_genmodels.engine import language, publishing

    real_open, metrics = Path.open, run_folder / "metrics.jsonl"

    def open_or_full(path: Path, mode: str = "r", **options: Any) -> Any:
        return full_disk() if path == metrics and mode == "a" else real_open(path, mode, **options)

    with monkeypatch.context() as patch:
        patch.setattr(language, "write_results", full_disk)
        patch.setattr(publishing, "publish_folder", full_disk)
        patch.setattr("matplotlib.figure.Figure.savefig", full_disk)
        patch.setattr(Path, "open", open_or_full)
        outcome = runs.call(["train", "lm", "--resume", run_folder])
    assert "The metrics of step 7 were not written" in outcome.output
    assert "The report of step 10 was not written" in outcome.output
    assert "The model of step 10 was not published" in outcome.output
    assert "No curves were drawn" in outcome.output
    assert f"could not be published. Make room and publish it with: genmodels train lm --resume {run_folder}" in outcome.error  # fmt: skip
    assert runs.saved_steps(run_folder)[-1] == 10
    assert "10 of 10" not in (run_folder / "README.md").read_text()
    runs.call(["train", "lm", "--resume", run_folder]).succeeded()
    assert "10 of 10" in (run_folder / "README.md").read_text()


def test_checkpoints_that_a_killed_run_had_no_time_to_remove_are_removed(run_folder: Path):
    runs.call(["train", "lm", "--resume", run_folder]).succeeded()
    assert runs.saved_steps(run_folder) == [8, 10]
    shutil.copytree(run_folder / "checkpoints" / "step-000008", run_folder / "checkpoints" / "step-000006")  # fmt: skip
    runs.call(["train", "lm", "--resume", run_folder]).succeeded()
    assert runs.saved_steps(run_folder) == [8, 10]


def test_a_stop_that_cannot_be_saved_says_so(run_folder: Path, monkeypatch: pytest.MonkeyPatch):
    from hf_genmodels.engine import checkpoint

    monkeypatch.setattr(checkpoint, "_write_main_state", full_disk)
    error = runs.call(["train", "lm", "--resume", run_folder, "--max_time", "0s"]).error
    assert "it could not be saved" in error
    assert "newest checkpoint is of step 6" in error


@pytest.mark.parametrize("value", ["nan", "inf"])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_loss_or_gradient_that_is_not_finite_ends_the_run_before_it_spoils_anything(
    what: str, value: str, run_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    from hf_genmodels.engine.run import Run

    name = {"loss": "agree", "gradient": "clip_gradients"}[what]
    real = getattr(Run, name)

    def diverges(self: Run, *arguments: Any) -> Any:
        measured = real(self, *arguments)
        if self.state.step != 7:
            return measured
        return {"loss": float(value)} if what == "loss" else float(value)

    with monkeypatch.context() as patch:
        patch.setattr(Run, name, diverges)
        error = runs.call(["train", "lm", "--resume", run_folder]).error
    assert f"became {value} at step 8" in error
    assert "examples 14 to 15" in error
    assert "checkpoint of step 6" in error
    assert runs.saved_steps(run_folder) == [4, 6]
    runs.call(["train", "lm", "--resume", run_folder]).succeeded()
    assert json.loads((run_folder / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 10
