"""metrics.jsonl, the lines for people, and what may fail."""

from __future__ import annotations

import errno
import json
import logging
from pathlib import Path

import pytest

from hf_genmodels.engine import logging as run_logging
from hf_genmodels.engine.logging import MetricsLog, warn_if_failing

VALUES = {"loss": 2.5, "lr": 1e-3, "tokens_per_second": 10.0}


@pytest.fixture(autouse=True)
def lines(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_logging.logger, "propagate", True)
    caplog.set_level(logging.INFO)
    return caplog


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def test_lines_are_appended_with_step_and_time(tmp_path: Path):
    log = MetricsLog(tmp_path / "metrics.jsonl", 0, 10, is_main=True)
    log.write(1, VALUES)
    log.write(2, {"eval_loss": 1 / 3})
    first, second = read(log.path)
    assert first["step"] == 1
    assert first["loss"] == 2.5
    assert first["time"] > 1e9
    assert second["eval_loss"] == 1 / 3


def test_only_the_main_process_writes(tmp_path: Path):
    MetricsLog(tmp_path / "metrics.jsonl", 0, 10, is_main=False).write(1, VALUES)
    assert not any(tmp_path.iterdir())


def test_lines_of_lost_work_and_torn_lines_are_dropped(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\nnot json\n{"no": 1}\n{"step": 2, "lo')
    MetricsLog(path, 2, 10, is_main=True)
    assert read(path) == [{"step": 1}, {"step": 2}]


def test_a_full_disk_costs_lines_and_no_more(tmp_path: Path, monkeypatch, lines):
    log = MetricsLog(tmp_path / "metrics.jsonl", 0, 10, is_main=True)
    log.write(1, VALUES)
    real = Path.open

    def torn(path: Path, mode: str = "r", **options):
        with real(path, mode, **options) as file:
            file.write('{"step": 2, "lo')
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", torn)
        log.write(2, VALUES)
    log.write(3, VALUES)
    assert "metrics of step 2 were not written" in lines.text
    MetricsLog(log.path, 9, 10, is_main=True)
    assert [line["step"] for line in read(log.path)] == [1, 3]


def test_a_failing_tracker_is_left_out_after_one_warning(tmp_path: Path, lines):
    class Broken:
        def log(self, *_: object, **__: object) -> None:
            raise ConnectionError("gone")

    log = MetricsLog(tmp_path / "metrics.jsonl", 0, 10, is_main=True, trackers=Broken())
    log.write(1, VALUES)
    log.write(2, VALUES)
    assert lines.text.count("gone") == 1
    assert len(read(log.path)) == 2


def test_progress_is_a_line_where_there_is_no_terminal(tmp_path: Path, lines):
    log = MetricsLog(tmp_path / "metrics.jsonl", 4, 10, is_main=True)
    log.show(5, VALUES)
    assert "step 5/10 (50 %)  loss 2.5000  lr 1.00e-03  10 tokens/s  ETA" in lines.text


def test_only_named_errors_become_warnings(lines):
    with warn_if_failing("The plot failed", OSError):
        raise OSError("full")
    assert "The plot failed: full" in lines.text
    with pytest.raises(KeyError), warn_if_failing("The plot failed", OSError):
        raise KeyError
