"""What the steps of two networks that train against each other share, whatever they make."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from hf_genmodels.engine.run import Run


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Let gradients flow through a network without reaching its weights."""
    trained = [p for p in network.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def update(run: Run, network: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    """Change the weights of one network by its gradients, averaged over all ranks.

    Returns:
        The norm of the gradients.

    Raises:
        TrainingDivergedError: If it is not finite; the weights are then as they were.
    """
    config: Any = run.config
    run.average_gradients(network)
    norm = run.clip_gradients(network, config.optim.max_grad_norm)
    run.check_finite(norm, norm, num_examples=config.examples_per_step)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def mean_over_ranks(run: Run, sums: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Return the means of what was summed over micro-batches; ranks agree here whether to stop."""
    count = run.config.batches_per_step
    return run.agree({name: value.detach() / count for name, value in sums.items()})
