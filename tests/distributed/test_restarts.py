"""`genmodels train ... --num_processes 2 --max_restarts N`: when a process dies, the job ends or goes on."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hf_genmodels.config.run import RunConfig
from hf_genmodels.engine import launch
from tests import runs

pytestmark = pytest.mark.distributed
COMMON = {"save_every": 2, "max_steps": 6}


class Forked:
    """Stands for `subprocess.Popen`: forks instead of importing everything again."""

    def __init__(self, family: str, dying_step: int, marker: Path, command: Any, env: Any):
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            prepare: tuple[Any, ...] = (None,)
            if env["RANK"] == "1" and not marker.exists():
                marker.touch()
                prepare = (runs.signal_at_step, dying_step, signal.SIGKILL)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            self.kept = sys.stdout, sys.stderr  # which would close their descriptors
            log = f"{marker}.{env['RANK']}"
            runs._child(["train", family, *command[3:]], log, dict(env), prepare[0], prepare[1:])

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def fork_processes(family: str, dying_step: int, marker: str) -> None:
    """Let the launcher fork; of the first processes, the second one dies in a step."""

    def start(command: Any, env: Any) -> Forked:
        return Forked(family, dying_step, Path(marker), command, env)

    launch.subprocess = SimpleNamespace(Popen=start)  # type: ignore[assignment]


def launched(family: str, command: list[str], folder: Path) -> runs.Outcome:
    fork = {"prepare": fork_processes, "prepare_arguments": (family, 5, str(folder / "marker"))}
    return runs.run([*command, "--num_processes", "2"], folder / "log", **fork)


def command_of(family: str, request: pytest.FixtureRequest, folder: Path) -> list[str]:
    make, data, options = {
        "lm": (runs.tiny_run, "train_file", {"model__residual_dropout": 0.1}),
        "seq2seq": (runs.tiny_translation, "pair_file", {"model__residual_dropout": 0.1}),
        "gan": (runs.tiny_gan, "image_table", {"label_column": "label"}),
    }[family]
    return make(request.getfixturevalue(data), output_dir=folder, **COMMON, **options)


@pytest.mark.parametrize(
    "family", ["lm", *(pytest.param(name, marks=pytest.mark.slow) for name in ("seq2seq", "gan"))]
)
def test_a_run_whose_process_dies_is_started_again_and_ends_the_same(
    family: str, request: pytest.FixtureRequest, tmp_path: Path
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for outcome in runs.run_group(command_of(family, request, whole), tmp_path / "log", 2):
        outcome.succeeded()
    restarts = ["--max_restarts", "1"]
    command = [*command_of(family, request, parts), *restarts]
    output = launched(family, command, tmp_path).succeeded().output
    assert "Process 1 was ended by SIGKILL" in output
    assert "All are started again" in output
    assert "going on after step 4" in (tmp_path / "marker.0").read_text()
    assert runs.losses(parts) == runs.losses(whole)
    assert runs.states(parts) == runs.states(whole)


def test_without_restarts_the_job_ends_soon_and_says_who_died(
    request: pytest.FixtureRequest, tmp_path: Path
):
    command = command_of("lm", request, tmp_path / "run")
    started = time.monotonic()
    outcome = launched("lm", command, tmp_path)
    assert outcome.status == 128 + signal.SIGKILL
    assert time.monotonic() - started < 60 + launch.GRACE_SECONDS
    assert (
        "Process 1 was ended by SIGKILL, as the system does when memory runs out" in outcome.output
    )
    assert runs.saved_steps(tmp_path / "run") == [2, 4]


class Scripted:
    """A process that ends at once as a script says; a negative status is a signal."""

    def __init__(self, statuses: Any, started: list[list[str]], command: list[str]):
        started.append(command)
        self.returncode = next(statuses)

    def poll(self) -> int:
        return self.returncode

    def send_signal(self, number: int) -> None:
        """The process has ended."""


@pytest.mark.parametrize(
    ("statuses", "restarts", "status", "attempts"),
    [
        ([-9, 1, 0, 0], 1, 0, 2),
        ([1, -9, -9, 1, 0, 0], 1, 137, 2),
        ([2, 2, 0, 0], 5, 2, 1),
        ([130, 130, 0, 0], 5, 130, 1),
        ([-9, -9], 0, 137, 1),
        ([0, 0], 3, 0, 1),
    ],
    ids=["mended", "used up", "a mistake", "Ctrl-C", "none", "well"],
)
def test_only_what_may_be_mended_is_tried_again(
    statuses: list[int],
    restarts: int,
    status: int,
    attempts: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    started: list[list[str]] = []
    left = iter(statuses)
    fake = SimpleNamespace(Popen=lambda command, **_: Scripted(left, started, command))
    monkeypatch.setattr(launch, "subprocess", fake)
    config = RunConfig(output_dir=str(tmp_path), num_processes=2, max_restarts=restarts)
    assert launch.launch("module", ["--output_dir", str(tmp_path)], config) == status
    assert len(started) == 2 * attempts
    assert all(command[3:] == ["--output_dir", str(tmp_path)] for command in started)


def test_a_restart_goes_on_with_the_run_that_has_begun(tmp_path: Path):
    config = RunConfig(output_dir=str(tmp_path))
    given = ["--output_dir", str(tmp_path), "--seed", "3"]
    assert launch._going_on(given, config) == given
    (tmp_path / "config.yaml").touch()
    assert launch._going_on(given, config) == ["--resume", str(tmp_path)]
    resumed = ["--resume", str(tmp_path), "--max_steps", "20"]
    assert launch._going_on(resumed, RunConfig(resume=str(tmp_path))) == resumed
