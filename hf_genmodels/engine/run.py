"""One training run: its processes, its folder, its clock and the signals that end it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list
from filelock import FileLock, Timeout
from torch import nn

from hf_genmodels.config.parser import write_yaml
from hf_genmodels.config.run import RunConfig, check_new_folder, seconds_of
from hf_genmodels.engine.logging import MetricsLog, setup_logging
from hf_genmodels.engine.precision import resolve_precision
from hf_genmodels.errors import UserError

logger = logging.getLogger("hf_genmodels")
LOCK_NAME = ".lock"


class TrainingDivergedError(UserError):
    """The loss is not a number any more."""


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
    eval_loss: float | None = None
    """Last validation loss."""
    best_loss: float | None = None
    best_step: int | None = None
    evals_without_gain: int = 0

    def every(self, steps: int | None) -> bool:
        """Whether something that happens every so many steps is due now."""
        return steps is not None and self.step % steps == 0

    def record_eval(self, loss: float) -> None:
        """Take a validation loss into account."""
        self.eval_loss = loss
        if self.best_loss is None or loss < self.best_loss:
            self.best_loss, self.best_step, self.evals_without_gain = loss, self.step, 0
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


class Clock:
    """Measures the time in the loop, less what is paused, and the throughput.

    Args:
        state: The loop's state, which counts seconds and tokens.
    """

    def __init__(self, state: LoopState):
        self.state = state
        self.tokens_per_second = 0.0
        self._last = time.monotonic()

    def tick(self, tokens: int) -> None:
        """Count a step that predicted so many tokens, over all ranks."""
        now = time.monotonic()
        elapsed = max(now - self._last, 1e-9)
        self._last = now
        self.state.seconds += elapsed
        speed = tokens / elapsed
        # Smoothed over about ten steps.
        self.tokens_per_second += (speed - self.tokens_per_second) * (
            0.1 if self.tokens_per_second else 1.0
        )

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time of a block out."""
        yield
        self._last = time.monotonic()


class Run:
    """What a training script needs around its loop.

    Attributes:
        accelerator: Devices, mixed precision and processes.
        output_dir: The run's folder.
        state: Where the loop stands.
        metrics: metrics.jsonl, the progress bar and the trackers.
        clock: Time in the loop, and throughput.
        stop_reason: Why the run must end before its last step, if it must.
        is_complete: Whether nothing is left to do, although steps are.
    """

    def __init__(self, config: RunConfig, accelerator: Accelerator, output_dir: Path):
        self.config = config
        self.accelerator = accelerator
        self.output_dir = output_dir
        self.state = LoopState()
        self.stop_reason: str | None = None
        self.is_complete = False
        self.clock = Clock(self.state)
        self._started = time.monotonic()
        self._limit = math.inf if config.max_time is None else seconds_of(config.max_time)
        self._lock: FileLock | None = None
        self.metrics: MetricsLog | None = None

    @property
    def is_main(self) -> bool:
        """Whether this rank writes."""
        return self.accelerator.is_main_process

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.output_dir / "checkpoints"

    @property
    def report_dir(self) -> Path:
        """Folder of plots and samples."""
        return self.output_dir / "report"

    def sum_over_ranks(self, value: float | torch.Tensor) -> float:
        """Return the sum of a number over all ranks."""
        tensor = torch.as_tensor(value, dtype=torch.float64, device="cpu")
        if self.accelerator.num_processes > 1:
            dtype = torch.float32 if self.accelerator.device.type == "mps" else torch.float64
            tensor = tensor.to(self.accelerator.device, dtype)
            tensor = self.accelerator.reduce(tensor, reduction="sum")
        return tensor.item()

    def broadcast(self, value: Any) -> Any:
        """Return the main rank's object on every rank."""
        return broadcast_object_list([value])[0]

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the main rank do the work of a block before the others find it done."""
        with self.accelerator.main_process_first():
            yield

    def sync_gradients(self, model: nn.Module, *, last: bool) -> contextlib.AbstractContextManager:
        """Exchange gradients between ranks only in the last backward pass of a step."""
        return contextlib.nullcontext() if last else self.accelerator.no_sync(model)

    def to_device(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return a batch on this rank's device."""
        return {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}

    def clip_gradients(self, model: nn.Module, max_norm: float) -> float:
        """Clip the gradients to a norm, 0 for no clipping, and return the norm they had."""
        norm = self.accelerator.clip_grad_norm_(model.parameters(), max_norm or math.inf)
        return float(norm)

    def log(self, *, loss: float, lr: float, grad_norm: float) -> None:
        """Write a line of training metrics."""
        values = {
            "loss": loss,
            "lr": lr,
            "grad_norm": grad_norm,
            "tokens": self.state.tokens,
            "tokens_per_second": round(self.clock.tokens_per_second, 1),
        }
        self.metrics.write(self.state.step, values)
        self.metrics.show(self.state.step, values)

    def check_finite(self, loss: float) -> None:
        """Stop the run if a loss is not finite, before it spoils the weights.

        Raises:
            TrainingDivergedError: With the step, the examples and what to try.
        """
        if math.isfinite(loss):
            return
        first = self.state.examples
        raise TrainingDivergedError(
            f"The loss became {loss} at step {self.state.step + 1}, in the batch of examples {first} "
            f"to {first + self.config.global_batch_size - 1} of the training order. The weights of "
            f"this step were not saved; what was saved before is in {self.output_dir}. Lower the "
            "learning rate, or use --mixed_precision no, and start anew or resume."
        )

    def stop_if_no_gain(self) -> None:
        """Let the run end if validation has not improved for as long as the user allowed."""
        patience = self.config.early_stopping_patience
        if patience is not None and self.state.evals_without_gain >= patience:
            self.stop_reason = (
                f"the validation loss has not improved since step {self.state.best_step}"
            )
            self.is_complete = True

    def should_stop(self) -> bool:
        """Whether the run must save and end now, agreed on by all ranks."""
        if self.stop_reason is None and time.monotonic() - self._started > self._limit:
            self.stop_reason = f"--max_time {self.config.max_time} is over"
        if self.accelerator.num_processes > 1:
            asked = self.sum_over_ranks(float(self.stop_reason is not None))
            if asked and self.stop_reason is None:
                self.stop_reason = "another process was asked to stop"
        return self.stop_reason is not None

    def close(self) -> None:
        """End trackers and the progress bar, and let the folder go."""
        if self.metrics is not None:
            self.metrics.close()
        self.accelerator.end_training()
        if self._lock is not None:
            self._lock.release()

    def _on_signal(self, number: int, _frame: Any) -> None:
        name = signal.Signals(number).name
        if self.stop_reason is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.stop_reason = f"{name} was received"
        logger.warning(
            "%s: the step is finished and saved first.%s",
            name,
            " Press Ctrl-C again to stop at once." if number == signal.SIGINT else "",
        )


