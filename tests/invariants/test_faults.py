"""Machines that fail under a run of each family: nothing that was saved is damaged, no work is lost."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests import runs
from tests.invariants.conftest import by_family

pytestmark = pytest.mark.invariants
STOP = 4
COMMON = {"save_every": 2, "eval_every": 3, "max_steps": 6}
FAMILIES: dict[str, dict[str, Any]] = {
    "lm": {"model__residual_dropout": 0.1},
    "seq2seq": {"model__residual_dropout": 0.1, "translate__num_pairs": 2},
    "gan": {"label_column": "label", "ema_decay": 0.9},
    "pixels": {"model__residual_dropout": 0.1, "pixels__flip": "true"},
    "lm-adversarial": {"discriminator__dropout": 0.2, "publish": "last"},
    "clips": {"text_column": "caption", "ema_decay": 0.9},
}


class Case:
    """A run that was stopped, and the same run that was not. Not to be changed."""

    def __init__(self, family: str, data: Path, folder: Path):
        self.family, self.whole, self.stopped = family, folder / "whole", folder / "stopped"
        options = {**COMMON, **FAMILIES[family]}
        whole = runs.command_of(family, data, output_dir=self.whole, **options)
        runs.run(whole, folder / "log").succeeded()
        stop = {"prepare": runs.signal_at_step, "prepare_arguments": (STOP, signal.SIGTERM)}
        stopped = runs.command_of(family, data, output_dir=self.stopped, **options)
        runs.run(stopped, folder / "log", **stop).succeeded()

    def resume(self, folder: Path, *fault: Any, more: Sequence[str] = ()) -> runs.Outcome:
        """Go on with a copy of the stopped run while something is wrong."""
        if not folder.exists():
            shutil.copytree(self.stopped, folder)
        options: dict[str, Any] = {}
        if fault:
            options = {"prepare": fault[0], "prepare_arguments": fault[1:]}
        command = [*runs.resume_of(self.family, folder), *more]
        return runs.run(command, folder.with_name("log"), **options)

    def is_whole(self, folder: Path) -> bool:
        """Whether a run ended as the one that was left alone."""
        same = runs.losses(folder) == runs.losses(self.whole)
        return same and runs.states(folder) == runs.states(self.whole)


@pytest.fixture(scope="module", params=by_family(FAMILIES))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    family = str(request.param)
    data: dict[str, Path] = request.getfixturevalue("data_of")
    return Case(family, data[family], tmp_path_factory.mktemp(family))


def limit_files(size: int) -> None:
    """Let every file of this process end at a size, as a full disk lets it."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def set_clock_back() -> None:
    """Let every look at the clock find an earlier day."""
    hours = iter(range(10**9))
    time.time = lambda: 1e9 - 3600.0 * next(hours)


def test_on_a_full_disk_the_earlier_checkpoint_stands_and_the_run_goes_on_from_it(
    case: Case, tmp_path: Path
):
    """A real limit, met by the real writers of weights, moments and random states.

    The clock of the machine that goes on was set back, and runs backwards.
    """
    folder = tmp_path / "run"
    outcome = case.resume(folder, limit_files, 5000)
    assert "The checkpoint of step 6 was not saved" in outcome.output
    assert "was not published" in outcome.output
    assert "could not be saved" in outcome.error
    assert "newest checkpoint is of step 4" in outcome.error
    assert runs.saved_steps(folder) == [2, 4]
    assert runs.weights(folder) == runs.weights(case.stopped)
    case.resume(folder, set_clock_back).succeeded()
    assert case.is_whole(folder)


def without_shared_memory() -> None:
    """Let no process hand tensors to another through shared memory, as a full /dev/shm does."""
    import torch

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("unable to allocate shared memory: No space left on device (28)")

    torch.Tensor.share_memory_ = refuse  # type: ignore[method-assign]


