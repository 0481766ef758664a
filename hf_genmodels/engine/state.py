"""Where a training loop stands, and how fast it goes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class LoopState:
    """Where a training loop stands. Everything in it is saved with a checkpoint."""

    step: int = 0
    """Optimizer steps done."""
    examples: int = 0
    """Examples consumed over all ranks: the position in the endless order of the data."""
    tokens: int = 0
    """Tokens that were predicted, over all ranks."""
    seconds: float = 0.0
    """Time in the loop, over all processes that worked on this run one after another."""
    cpu_seconds: float = 0.0
    """Time that the processors worked for this process, validations and checkpoints included."""
    best_value: float | None = None
    """Best validation result: the lowest loss, or the highest score."""
    best_step: int | None = None
    evals_without_gain: int = 0
    unpublished_step: int | None = None
    """Step whose weights belong into the output folder, which could not be written."""

    def every(self, steps: int | None) -> bool:
        """Whether something that happens every so many steps is due now."""
        return steps is not None and self.step % steps == 0

    def record_eval(self, value: float, *, higher_is_better: bool = False) -> None:
        """Take a validation loss, or a score of which more is better, into account."""
        sign = -1 if higher_is_better else 1
        if self.best_value is None or sign * value < sign * self.best_value:
            self.best_value, self.best_step, self.evals_without_gain = value, self.step, 0
        else:
            self.evals_without_gain += 1

    def publishes(self, policy: str, *, saved: bool) -> bool:
        """Whether the weights of this step belong into the output folder.

        Args:
            policy: `best` or `last`.
            saved: Whether a checkpoint of this step is written.
        """
        if policy == "last" or self.best_step is None:
            return saved
        return self.best_step == self.step

    def owes(self, policy: str) -> bool:
        """Whether a publication failed that the weights of this step make up for.

        Args:
            policy: `best` or `last`.
        """
        return self.unpublished_step is not None and self.publishes(policy, saved=True)


class Clock:
    """Measures the time in the loop, less what is paused, and the throughput.

    Args:
        state: The loop's state, which counts seconds and tokens.
    """

    def __init__(self, state: LoopState):
        self.state = state
        self.rate = 0.0
        self._last = time.monotonic()
        self._last_cpu = time.process_time()

    def tick(self, items: int) -> None:
        """Count a step of so many items (tokens, images), over all ranks."""
        now = time.monotonic()
        elapsed = max(now - self._last, 1e-9)
        self._last = now
        self.state.seconds += elapsed
        cpu = time.process_time()
        self.state.cpu_seconds += cpu - self._last_cpu
        self._last_cpu = cpu
        speed = items / elapsed
        # Smoothed over about ten steps.
        self.rate += (speed - self.rate) * (0.1 if self.rate else 1.0)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time of a block out."""
        yield
        self._last = time.monotonic()
