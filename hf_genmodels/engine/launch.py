"""Starting a training script on several processes through `accelerate launch`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import torch

from hf_genmodels.config.run import RunConfig


def needs_launch(config: RunConfig) -> bool:
    """Whether the user asked for several processes and this is not one of them already."""
    return config.num_processes > 1 and "WORLD_SIZE" not in os.environ


def launch(module: str, argv: Sequence[str], config: RunConfig) -> int:
    """Run a training script on several processes and wait for it.

    Args:
        module: Module of the script, such as `hf_genmodels.training.train_lm`.
        argv: Its arguments.
        config: The parsed arguments, for the number of processes.

    Returns:
        The exit status.
    """
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        f"--num_processes={config.num_processes}",
        "--num_machines=1",
        "--mixed_precision=no",  # the script chooses it
        "--dynamo_backend=no",
        "--main_process_port=0",
    ]
    if not torch.cuda.is_available():
        command.append("--cpu")
        threads = max(1, (os.cpu_count() or 1) // config.num_processes)
        command.append(f"--num_cpu_threads_per_process={threads}")
    if config.num_processes > 1:
        command.append("--multi_gpu" if torch.cuda.is_available() else "--mixed_precision=no")
    command += ["-m", module, *argv]
    process = subprocess.Popen(command)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the processes got the signal too; let them save
            continue