@contextlib.contextmanager
def start_run(config: RunConfig) -> Iterator[Run]:
    """Open a run: processes, output folder, lock, seeds, signals.

    Args:
        config: The run's options.

    Yields:
        The run.

    Raises:
        UserError: If the folder holds something else or another process works in it.
    """
    output_dir = Path(config.resume or config.output_dir)
    accelerator = _make_accelerator(config, output_dir)
    setup_logging(is_main=accelerator.is_main_process)
    run = Run(config, accelerator, output_dir)
    problem = None
    if run.is_main:
        try:
            run._lock = _claim_folder(config, output_dir)
        except UserError as error:
            problem = str(error)
    problem = run.broadcast(problem)
    if problem is not None:
        accelerator.end_training()
        raise UserError(problem)

    seed_everything(config.seed + accelerator.process_index)
    previous = {s: signal.signal(s, run._on_signal) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield run
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        run.close()


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries draw from the global generator
    torch.manual_seed(seed)


def begin(run: Run, state: LoopState | None) -> None:
    """Start the clock and the log at the loop's first step, and keep the configuration.

    Args:
        run: The run.
        state: State of the checkpoint that the run goes on from, or `None`.
    """
    if state is not None:
        run.state = state
    run.clock = Clock(run.state)
    if run.is_main:
        kept = dataclasses.replace(run.config, resume=None, output_dir=str(run.output_dir))
        write_yaml(kept, run.output_dir / "config.yaml")
        if run.config.report_to:
            run.accelerator.init_trackers("hf_genmodels", config={})
    trackers = run.accelerator if run.config.report_to else None
    run.metrics = MetricsLog(
        run.output_dir / "metrics.jsonl",
        run.state.step,
        run.config.max_steps,
        is_main=run.is_main,
        trackers=trackers,
    )


def _make_accelerator(config: RunConfig, output_dir: Path) -> Accelerator:
    use_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    device = torch.device("cuda" if torch.cuda.is_available() and not use_cpu else "cpu")
    return Accelerator(
        cpu=use_cpu,
        mixed_precision=resolve_precision(config.mixed_precision, device),
        log_with=config.report_to or None,
        project_dir=str(output_dir),
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )


def _claim_folder(config: RunConfig, output_dir: Path) -> FileLock:
    """Make the output folder ours, or say why it cannot be."""
    if not config.resume:
        check_new_folder(str(output_dir), LOCK_NAME)
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output_dir {output_dir} cannot be made: {error.strerror}.") from None
    if not os.access(output_dir, os.W_OK):
        raise UserError(f"--output_dir {output_dir} is not writable.")
    lock = FileLock(output_dir / LOCK_NAME, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"Another process is working in {output_dir}. Wait for it, or name another folder."
        ) from None
    return lock
