"""Where a run stands, and how it is asked to stop."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from hf_genmodels.config.run import RunConfig
from hf_genmodels.engine import run as run_module
from hf_genmodels.engine.run import Run, check_trackers
from hf_genmodels.engine.state import LoopState
from hf_genmodels.errors import UserError


@pytest.fixture
def make_run(tmp_path: Path):
    """Makes a run; signals are as before when the test ends."""
    made: list[Run] = []

    def make(**options) -> Run:
        run = Run(RunConfig(output_dir=str(tmp_path), **options), Accelerator(cpu=True), tmp_path)
        made.append(run)
        return run

    yield make
    for run in made:
        run.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_stops_after_the_step(number: signal.Signals, make_run):
    run = make_run()
    run.handle_signals()
    os.kill(os.getpid(), number)
    assert run.stop_reason is None
    assert run.agree({"loss": torch.tensor(2.0)}) == {"loss": 2.0}
    assert run.stop_reason == f"{number.name} was received"


def test_a_second_ctrl_c_stops_at_once(make_run, monkeypatch: pytest.MonkeyPatch):
    run = make_run()
    run.handle_signals()
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)  # the same one, passed on by a launcher
    monkeypatch.setattr(run_module, "SAME_SIGNAL_SECONDS", -1.0)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_signals_act_as_before_when_the_run_is_closed(make_run):
    before = signal.getsignal(signal.SIGTERM)
    run = make_run()
    run.handle_signals()
    assert signal.getsignal(signal.SIGTERM) != before
    run.close()
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_time_limit_stops_the_run(make_run):
    run = make_run(max_time="0s")
    run.agree({"loss": torch.tensor(1.0)})
    assert run.stop_reason == "--max_time 0s is over"
    other = make_run(max_time="1h")
    other.agree({"loss": torch.tensor(1.0)})
    assert other.stop_reason is None


def test_the_best_validation_is_remembered():
    state = LoopState()
    for step, loss in enumerate([3.0, 2.0, 2.5, 2.0], start=1):
        state.step = step
        state.record_eval(loss)
    assert (state.best_step, state.best_value, state.evals_without_gain) == (2, 2.0, 2)


@pytest.mark.parametrize(
    ("policy", "best", "saved", "publishes"),
    [
        ("best", 4, False, True),
        ("best", 2, True, False),
        ("best", None, True, True),
        ("last", 2, True, True),
        ("last", 4, False, False),
    ],
)
def test_what_is_published(policy: str, best: int | None, saved: bool, publishes: bool):
    state = LoopState(step=4, best_step=best)
    assert state.publishes(policy, saved=saved) is publishes


def test_every_so_many_steps():
    assert [step for step in range(1, 7) if LoopState(step=step).every(3)] == [3, 6]
    assert not LoopState(step=3).every(None)


def test_known_trackers_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_module, "get_available_trackers", lambda: ["wandb"])
    check_trackers(["wandb"])
    check_trackers([])
    with pytest.raises(UserError, match="pip install tensorboard"):
        check_trackers(["tensorboard"])
    with pytest.raises(UserError, match="Did you mean 'wandb'"):
        check_trackers(["wanbd"])
