"""One training run: its processes, its folder, its clock and the signals that end it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import (
    DistributedDataParallelKwargs,
    InitProcessGroupKwargs,
    LoggerType,
    broadcast,
    broadcast_object_list,
)
from filelock import FileLock, Timeout
from torch import nn

from hf_genmodels.config.parser import write_yaml
from hf_genmodels.config.run import CONFIG_NAME, RunConfig, check_new_folder, seconds_of
from hf_genmodels.engine.kernels import bound_kernel_memory
from hf_genmodels.engine.logging import MetricsLog, setup_logging, warn_if_failing
from hf_genmodels.engine.precision import resolve_precision, sharded_precision
from hf_genmodels.engine.state import Clock, LoopState
from hf_genmodels.engine.uploading import Uploads
from hf_genmodels.errors import UserError, suggest

logger = logging.getLogger("hf_genmodels")
LOCK_NAME = ".lock"
# The main process tokenises while the others wait for it.
PATIENCE = timedelta(hours=6)
# A launcher passes on a signal that the terminal has sent to every process already.
SAME_SIGNAL_SECONDS = 1.0


class TrainingDivergedError(UserError):
    """The loss is not a number any more."""


class Run:
    """What a training script needs around its loop.

    Attributes:
        accelerator: Devices, mixed precision and processes.
        output_dir: The run's folder.
        state: Where the loop stands.
        metrics: metrics.jsonl, the progress bar and the trackers.
        clock: Time in the loop, and throughput.
        stop_reason: Why the run ends before its last step, if it does; the same on all ranks.
        has_begun: Whether the loop was reached: before that, an error leaves nothing behind.
        is_complete: Whether nothing is left to do, although steps are.
        saved_step: Step of the last checkpoint that was saved or loaded.
        uploads: What goes to a hub, on the main rank, if it was asked for.
    """

    def __init__(self, config: RunConfig, accelerator: Accelerator, output_dir: Path):
        self.config = config
        self.accelerator = accelerator
        self.output_dir = output_dir
        self.state = LoopState()
        self.stop_reason: str | None = None
        self.is_complete = False
        self.saved_step: int | None = None
        self.uploads: Uploads | None = None
        self.clock = Clock(self.state)
        self.metrics: MetricsLog
        self.has_begun = False
        self._asked: str | None = None
        self._asked_at = 0.0
        self._pid = os.getpid()
        self._started = time.monotonic()
        self._limit = math.inf if config.max_time is None else seconds_of(config.max_time)
        self._lock: FileLock | None = None
        self._handlers: dict[signal.Signals, Any] = {}

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

    def prepare(self, model: Any, optimizer: Any) -> tuple[Any, Any]:
        """Return model and optimizer as accelerate prepares them for these processes.

        Sharding makes units of their own of the input and the output embedding, and torch forbids
        that two units hold one parameter. An encoder and a decoder share theirs, so that these stay
        with the rest of the model.
        """
        whole = self.accelerator.is_fsdp2 and model.config.is_encoder_decoder
        hidden = ("get_input_embeddings", "get_output_embeddings") if whole else ()
        for name in hidden:
            setattr(model, name, lambda: None)
        prepared = self.accelerator.prepare(model, optimizer)
        for name in hidden:
            delattr(model, name)
        return prepared

    def sum_over_ranks(self, *values: float | torch.Tensor) -> list[float]:
        """Return the sum of each number over all ranks."""
        tensor = torch.tensor([float(value) for value in values], dtype=torch.float64)
        if self.accelerator.num_processes > 1:
            tensor = tensor.to(self.accelerator.device)
            tensor = self.accelerator.reduce(tensor, reduction="sum")
        return tensor.tolist()

    def agree(self, losses: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """Return losses summed over all ranks; on the way they agree whether one must stop."""
        if self._asked is None and time.monotonic() - self._started > self._limit:
            self._asked = f"--max_time {self.config.max_time} is over"
        reason = self._asked
        *totals, asked = self.sum_over_ranks(*losses.values(), float(reason is not None))
        if asked:
            self.stop_reason = reason or "another process was asked to stop"
        return dict(zip(losses, totals, strict=True))

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

    def replicate(self, model: nn.Module) -> None:
        """Give every rank the main rank's weights, where no wrapper does."""
        if self.accelerator.num_processes > 1:
            for tensor in (*model.parameters(), *model.buffers()):
                broadcast(tensor.data)

    @torch.no_grad()
    def average_gradients(self, model: nn.Module) -> None:
        """Average the gradients of a model without wrapper over all ranks.

        The wrapper of distributed training does not see gradients of gradients.
        """
        if self.accelerator.num_processes == 1:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        flat = self.accelerator.reduce(flat, reduction="mean")
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, mean in zip(gradients, flat.split(sizes), strict=True):
            gradient.copy_(mean.view(gradient.shape))

    def clip_gradients(
        self, model: nn.Module, max_norm: float, max_value: float | None = None
    ) -> float:
        """Clip the gradients and return the norm that they had.

        Args:
            model: The prepared model.
            max_norm: Largest norm of all gradients together, 0 for no clipping.
            max_value: Largest absolute value of each element, applied after the norm.
        """
        norm = self.accelerator.clip_grad_norm_(model.parameters(), max_norm or math.inf)
        if max_value is not None:
            self.accelerator.clip_grad_value_(model.parameters(), max_value)
        return float(norm)

    def log(self, *, shown: Sequence[str] = ("loss",), **measured: float) -> None:
        """Write a line of training metrics.

        Args:
            shown: Which of them stand in the line of progress.
            **measured: What was measured in this step, `lr` among it.
        """
        unit = self.config.unit
        values = {
            **measured,
            unit: self.state.tokens if unit == "tokens" else self.state.examples,
            f"{unit}_per_second": round(self.clock.rate, 1),
        }
        self.metrics.write(self.state.step, values)
        self.metrics.show(self.state.step, values, shown)

    def check_finite(self, loss: float, grad_norm: float, *, num_examples: int) -> None:
        """Stop the run before a loss or gradient that is not finite spoils the weights.

        Args:
            loss: Loss of the step.
            grad_norm: Norm of its gradient.
            num_examples: How far the step moves `state.examples`.

        Raises:
            TrainingDivergedError: With the step, the examples and what to try.
        """
        skips_bad_steps = self.accelerator.scaler is not None  # fp16 lowers its scale instead
        if math.isfinite(loss) and (math.isfinite(grad_norm) or skips_bad_steps):
            return
        what = (
            f"gradient's norm became {grad_norm}" if math.isfinite(loss) else f"loss became {loss}"
        )
        first = self.state.examples
        saved = "Nothing was saved before."
        if self.saved_step is not None:
            saved = f"The checkpoint of step {self.saved_step} in {self.output_dir} is good."
        raise TrainingDivergedError(
            f"The {what} at step {self.state.step + 1}, in the batch of examples {first} to "
            f"{first + num_examples - 1} of the training order. {saved} Start a "
            "new run with a lower learning rate, or resume this one with --mixed_precision no."
        )

    def is_due(self, last: bool) -> bool:
        """Tell whether anything is measured, saved or published after this step.

        Args:
            last: Whether it is the last step.
        """
        every, config = self.state.every, self.config
        stops = last or self.stop_reason is not None
        return stops or every(config.eval_every) or every(config.save_every)

    def stop_if_no_gain(self) -> None:
        """Let the run end if validation has not improved for as long as the user allowed."""
        patience = self.config.early_stopping_patience
        if patience is not None and self.state.evals_without_gain >= patience:
            self.stop_reason = f"validation has not improved since step {self.state.best_step}"
            self.is_complete = True

    def handle_signals(self) -> None:
        """From now on, let the first SIGTERM or SIGINT finish the step and save."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._handlers[number] = signal.signal(number, self._on_signal)

    def close(self) -> None:
        """End trackers and the progress bar, and let signals and the folder go."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self.has_begun:
            self.metrics.close()
        if self.uploads is not None:
            self.uploads.stop(0.0)
        with warn_if_failing("A tracker did not end well"):
            self.accelerator.end_training()
        if self._lock is not None:
            self._lock.release()

    def _on_signal(self, number: int, _frame: Any) -> None:
        if os.getpid() != self._pid:  # a worker that prepares batches; the run ends it
            signal.signal(number, signal.SIG_DFL)
            return
        name = signal.Signals(number).name
        if self._asked is not None:
            is_second = time.monotonic() - self._asked_at > SAME_SIGNAL_SECONDS
            if number == signal.SIGINT and is_second:
                raise KeyboardInterrupt
            return
        self._asked = f"{name} was received"
        self._asked_at = time.monotonic()
        if self.is_main:
            hint = " Press Ctrl-C again to stop at once." if number == signal.SIGINT else ""
            logger.warning("%s: the step is finished and saved first.%s", name, hint)


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
    output_dir = Path(config.resume or config.output_dir or "")
    existed = output_dir.is_dir()
    bound_kernel_memory()
    accelerator = make_accelerator(config)
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
    try:
        yield run
    except UserError:
        if run.is_main and not run.has_begun and not config.resume:
            _leave_no_trace(output_dir, existed=existed)
        raise
    finally:
        run.close()


