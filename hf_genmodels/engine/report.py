"""What a run leaves for people to read: curves, samples and results, in the folder ``report/``."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_genmodels.errors import require_extra
from hf_genmodels.plots import new_figure, save_figure

# Okabe & Ito 2008, a palette that colour-blind readers can tell apart.
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#595959"
_SIZE = (8.0, 4.8)  # inches
FEW = 20


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read ``metrics.jsonl``.

    A last line that was cut off, as a killed run leaves it, is left out. A resumed run may repeat steps:
    of lines of one kind with the same step only the last one counts.

    Args:
        path: The file; one that does not exist counts as empty.

    Returns:
        One dictionary a line, in order of step.

    Raises:
        ValueError: If a line other than the last is not JSON.
    """
    if not Path(path).is_file():
        return []
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    records: dict[tuple[int, bool], dict[str, Any]] = {}
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
        is_validation = any(name.startswith("eval_") for name in record)
        records[record["step"], is_validation] = record
    return [records[key] for key in sorted(records)]


def plot_training(
    metrics_path: str | os.PathLike[str], report_dir: str | os.PathLike[str]
) -> list[Path]:
    """Draw ``loss_curve.png`` and ``learning_rate.png`` from the metrics of a run.

    Args:
        metrics_path: The run's ``metrics.jsonl``.
        report_dir: Where the pictures go; made if it does not exist.

    Returns:
        The files written; none when nothing was measured yet.

    Raises:
        UserError: If matplotlib is not installed.
    """
    require_extra("matplotlib", "plots")
    records = read_metrics(metrics_path)
    train = [record for record in records if "loss" in record]
    evaluated = [record for record in records if "eval_loss" in record]
    written = []
    if train or evaluated:
        written.append(
            save_figure(_draw_losses(train, evaluated), Path(report_dir) / "loss_curve.png")
        )
    rates = [record for record in records if "lr" in record]
    if rates:
        written.append(
            save_figure(_draw_learning_rate(rates), Path(report_dir) / "learning_rate.png")
        )
    return written


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Return the centred moving average of a curve.

    Near the start, where a loss falls steeply, the window shrinks evenly; at the end it is cut off.

    Args:
        values: The curve.
        window: Points over which it averages, at least 1.

    Returns:
        As many points; the first one is unchanged.
    """
    sums = [0.0, *itertools.accumulate(values)]
    last = len(values) - 1
    smoothed = []
    for index in range(len(values)):
        half = min(window // 2, index)
        first, end = index - half, min(index + half, last) + 1
        smoothed.append((sums[end] - sums[first]) / (end - first))
    return smoothed


def draw_lines(
    axes: Any,
    records: Sequence[dict[str, Any]],
    title: str,
    names: Mapping[str, str],
    log: bool = False,
) -> None:
    """Draw one or two smoothed curves, the raw ones behind them.

    Args:
        axes: Where to draw.
        records: What was measured; each has a `step`. Those without a value are left out.
        title: What stands above.
        names: Name of each value -> what the curve is called.
        log: Whether the axis of the values is logarithmic.
    """
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_xlabel("step")
    for color, (name, label) in zip((_BLUE, _ORANGE), names.items(), strict=False):
        known = [record for record in records if name in record]
        steps, values = [r["step"] for r in known], [r[name] for r in known]
        few = len(values) < FEW  # whose single points would not be seen
        axes.plot(steps, values, color=color, linewidth=0.8, alpha=0.3, marker="o" if few else "")
        axes.plot(steps, smooth(values, len(values) // 20 + 2), color=color, label=label)
    if not any(name in record for record in records for name in names):
        axes.text(0.5, 0.5, "not measured yet", ha="center", transform=axes.transAxes)
    if log:
        axes.set_yscale("log")
    axes.grid(axis="y", color="#E0E0E0", linewidth=0.8)
    axes.legend(frameon=False)


def _new_axes(title: str) -> tuple[Any, Any]:
    figure = new_figure(*_SIZE)
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontweight="bold", fontsize=13)
    axes.set_xlabel("optimiser step")
    axes.grid(axis="y", color="#E0E0E0", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _draw_losses(train: list[dict[str, Any]], evaluated: list[dict[str, Any]]) -> Any:
    figure, axes = _new_axes("Training and validation loss")
    axes.set_ylabel("cross-entropy (nats per token)")
    if train:
        steps, losses = [r["step"] for r in train], [r["loss"] for r in train]
        many = len(losses) >= 20
        axes.plot(steps, losses, color=_BLUE, linewidth=0.8 if many else 1.8, alpha=0.3 if many else 1.0,
                  label=None if many else "training")  # fmt: skip
        if many:
            label = "training (smoothed; raw behind)"
            axes.plot(
                steps,
                smooth(losses, len(losses) // 20 + 2),
                color=_BLUE,
                linewidth=1.8,
                label=label,
            )
        _add_token_axis(axes, train)
    if evaluated:
        steps, losses = [r["step"] for r in evaluated], [r["eval_loss"] for r in evaluated]
        axes.plot(
            steps,
            losses,
            color=_ORANGE,
            linewidth=1.2,
            marker="o",
            markersize=5,
            label="validation",
        )
        _mark_best(axes, min(evaluated, key=lambda record: record["eval_loss"]))
    axes.margins(x=0.03, y=0.08)
    axes.legend(frameon=False, loc="upper right")
    return figure


def _mark_best(axes: Any, best: dict[str, Any]) -> None:
    step, loss = best["step"], best["eval_loss"]
    axes.plot(
        [step], [loss], marker="*", markersize=15, color=_ORANGE, markeredgecolor="white", zorder=5
    )
    middle = sum(axes.get_xlim()) / 2
    text = f"best validation {loss:.3f}\nstep {step:,}"
    axes.annotate(
        text,
        (step, loss),
        xytext=(-12 if step > middle else 12, 42),
        textcoords="offset points",
        ha="right" if step > middle else "left",
        color=_GREY,
        arrowprops={"arrowstyle": "-", "color": _GREY, "linewidth": 0.8, "shrinkB": 6},
        bbox={
            "boxstyle": "round,pad=0.2",
            "facecolor": "white",
            "edgecolor": "none",
            "alpha": 0.85,
        },
    )


def _add_token_axis(axes: Any, train: list[dict[str, Any]]) -> None:
    """Show the tokens seen on a second axis at the top; they grow evenly with the steps."""
    last = train[-1]
    if not last.get("tokens") or not last["step"]:
        return
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    from hf_genmodels.engine.estimate import format_count

    rate = last["tokens"] / last["step"]
    top = axes.secondary_xaxis("top", functions=(lambda s: s * rate, lambda t: t / rate))
    top.set_xlabel("tokens seen", color=_GREY)
    top.xaxis.set_major_locator(MaxNLocator(6))
    top.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_count(round(value))))
    top.tick_params(colors=_GREY)
    top.spines["top"].set_visible(False)


def _draw_learning_rate(rates: list[dict[str, Any]]) -> Any:
    figure, axes = _new_axes("Learning rate")
    axes.set_ylabel("learning rate")
    axes.plot([r["step"] for r in rates], [r["lr"] for r in rates], color=_BLUE, linewidth=1.8)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 3), useMathText=True)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.03)
    return figure


def write_samples(
    report_dir: str | os.PathLike[str], step: int, prompts: Sequence[str], texts: Sequence[str]
) -> Path:
    """Append generated texts to ``samples.md``.

    Args:
        report_dir: The run's report folder; made if it does not exist.
        step: Optimiser steps done.
        prompts: What the model was given.
        texts: What it wrote, one text a prompt, with or without the prompt in front.

    Returns:
        The file.
    """
    path = Path(report_dir) / "samples.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [] if path.is_file() else ["# Samples during training\n\nThe prompt is in bold.\n"]
    parts.append(f"\n## Step {step:,}\n")
    for prompt, text in zip(prompts, texts, strict=True):
        rest = text.removeprefix(prompt)
        bold = f"**{_escape(prompt.strip())}**" if prompt.strip() else "*(no prompt)*"
        space = (
            " " if prompt != prompt.rstrip() or rest != rest.lstrip() or not prompt.strip() else ""
        )
        parts.append("\n" + _quote(f"{bold}{space}{_escape(rest.strip())}") + "\n")
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(parts))
    return path


def write_translations(
    report_dir: str | os.PathLike[str], step: int, translations: Sequence[Mapping[str, str]]
) -> Path:
    """Append translations beside their references to ``translations.md``.

    Args:
        report_dir: The run's report folder; made if it does not exist.
        step: Optimiser steps done.
        translations: ``source``, ``reference`` and ``output`` of each.

    Returns:
        The file.
    """
    path = Path(report_dir) / "translations.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [] if path.is_file() else ["# Translations during training\n"]
    parts.append(f"\n## Step {step:,}\n\n| source | reference | translation |\n|---|---|---|\n")
    for pair in translations:
        cells = (
            _escape(pair[name]).replace("\n", "<br>") for name in ("source", "reference", "output")
        )
        parts.append(f"| {' | '.join(cells)} |\n")
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(parts))
    return path


def _escape(text: str) -> str:
    """Escape what Markdown or HTML would read as markup, and control characters."""
    shown = "".join(c if c.isprintable() or c == "\n" else " " if c == "\t" else "\N{REPLACEMENT CHARACTER}"
                    for c in text)  # fmt: skip
    for mark in "\\`*_[]<>#|$":
        shown = shown.replace(mark, "\\" + mark)
    return shown


def _quote(text: str) -> str:
    """Make a Markdown block quote that keeps line breaks."""
    return "\n".join(f"> {line}".rstrip() + ("  " if line else "") for line in text.split("\n"))


def write_results(report_dir: str | os.PathLike[str], results: Mapping[str, Any]) -> Path:
    """Write ``results.json``, whole or not at all.

    Args:
        report_dir: The run's report folder; made if it does not exist.
        results: Anything that JSON can hold.

    Returns:
        The file.
    """
    path = Path(report_dir) / "results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    descriptor, staged = tempfile.mkstemp(dir=path.parent, prefix=".results-", suffix=".json")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(staged).chmod(0o644)
        Path(staged).replace(path)
    finally:
        Path(staged).unlink(missing_ok=True)
    return path
