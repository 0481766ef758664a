"""What a run leaves behind when it ends."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hf_genmodels.engine.publishing import finish


def stopped_run(folder: Path, step: int) -> Any:
    return SimpleNamespace(
        is_main=True,
        is_complete=False,
        metrics=SimpleNamespace(close=lambda: None),
        output_dir=folder,
        report_dir=folder / "report",
        saved_step=step,
        state=SimpleNamespace(step=step),
        stop_reason="asked to",
        uploads=None,
    )


def test_curves_reach_the_last_step_also_where_an_earlier_one_was_published(tmp_path: Path):
    lines = [json.dumps({"step": step, "loss": 1.0}) for step in range(1, 8)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    drawn: list[int] = []

    def plot(metrics_path: Path, report_dir: Path) -> None:
        assert report_dir == tmp_path / "report"
        drawn.extend(json.loads(line)["step"] for line in metrics_path.open())

    config: Any = SimpleNamespace(max_steps=10)
    finish(stopped_run(tmp_path, 7), config, family="lm", example=["Hello"], plot=plot)
    assert max(drawn) == 7


def test_curves_that_cannot_be_drawn_do_not_stop_the_end_of_a_run(tmp_path: Path, caplog):
    def plot(metrics_path: Path, report_dir: Path) -> None:
        raise OSError("no space")

    caplog.set_level("INFO", logger="hf_genmodels")
    config: Any = SimpleNamespace(max_steps=10)
    finish(stopped_run(tmp_path, 7), config, family="lm", example=["Hello"], plot=plot)
    assert "No curves were drawn: no space" in caplog.text
    assert "genmodels train lm --resume" in caplog.text
