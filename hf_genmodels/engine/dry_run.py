"""What a run would be, without running it."""

from __future__ import annotations

import dataclasses
import time

import torch
import yaml
from accelerate import Accelerator

from hf_genmodels.config.lm import TrainLMConfig
from hf_genmodels.engine.estimate import (
    estimate_memory,
    format_bytes,
    format_count,
    format_duration,
)
from hf_genmodels.engine.language import adapt_model, given_tokenizer, new_or_pretrained_model
from hf_genmodels.engine.optim import build_optimizer
from hf_genmodels.engine.run import make_accelerator

PROBE_STEPS = 3


def dry_run(config: TrainLMConfig) -> str:
    """Return configuration, size, memory, speed of a few steps and estimated time; write nothing.

    The probe trains on random tokens, on one process. A tokenizer that would be trained is counted
    with its intended size, so that neither tokenizer nor data need to be made.

    Args:
        config: The run's options.
    """
    accelerator = make_accelerator(config)
    model = adapt_model(config, new_or_pretrained_model(config, _vocab_size(config)))
    model.train()
    memory = estimate_memory(
        model,
        config.optim.name,
        config.per_device_train_batch_size,
        config.block_size,
        ema=config.ema_decay is not None,
    )
    tokens_per_second = _probe(config, model, accelerator)
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    step_tokens = config.global_batch_size * config.block_size
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


def _vocab_size(config: TrainLMConfig) -> int:
    tokenizer = given_tokenizer(config)
    return config.tokenizer_vocab_size if tokenizer is None else len(tokenizer)


def _probe(config: TrainLMConfig, model: torch.nn.Module, accelerator: Accelerator) -> float:
    """Return tokens per second of a few training steps, after one that warms up."""
    optimizer = build_optimizer(model, config.optim)
    model, optimizer = accelerator.prepare(model, optimizer)
    shape = (config.per_device_train_batch_size, config.block_size)
    vocab_size = accelerator.unwrap_model(model).config.vocab_size
    started = 0.0
    for step in range(PROBE_STEPS + 1):
        if step == 1:
            started = time.monotonic()
        for _ in range(config.gradient_accumulation_steps):
            ids = torch.randint(vocab_size, shape, device=accelerator.device)
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
            accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for the device
    tokens = PROBE_STEPS * shape[0] * shape[1] * config.gradient_accumulation_steps
    return tokens / max(time.monotonic() - started, 1e-9)
