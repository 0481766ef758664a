"""Starting a training script on several processes of this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import psutil
import torch

from hf_genmodels.config.run import RunConfig
from hf_genmodels.errors import UserError

LOCALHOST = "127.0.0.1"
POLL_SECONDS = 0.1
# How long the other processes may take to end by themselves when one has failed.
GRACE_SECONDS = 10.0


def needs_launch(config: RunConfig) -> bool:
    """Whether several processes are asked for and this is not one of them already.

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
    return config.num_processes > 1


def launch(module: str, argv: Sequence[str], config: RunConfig) -> int:
    """Run a training script on several processes and wait for them.

    SIGTERM and SIGINT are passed on, so that the processes finish their step and save. When one
    process fails, the others are ended.

    Args:
        module: Module of the script, such as `hf_genmodels.training.train_lm`.
        argv: Its arguments.
        config: The parsed arguments, for the number of processes.

    Returns:
        The exit status: 0, or that of the first process that failed.
    """
    command = [sys.executable, "-m", module, *argv]
    shared = {**os.environ, "WORLD_SIZE": str(config.num_processes), "MASTER_ADDR": LOCALHOST}
    shared |= {"MASTER_PORT": str(_free_port()), "LOCAL_WORLD_SIZE": str(config.num_processes)}
    if not torch.cuda.is_available():
        threads = max(1, (os.cpu_count() or 1) // config.num_processes)
        shared |= {"ACCELERATE_USE_CPU": "true"}
        shared.setdefault("OMP_NUM_THREADS", str(threads))
    processes: list[subprocess.Popen[bytes]] = []
    with _signals_passed_on(processes):
        for rank in range(config.num_processes):
            ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            processes.append(subprocess.Popen(command, env={**shared, **ranks}))
        return _wait(processes, needs_parent=_is_below_accelerate())


def _wait(processes: Sequence[subprocess.Popen[bytes]], *, needs_parent: bool) -> int:
    """Wait for all processes; return the status of the first one that failed, or 0.

    Args:
        processes: The processes.
        needs_parent: Whether the end of the parent asks them to stop. accelerate does not pass on
            the SIGTERM that ends it.
    """
    status = 0
    parent = os.getppid()
    deadline = float("inf")
    while any(process.poll() is None for process in processes):
        failed = [process.returncode for process in processes if process.returncode]
        if failed and not status:
            status = failed[0]
            deadline = time.monotonic() + GRACE_SECONDS
        if time.monotonic() > deadline:
            for process in processes:
                process.kill()
        if needs_parent and os.getppid() != parent:
            needs_parent = False
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(POLL_SECONDS)
    status = status or next((p.returncode for p in processes if p.returncode), 0)
    return status if status >= 0 else 128 - status


@contextlib.contextmanager
def _signals_passed_on(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    def pass_on(number: int, _frame: Any) -> None:
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
