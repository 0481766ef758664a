"""What a run tells: a progress bar on a terminal, plain lines elsewhere, metrics.jsonl always."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hf_genmodels.engine.estimate import format_duration
from hf_genmodels.plain_text import printable

logger = logging.getLogger("hf_genmodels")


class _BarFriendlyHandler(logging.StreamHandler):
    """Writes log lines above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(printable(self.format(record)), file=sys.stderr)
        sys.stderr.flush()


def setup_logging(*, is_main: bool) -> None:
    """Send the package's log lines to stderr; only warnings from the other ranks."""
    handler = _BarFriendlyHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.handlers = [handler]
    logger.setLevel(logging.INFO if is_main else logging.WARNING)
    logger.propagate = False


@contextlib.contextmanager
def warn_if_failing(
    what: str, errors: type[Exception] | tuple[type[Exception], ...] = Exception
) -> Iterator[None]:
    """Turn the failure of something that training can do without into a warning.

    Args:
        what: What failed, as the beginning of the warning.
        errors: What is caught.
    """
    try:
        yield
    except errors as error:
        logger.warning("%s: %s", what, error)


class MetricsLog:
    """Appends measurements to metrics.jsonl and shows them.

    Args:
        path: The file; its lines after `step` are dropped, they are of work that was lost.
        step: Optimizer steps done before.
        max_steps: Optimizer steps of the whole run.
        unit: What the run counts, such as tokens or images.
        is_main: Whether this rank writes and shows.
        trackers: The accelerator, whose trackers get the same numbers, or `None`.
    """

    def __init__(
        self,
        path: Path,
        step: int,
        max_steps: int,
        *,
        unit: str = "tokens",
        is_main: bool,
        trackers: Any = None,
    ):
        self.path = path
        self.is_main = is_main
        self.trackers = trackers
        self.max_steps = max_steps
        self.unit = unit
        self.first_step = step
        self.started = time.monotonic()
        self._torn = False
        self.is_terminal = sys.stderr.isatty()
        self.bar = tqdm(
            total=max_steps,
            initial=step,
            disable=not (is_main and self.is_terminal),
            dynamic_ncols=True,
            unit="step",
            file=sys.stderr,
        )
        if is_main:
            _drop_lines_after(path, step)

    def advance(self, step: int, rate: float, **shown: float) -> None:
        """Move the bar to a step.

        Args:
            step: Optimizer steps done.
            rate: Items (tokens, images) a second.
            **shown: What stands beside the bar.
        """
        values = {name: f"{value:.4f}" for name, value in shown.items()}
        values[f"{self.unit}/s"] = f"{rate:,.0f}"
        self.bar.set_postfix(values, refresh=False)
        self.bar.update(step - self.bar.n)

    def write(self, step: int, values: dict[str, float | int]) -> None:
        """Append one line to metrics.jsonl and send it to the trackers.

        Args:
            step: Optimizer steps done.
            values: What was measured.
        """
        if not self.is_main:
            return
        line = json.dumps({"step": step, "time": round(time.time(), 3), **values}) + "\n"
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n" + line if self._torn else line)
            self._torn = False
        except OSError as error:  # a full disk, perhaps for a while only
            self._torn = True
            logger.warning("The metrics of step %d were not written: %s", step, error)
        if self.trackers is not None:
            try:
                self.trackers.log(values, step=step)
            except Exception as error:  # a tracker must never stop a training run
                logger.warning("A tracker failed and is left out from now on: %s", error)
                self.trackers = None

    def show(
        self, step: int, values: dict[str, float | int], shown: Sequence[str] = ("loss",)
    ) -> None:
        """Print a line of progress where there is no terminal for the bar.

        Args:
            step: Optimizer steps done.
            values: What was measured.
            shown: Which of them are printed, beside the learning rate and the speed.
        """
        if not self.is_main or self.is_terminal:
            return
        done = max(step - self.first_step, 1)
        remaining = (time.monotonic() - self.started) / done * (self.max_steps - step)
        logger.info(
            "step %d/%d (%.0f %%)  %s  lr %.2e  %s %s/s  ETA %s",
            step,
            self.max_steps,
            100 * step / self.max_steps,
            "  ".join(f"{name} {values[name]:.4f}" for name in shown),
            values["lr"],
            f"{values[f'{self.unit}_per_second']:,.0f}",
            self.unit,
            format_duration(remaining),
        )

    def close(self) -> None:
        """End the bar."""
        self.bar.close()


def _drop_lines_after(path: Path, step: int) -> None:
    """Keep the lines of a metrics file up to a step; a torn last line goes too."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError):
            continue
    staged = path.with_suffix(".jsonl.partial")
    staged.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    staged.replace(path)