def check_run(config: RunConfig) -> None:
    """Look at the folder and the trackers of a run before any work is begun.

    Raises:
        UserError: With what cannot work.
    """
    if not config.resume and not config.dry_run:
        if not config.output_dir:
            raise UserError("Name the folder for the model: --output_dir FOLDER.")
        check_new_folder(config.output_dir, LOCK_NAME)
        config.check_login()
    check_trackers(config.report_to)


def check_trackers(names: Sequence[str]) -> None:
    """Check that accelerate knows the trackers and that their libraries are installed.

    Raises:
        UserError: If one cannot be used.
    """
    available = [str(tracker) for tracker in get_available_trackers()]
    for name in names:
        if name not in ("all", *LoggerType.list()):
            known = sorted(set(LoggerType.list()) - {"all"})
            raise UserError(
                f"--report_to {name}: there is no such tracker. {suggest(name, known)}"
                f"Choose from: {', '.join(known)}."
            )
        if name not in ("all", *available):
            raise UserError(
                f"--report_to {name}: its library is not installed. Install it with: "
                f"pip install {name}. Without it, metrics.jsonl holds the same numbers."
            )


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
        run.saved_step = state.step
    run.clock = Clock(run.state)
    trackers = None
    if run.is_main:
        _keep_config(run.config, run.output_dir)
        if run.config.push_to_hub:
            run.uploads = Uploads(run.output_dir, run.config)
        if run.config.report_to:
            with warn_if_failing("The trackers cannot be used"):
                run.accelerator.init_trackers("hf_genmodels")
                trackers = run.accelerator
    run.metrics = MetricsLog(
        run.output_dir / "metrics.jsonl",
        run.state.step,
        run.config.max_steps,
        unit=run.config.unit,
        is_main=run.is_main,
        trackers=trackers,
    )
    run.has_begun = True
    run.stop_if_no_gain()
    run.handle_signals()


