"""Curves, samples and results that a run leaves behind."""

import json
import math
import struct
import sys

import pytest

from hf_genmodels.engine.report import (
    plot_training,
    read_metrics,
    smooth,
    write_results,
    write_samples,
)
from hf_genmodels.errors import UserError


@pytest.fixture
def metrics(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = []
    for step in range(1, 61):
        loss = 4 + 5 * math.exp(-step / 9)
        lines.append({"step": step, "loss": loss, "lr": 0.02, "tokens": step * 512})
        if step % 20 == 0:
            lines.append({"step": step, "eval_loss": loss + 0.1})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def png_size(path):
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    return struct.unpack(">II", data[16:24])


def test_both_curves_are_drawn_readably_large_and_nothing_else_is_left(metrics, tmp_path):
    pytest.importorskip("matplotlib")
    written = plot_training(metrics, tmp_path / "report")
    assert [path.name for path in written] == ["loss_curve.png", "learning_rate.png"]
    assert all(png_size(path) >= (1000, 600) for path in written)
    assert sorted((tmp_path / "report").iterdir()) == sorted(written)


def test_the_same_metrics_give_the_same_bytes(metrics, tmp_path):
    pytest.importorskip("matplotlib")
    first = [path.read_bytes() for path in plot_training(metrics, tmp_path / "report")]
    assert [path.read_bytes() for path in plot_training(metrics, tmp_path / "report")] == first


@pytest.mark.parametrize(
    "lines",
    [
        [{"step": 1, "loss": 2.0, "lr": 0.0, "tokens": 0}],
        [{"step": 0, "eval_loss": 9.0}],
        [{"step": 3, "loss": float("nan"), "lr": 0.1}, {"step": 4, "eval_loss": float("inf")}],
    ],
)
def test_short_and_broken_runs_are_drawn_too(lines, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert plot_training(path, tmp_path)


def test_nothing_measured_draws_nothing(tmp_path):
    pytest.importorskip("matplotlib")
    assert plot_training(tmp_path / "metrics.jsonl", tmp_path) == []


def test_without_matplotlib_the_error_names_the_extra(metrics, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"hf_genmodels\[plots\]"):
        plot_training(metrics, tmp_path)


def test_a_torn_last_line_is_left_out_but_a_broken_one_before_is_an_error(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert read_metrics(path) == [{"step": 1, "loss": 2.0}]
    path.write_text('{"step": 1, "lo\n{"step": 2, "loss": 2.0}\n')
    with pytest.raises(ValueError, match="line 1 is not JSON"):
        read_metrics(path)


def test_steps_repeated_by_a_resumed_run_count_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 2, "eval_loss": 2.5}]
    lines += [{"step": 2, "loss": 2.1}, {"step": 3, "loss": 1.0}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_metrics(path) == [lines[0], lines[3], lines[2], lines[4]]


def test_smoothing_keeps_constants_lines_and_the_start():
    assert smooth([3.0] * 5, 3) == pytest.approx([3.0] * 5)
    assert smooth([0.0, 1.0, 2.0, 3.0, 4.0], 2) == pytest.approx([0.0, 1.0, 2.0, 3.0, 3.5])
    assert smooth([0.0, 3.0, 0.0], 3) == pytest.approx([0.0, 1.0, 1.5])
    assert smooth([], 3) == []


def test_samples_are_appended_with_the_prompt_in_bold_and_markup_escaped(tmp_path):
    write_samples(tmp_path, 100, ["Once upon"], ["Once upon a *time*\n# <b>"])
    path = write_samples(tmp_path, 2000, ["", "Hello"], ["free", " world"])
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# Samples during training")
    assert "## Step 100\n\n> **Once upon** a \\*time\\*  \n> \\# \\<b\\>" in text
    assert "## Step 2,000\n\n> *(no prompt)* free" in text
    assert "> **Hello** world" in text


def test_prompts_and_texts_must_pair_up(tmp_path):
    with pytest.raises(ValueError, match="zip"):
        write_samples(tmp_path, 1, ["a", "b"], ["a"])


def test_results_are_written_whole_or_not_at_all(tmp_path):
    path = write_results(tmp_path / "report", {"loss": 1.5, "name": "é"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"loss": 1.5, "name": "é"}
    with pytest.raises(TypeError):
        write_results(tmp_path / "report", {"bad": object()})
    assert json.loads(path.read_text(encoding="utf-8"))["loss"] == 1.5
    assert list(path.parent.iterdir()) == [path]
