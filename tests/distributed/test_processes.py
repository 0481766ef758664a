"""Several processes train as one would, stop together, and go on exactly."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import runs

pytestmark = pytest.mark.distributed
ROOT = Path(__file__).resolve().parents[2]
DROPOUT = {"model__residual_dropout": 0.1, "model__attention_dropout": 0.1}


def lines_of(train_file: Path, folder: Path) -> Path:
    """Write a text with a sentence a line."""
    lines = folder / "lines.txt"
    lines.write_text(train_file.read_text(encoding="utf-8").replace(". ", ".\n"))
    return lines


@pytest.mark.invariants
def test_one_two_and_four_processes_have_the_same_losses(train_file: Path, tmp_path: Path):
    """1 x 4, 2 x 2 and 4 x 1 processes x accumulation see the same global batches.

    Documents end within windows, so that the ranks predict unequal numbers of tokens; to validate
    on there are three windows.
    """
    lines = lines_of(train_file, tmp_path)
    found = []
    for size in (1, 2, 4):
        folder = tmp_path / str(size)
        command = runs.tiny_run(
            lines,
            output_dir=folder,
            gradient_accumulation_steps=4 // size,
            sample_by="line",
            eval_every=5,
            max_steps=6,
        )
        log = tmp_path / "log"
        if size == 1:
            runs.run(command, log).succeeded()
        else:
            for outcome in runs.run_group(command, log, size):
                outcome.succeeded()
        found.append([dict(line) for line in runs.losses(folder)])
    totals = [0, *(line["tokens"] for line in found[0] if "tokens" in line)]
    assert len({after - before for before, after in itertools.pairwise(totals)}) > 1
    for other in found[1:]:
        assert len(other) == len(found[0])
        for ours, theirs in zip(found[0], other, strict=True):
            assert ours.keys() == theirs.keys()
            for name in ("step", "tokens", "eval_tokens"):
                assert ours.get(name) == theirs.get(name)
            for name in ("loss", "eval_loss"):
                assert ours.get(name, 0) == pytest.approx(theirs.get(name, 0), abs=1e-6)


@pytest.mark.parametrize("streaming", [False, True])
def test_two_processes_go_on_exactly_after_one_of_them_is_stopped(
    streaming: bool, train_file: Path, tmp_path: Path
):
    options = {
        **DROPOUT,
        "gradient_accumulation_steps": 2,
        "ema_decay": 0.9,
        "optim__name": "muon",
        "num_workers": 0 if streaming else 2,
        "streaming": str(streaming).lower(),
        "sample_by": "line" if streaming else "document",
    }
    if streaming:
        train_file = lines_of(train_file, tmp_path)
    whole, parts, log = tmp_path / "whole", tmp_path / "parts", tmp_path / "log"
    for outcome in runs.run_group(runs.tiny_run(train_file, output_dir=whole, **options), log, 2):
        outcome.succeeded()
    command = runs.tiny_run(train_file, output_dir=parts, **options)
    for rank, step in ((0, 3), (1, 8)):
        stop = {rank: (runs.signal_at_step, step, signal.SIGTERM)}
        outcomes = runs.run_group(command, log, 2, prepares=stop)
        for outcome in outcomes:
            outcome.succeeded()
        assert f"stopped after step {step}" in outcomes[0].output
        command = ["train", "lm", "--resume", str(parts)]
    for outcome in runs.run_group(command, log, 2):
        outcome.succeeded()
    assert runs.losses(parts) == runs.losses(whole)
    assert runs.weights(parts) == runs.weights(whole)


def test_a_run_goes_on_with_another_number_of_processes(train_file: Path, tmp_path: Path):
    folder, whole, log = tmp_path / "run", tmp_path / "whole", tmp_path / "log"
    two = {"gradient_accumulation_steps": 2}
    runs.run(runs.tiny_run(train_file, output_dir=whole, **two), log).succeeded()
    stop = {"prepare": runs.signal_at_step, "prepare_arguments": (4, signal.SIGTERM)}
    runs.run(runs.tiny_run(train_file, output_dir=folder, **two), log, **stop).succeeded()
    command = ["train", "lm", "--resume", str(folder)]
    outcome = runs.run_group(command, log, 2)[0]
    assert "examples in a step: the run has 4, now it is 8" in outcome.error
    outcomes = runs.run_group([*command, "--gradient_accumulation_steps", "1"], log, 2)
    assert "process 1 draws new random numbers" in outcomes[1].succeeded().output
    for ours, theirs in zip(runs.losses(folder), runs.losses(whole), strict=True):
        ours_loss, theirs_loss = dict(ours).get("loss", 0), dict(theirs).get("loss", 0)
        assert ours_loss == pytest.approx(theirs_loss, abs=1e-6)


def test_the_others_end_when_one_process_dies(train_file: Path, tmp_path: Path):
    command = runs.tiny_run(train_file, output_dir=tmp_path / "run", save_every=2)
    dying = {1: (runs.signal_at_step, 5, signal.SIGKILL)}
    processes = runs.start_group(command, tmp_path / "log", 2, prepares=dying)
    assert processes[1].wait().status == -signal.SIGKILL
    assert processes[0].wait(30).status != 0
    for outcome in runs.run_group(
        ["train", "lm", "--resume", str(tmp_path / "run")], tmp_path / "log", 2
    ):
        outcome.succeeded()
    assert len([line for line in runs.losses(tmp_path / "run") if "loss" in dict(line)]) == 10


def launcher(name: str) -> list[str]:
    accelerate = [sys.executable, "-m", "accelerate.commands.launch"]
    script = str(ROOT / "training" / "train_lm.py")
    preset = str(ROOT / "training" / "accelerate" / "cpu_2.yaml")
    return {
        "genmodels": [sys.executable, "-m", "hf_genmodels"],
        "accelerate": [*accelerate, "--cpu", "--num_processes", "2", script],
        "preset": [*accelerate, "--config_file", preset, script],
    }[name]


@pytest.mark.parametrize("name", ["genmodels", "accelerate", "preset"])
def test_launchers_pass_signals_on_and_the_run_goes_on(name: str, train_file: Path, tmp_path: Path):
    folder = tmp_path / "run"
    options = runs.tiny_run(train_file, output_dir=folder, max_steps=100000, publish="last")
    arguments = [*options, "--num_processes", "2"] if name == "genmodels" else options[2:]
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(
            [*launcher(name), *arguments], stdout=log, stderr=log, start_new_session=True
        )
        try:
            wait_for_steps(folder, 3, process, tmp_path / "log")
            process.send_signal(signal.SIGTERM)
            status = process.wait(120)
            wait_until_free(folder)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    output = (tmp_path / "log").read_text()
    step = len(runs.losses(folder))
    assert f"stopped after step {step}" in output, output
    assert runs.saved_steps(folder) == [step]
    assert status == 0 if name == "genmodels" else status != 0
    more = ["train", "lm", "--resume", str(folder), "--max_steps", str(step + 2)]
    for outcome in runs.run_group(more, tmp_path / "more", 2):
        outcome.succeeded()


def wait_for_steps(
    folder: Path, steps: int, process: subprocess.Popen[bytes], log: Path, seconds: float = 150
) -> None:
    deadline = time.monotonic() + seconds
    metrics = folder / "metrics.jsonl"
    while not metrics.is_file() or len(metrics.read_text().splitlines()) < steps:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def wait_until_free(folder: Path, seconds: float = 60) -> None:
    """Wait until the processes of a run have ended, also if their launcher did not wait."""
    from filelock import FileLock

    with FileLock(folder / ".lock", timeout=seconds):
        pass