def make_accelerator(config: RunConfig) -> Accelerator:
    """Return the accelerator of a run: devices, precision, processes, trackers."""
    asked = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    # Without `cpu`, every process on a machine without accelerators believes to be the only one.
    use_cpu = asked or not torch.accelerator.is_available()
    device = torch.device("cuda" if torch.cuda.is_available() and not use_cpu else "cpu")
    accelerator = Accelerator(
        cpu=use_cpu,
        mixed_precision=resolve_precision(config.mixed_precision, device),
        log_with=config.report_to or None,
        project_dir=config.resume or config.output_dir,
        kwargs_handlers=[
            DistributedDataParallelKwargs(gradient_as_bucket_view=True),
            InitProcessGroupKwargs(timeout=PATIENCE),
        ],
    )
    if accelerator.is_fsdp2:
        plugin: Any = accelerator.state.fsdp_plugin
        plugin.mixed_precision_policy = sharded_precision(accelerator.mixed_precision)
    return accelerator


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
    if not config.resume:
        _keep_config(config, output_dir)
    return lock


def _keep_config(config: RunConfig, output_dir: Path) -> None:
    """Write what `--resume` needs to find the run's options again."""
    kept = dataclasses.replace(config, resume=None, output_dir=str(output_dir))
    write_yaml(kept, output_dir / CONFIG_NAME)


def _leave_no_trace(output_dir: Path, *, existed: bool) -> None:
    """Empty the folder of a run that could not begin; it was empty or not there before."""
    for path in output_dir.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if not existed:
        output_dir.rmdir()
