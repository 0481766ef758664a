"""What a run would be, without running it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping

import torch
import yaml
from accelerate import Accelerator

from hf_genmodels.config.optim import OptimConfig
from hf_genmodels.config.run import RunConfig
from hf_genmodels.engine.estimate import format_bytes, format_count, format_duration
from hf_genmodels.engine.optim import build_optimizer
from hf_genmodels.engine.run import make_accelerator

PROBE_STEPS = 3


def describe_dry_run(
    config: RunConfig,
    model: torch.nn.Module,
    optim: OptimConfig,
    random_batch: Callable[[], dict[str, torch.Tensor]],
    memory: Mapping[str, int],
) -> str:
    """Return configuration, size, memory, speed of a few steps and estimated time; write nothing.

    The probe trains on random tokens, on one process.

    Args:
        config: The run's options.
        model: What would be trained, in training mode.
        optim: Its optimiser.
        random_batch: Makes the arguments of one forward pass, with `labels`.
        memory: What `estimate_memory` returned.
    """
    accelerator = make_accelerator(config)
    batch_tokens = random_batch()["labels"].numel()
    tokens_per_second = _probe(config, model, optim, random_batch, accelerator)
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    step_tokens = batch_tokens * config.batches_per_step
    seconds = config.max_steps * step_tokens / (tokens_per_second * config.num_processes)

    lines = [
        yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True),
        f"parameters      {format_count(total)} ({format_count(trained)} trained)",
        f"precision       {accelerator.mixed_precision} on {accelerator.device}",
        f"memory          {format_bytes(memory['total'])} on each process",
        *(f"  {name:<13} {format_bytes(memory[name])}" for name in memory if name != "total"),
        f"tokens a step   {step_tokens:,} on {config.num_processes} process(es)",
        f"speed           {tokens_per_second:,.0f} tokens/s ({PROBE_STEPS} steps, one process)",
        f"estimated time  {format_duration(seconds)} for {config.max_steps:,} steps",
    ]
    return "\n".join(lines)


def _probe(
    config: RunConfig,
    model: torch.nn.Module,
    optim: OptimConfig,
    random_batch: Callable[[], dict[str, torch.Tensor]],
    accelerator: Accelerator,
) -> float:
    """Return tokens per second of a few training steps, after one that warms up."""
    optimizer = build_optimizer(model, optim)
    model, optimizer = accelerator.prepare(model, optimizer)
    started, tokens = 0.0, 0
    for step in range(PROBE_STEPS + 1):
        if step == 1:
            started, tokens = time.monotonic(), 0
        for _ in range(config.gradient_accumulation_steps):
            batch = {k: v.to(accelerator.device) for k, v in random_batch().items()}
            loss = model(**batch, use_cache=False).loss
            accelerator.backward(loss)
            tokens += batch["labels"].numel()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for the device
    return tokens / max(time.monotonic() - started, 1e-9)
