"""Machines that fail under a run of each family: nothing that was saved is damaged, no work is lost."""

from __future__ import annotations

import resource
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests import runs

STOP = 4
COMMON = {"save_every": 2, "eval_every": 3, "max_steps": 6}
FAMILIES: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "lm": (runs.tiny_run, "train_file", {"model__residual_dropout": 0.1}),
    "seq2seq": (
        runs.tiny_translation,
        "pair_file",
        {"model__residual_dropout": 0.1, "translate__num_pairs": 2},
    ),
    "gan": (runs.tiny_gan, "image_table", {"label_column": "label", "ema_decay": 0.9}),
}


class Case:
    """A run that was stopped, and the same run that was not. Not to be changed."""

    def __init__(self, family: str, data: Path, folder: Path):
        self.family, self.whole, self.stopped = family, folder / "whole", folder / "stopped"
        make, _, options = FAMILIES[family]
        options = {**COMMON, **options}
        runs.run(make(data, output_dir=self.whole, **options), folder / "log").succeeded()
        stop = {"prepare": runs.signal_at_step, "prepare_arguments": (STOP, signal.SIGTERM)}
        runs.run(make(data, output_dir=self.stopped, **options), folder / "log", **stop).succeeded()

    def resume(self, folder: Path, *fault: Any, **environment: str) -> runs.Outcome:
        """Go on with a copy of the stopped run while something is wrong."""
        if not folder.exists():
            shutil.copytree(self.stopped, folder)
        options: dict[str, Any] = {"environment": environment}
        if fault:
            options |= {"prepare": fault[0], "prepare_arguments": fault[1:]}
        command = ["train", self.family, "--resume", str(folder)]
        return runs.run(command, folder.with_name("log"), **options)

    def is_whole(self, folder: Path) -> bool:
        """Whether a run ended as the one that was left alone."""
        same = runs.losses(folder) == runs.losses(self.whole)
        return same and runs.states(folder) == runs.states(self.whole)


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    family = str(request.param)
    data = request.getfixturevalue(FAMILIES[family][1])
    return Case(family, data, tmp_path_factory.mktemp(family))


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
    if case.family == "gan":
        pytest.skip("batches of images are cut by the training process itself")
    folder = tmp_path / "run"
    shutil.copytree(case.stopped, folder)
    arguments = ["train", case.family, "--resume", str(folder), "--num_workers", "2"]
    outcome = runs.run(arguments, tmp_path / "log", prepare=without_shared_memory)
    assert outcome.status != 0
    assert "--num_workers 0" in outcome.error
    assert runs.saved_steps(folder) == [2, 4]
    runs.run([*arguments[:-1], "0"], tmp_path / "log").succeeded()
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
