"""Starting a training script on several processes of this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

from hf_genmodels.config.run import CONFIG_NAME, RunConfig
from hf_genmodels.engine.logging import setup_logging
from hf_genmodels.errors import UserError

logger = logging.getLogger("hf_genmodels")
LOCALHOST = "127.0.0.1"
POLL_SECONDS = 0.1
# How long the other processes may take to end by themselves when one has failed.
GRACE_SECONDS = 10.0
# The user's mistakes and Ctrl-C: starting again mends neither.
FINAL = (2, 130)


def needs_launch(config: RunConfig) -> bool:
    """Whether several processes, or restarts, are asked for and this is not one of them already.

    `accelerate launch --num_processes 2` on CPUs starts a single process, because it leaves the
    others to MPI; its processes are then started here.

    Args:
        config: The parsed arguments; takes over the number of processes asked of accelerate.

    Raises:
        UserError: If accelerate was asked for several processes in a way that is not understood.
    """
    if "WORLD_SIZE" in os.environ:
        return False
    if _is_below_accelerate():
        config.num_processes = _asked_of_accelerate()
    return config.num_processes > 1 or config.max_restarts > 0


def launch(module: str, argv: Sequence[str], config: RunConfig) -> int:
    """Run a training script on several processes and wait for them.

    SIGTERM and SIGINT are passed on, so that the processes finish their step and save. When one
    process fails, the others are ended, and all are started again from the newest checkpoint if the
    user allowed it.

    Args:
        module: Module of the script, such as `hf_genmodels.training.train_lm`.
        argv: Its arguments.
        config: The parsed arguments, for the number of processes and of restarts.

    Returns:
        The exit status: 0, or that of the first process that failed.
    """
    setup_logging(is_main=True)
    processes: list[subprocess.Popen[bytes]] = []
    asked: list[int] = []
    status, arguments = 0, list(argv)
    with _signals_passed_on(processes, asked):
        for left in reversed(range(config.max_restarts + 1)):
            processes.clear()
            _start(module, arguments, config, processes)
            rank, status = _wait(processes, needs_parent=_is_below_accelerate())
            if not status or status in FINAL or asked:
                break
            logger.error("Process %d %s; the others were ended.", rank, _how_it_ended(status))
            if left:
                arguments = _going_on(arguments, config)
                logger.warning("All are started again; %d more restarts are allowed.", left - 1)
    return status if status >= 0 else 128 - status


def _start(
    module: str,
    arguments: Sequence[str],
    config: RunConfig,
    processes: list[subprocess.Popen[bytes]],
) -> None:
    """Start a process for each rank and add it to a list, from where signals reach it."""
    command = [sys.executable, "-m", module, *arguments]
    shared = {**os.environ, "WORLD_SIZE": str(config.num_processes), "MASTER_ADDR": LOCALHOST}
    shared |= {"MASTER_PORT": str(_free_port()), "LOCAL_WORLD_SIZE": str(config.num_processes)}
    if not torch.cuda.is_available():
        threads = max(1, (os.cpu_count() or 1) // config.num_processes)
        shared |= {"ACCELERATE_USE_CPU": "true"}
        shared.setdefault("OMP_NUM_THREADS", str(threads))
    for rank in range(config.num_processes):
        ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        processes.append(subprocess.Popen(command, env={**shared, **ranks}))


def _going_on(arguments: list[str], config: RunConfig) -> list[str]:
    """Return the arguments that go on with a run, if it has begun."""
    if config.resume or not (Path(config.output_dir or "") / CONFIG_NAME).is_file():
        return arguments
    return ["--resume", str(config.output_dir)]


def _wait(processes: Sequence[subprocess.Popen[bytes]], *, needs_parent: bool) -> tuple[int, int]:
    """Wait for all processes; return rank and status of the first one that failed, or zeros.

    Args:
        processes: The processes.
        needs_parent: Whether the end of the parent asks them to stop. accelerate does not pass on
            the SIGTERM that ends it.
    """
    first = (0, 0)
    parent = os.getppid()
    deadline = float("inf")
    while True:
        running = [process for process in processes if process.poll() is None]
        failed = [(rank, p.returncode) for rank, p in enumerate(processes) if p.returncode]
        if failed and not first[1]:
            first = min(
                failed, key=lambda found: found[1]
            )  # one that was killed before its victims
            deadline = time.monotonic() + GRACE_SECONDS
        if not running:
            return first
        if time.monotonic() > deadline:
            for process in running:
                process.kill()
        if needs_parent and os.getppid() != parent:
            needs_parent = False
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(POLL_SECONDS)


def _how_it_ended(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    hint = ", as the system does when memory runs out" if status == -signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-status).name}{hint}"


@contextlib.contextmanager
def _signals_passed_on(
    processes: Sequence[subprocess.Popen[bytes]], asked: list[int]
) -> Iterator[None]:
    """Pass signals on to the processes that run at that time, and keep their numbers."""

    def pass_on(number: int, _frame: Any) -> None:
        asked.append(number)
        for process in processes:
            process.send_signal(number)

    previous = {n: signal.signal(n, pass_on) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOCALHOST, 0))
        return probe.getsockname()[1]


def _is_below_accelerate() -> bool:
    """Whether `accelerate launch` was asked for several processes and has started this one alone."""
    return "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_PORT" in os.environ


def _asked_of_accelerate() -> int:
    """Return the number of processes on the command line of the `accelerate launch` above us."""
    words = psutil.Process().parent().cmdline()
    for position, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in ("--num_processes", "--num-processes"):
            value = value if equals else words[position + 1]
            if value.isdigit():
                return int(value)
    raise UserError(
        "accelerate launch was asked for several processes but started one: without a GPU it leaves "
        "the others to MPI. Use: genmodels train ... --num_processes N"
    )