def test_workers_without_shared_memory_end_the_run_with_its_checkpoint_whole(
    case: Case, tmp_path: Path
):
    """A GAN has no such workers: its batches are cut by the training process itself."""
    folder = tmp_path / "run"
    outcome = case.resume(folder, without_shared_memory, more=["--num_workers", "2"])
    if case.family in ("gan", "clips"):
        outcome.succeeded()
    else:
        assert outcome.status != 0
        assert "--num_workers 0" in outcome.error
        assert runs.saved_steps(folder) == [2, 4]
        case.resume(folder, more=["--num_workers", "0"]).succeeded()
    assert case.is_whole(folder)


def obey_modes() -> None:
    """Let this process obey the modes of files, as processes of others than root do."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if libc.capset(ctypes.byref(header), ctypes.byref(none)):  # no capabilities, see capset(2)
        raise OSError(ctypes.get_errno(), "capset")


def turn_read_only(folder: Path, *, step: int = 0) -> None:
    """Let nothing be written into a folder from now on, or from a step on."""
    obey_modes()
    if step:
        from hf_genmodels.engine.run import Run

        agree = Run.agree

        def agree_and_turn(self: Run, losses: Any) -> Any:
            if self.state.step + 1 == step:
                set_modes(folder, 0o555, 0o444)
            return agree(self, losses)

        Run.agree = agree_and_turn  # type: ignore[method-assign]
    else:
        set_modes(folder, 0o555, 0o444)


def set_modes(folder: Path, of_folders: int, of_files: int) -> None:
    for path in (*folder.rglob("*"), folder):
        path.chmod(of_folders if path.is_dir() else of_files)


@pytest.mark.skipif(sys.platform != "linux", reason="root obeys modes only without capabilities")
def test_a_folder_that_is_read_only_or_becomes_so_stays_as_it_is(case: Case, tmp_path: Path):
    folder = tmp_path / "run"
    shutil.copytree(case.stopped, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    outcome = case.resume(folder, turn_read_only, folder)
    assert "is not writable" in outcome.error
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    set_modes(folder, 0o755, 0o644)
    outcome = case.resume(folder, partial(turn_read_only, folder, step=STOP + 1))
    assert "could not be saved" in outcome.error
    assert "newest checkpoint is of step 4" in outcome.error
    set_modes(folder, 0o755, 0o644)
    assert runs.saved_steps(folder) == [2, 4]
    assert runs.weights(folder) == runs.weights(case.stopped)
    case.resume(folder).succeeded()
    assert case.is_whole(folder)


def lose_tracker() -> None:
    """Let the tracker of a run raise whenever it is told something, and at its end."""
    from accelerate import Accelerator

    from hf_genmodels.engine import run

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the server is gone")

    run.check_trackers = lambda _names: None
    Accelerator.init_trackers = lambda *_, **__: None  # type: ignore[method-assign]
    Accelerator.log = Accelerator.end_training = fail  # type: ignore[method-assign]


def test_a_tracker_that_raises_stops_nothing(case: Case, tmp_path: Path):
    folder = tmp_path / "run"
    output = case.resume(folder, lose_tracker, more=["--report_to", "tensorboard"]).output
    assert output.count("the server is gone") == 2
    assert "A tracker did not end well: the server is gone" in output
    assert case.is_whole(folder)


def without_metric() -> None:
    """Let the metric of translations raise."""
    from hf_genmodels.engine import translation

    def fail(*_: Any, **__: Any) -> Any:
        raise ValueError("no such tokenizer")

    translation.corpus_scores = fail


def test_a_metric_that_raises_stops_nothing(pair_file: Path, tmp_path: Path):
    folder = tmp_path / "run"
    options = {"translate__num_pairs": 2, "metric_for_best": "chrf"}
    command = runs.tiny_translation(
        pair_file, output_dir=folder, max_steps=2, eval_every=1, save_every=1, **options
    )
    output = runs.run(command, tmp_path / "log", prepare=without_metric).succeeded().output
    assert output.count("were not scored: no such tokenizer") == 2
    assert runs.saved_steps(folder) == [1, 2]
    assert "2 of 2" in (folder / "README.md").read_text(encoding="utf-8")
