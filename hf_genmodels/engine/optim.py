"""Optimisers, learning-rate schedules and freezing.

AdamW: Loshchilov & Hutter 2019 (arXiv:1711.05101). Muon: see `hf_genmodels.engine.muon`.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from hf_genmodels.config.optim import OptimConfig, ScheduleConfig
from hf_genmodels.engine.muon import DEFAULT_MUON_LR, MuonAdamW, can_fuse
from hf_genmodels.errors import UserError, suggest

DEFAULT_MUON_EMBEDDING_LR = 0.1
FINE_TUNING_FACTOR = 0.1


def build_optimizer(
    model: nn.Module, config: OptimConfig, *, fine_tuning: bool = False
) -> torch.optim.Optimizer:
    """Build the optimiser for a model's trainable parameters.

    Each parameter is in exactly one group, tied ones too. The groups are ``hidden`` (matrices), ``head``
    (the output embedding and whatever is tied to it), ``embeddings``, and ``vectors`` (norms, biases);
    empty ones are left out. Each group carries ``name``, ``kind`` (``adamw`` or ``muon``) and ``lr``.

    Args:
        model: The model, before it is sharded or wrapped.
        config: What to build. Learning rates of None follow `default_learning_rates`.
        fine_tuning: Whether the weights come from a checkpoint; lowers the default rates.

    Returns:
        `torch.optim.AdamW`, fused where the device allows it, or `MuonAdamW`.

    Raises:
        UserError: If no parameter is trainable.
    """
    rates = learning_rates(model, config, fine_tuning=fine_tuning)
    decays = {
        "hidden": config.muon_weight_decay if config.name == "muon" else config.weight_decay,
        "head": config.weight_decay,
        "embeddings": config.weight_decay if config.decay_embeddings else 0.0,
        "vectors": 0.0,
    }
    groups: list[dict[str, Any]] = [
        {
            "params": [parameter for _, parameter in members],
            "name": name,
            "kind": "muon" if config.name == "muon" and name == "hidden" else "adamw",
            "lr": rates[name],
            "weight_decay": decays[name],
        }
        for name, members in parameter_groups(model).items()
    ]
    if config.name == "muon":
        return MuonAdamW(groups, config)
    return torch.optim.AdamW(
        groups,
        lr=rates["hidden"],
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=all(can_fuse(group["params"]) for group in groups),
    )


def parameter_groups(model: nn.Module) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """Sort the trainable parameters by what they are.

    Args:
        model: Any module; with ``get_output_embeddings`` its head is known.

    Returns:
        Group name to (parameter name, parameter), in the model's order: ``hidden``, ``head``,
        ``embeddings``, ``vectors``, without the empty ones.

    Raises:
        UserError: If no parameter is trainable.
    """
    head = _head_parameters(model)
    embeddings = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag))
        for parameter in module.parameters(recurse=False)
    }
    groups: dict[str, list[tuple[str, nn.Parameter]]] = {
        "hidden": [],
        "head": [],
        "embeddings": [],
        "vectors": [],
    }
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2 or 1 in parameter.shape:
            groups["vectors"].append((name, parameter))
        elif id(parameter) in head:
            groups["head"].append((name, parameter))
        elif id(parameter) in embeddings:
            groups["embeddings"].append((name, parameter))
        else:
            groups["hidden"].append((name, parameter))
    if not any(groups.values()):
        raise UserError("No parameter is left to train. Freeze less, or train an adapter (LoRA).")
    return {name: members for name, members in groups.items() if members}


def _head_parameters(model: nn.Module) -> set[int]:
    find: Any = getattr(model, "get_output_embeddings", None)  # transformers models have it
    head = find() if find else None
    return set() if head is None else {id(parameter) for parameter in head.parameters()}


def default_learning_rate(hidden_parameters: int) -> float:
    """Return AdamW's peak learning rate for a Transformer of this size.

    A power law through the 125 M model of Brown et al. 2020 (arXiv:2005.14165, table 2.1: 6e-4 at 85 M
    parameters without embeddings; larger ones fall with about the cube root), at most 4e-3.

    Args:
        hidden_parameters: Parameters without embeddings and head.
    """
    return min(4e-3, 6e-4 * (85e6 / max(1, hidden_parameters)) ** (1 / 3))


def learning_rates(
    model: nn.Module, config: OptimConfig, *, fine_tuning: bool = False
) -> dict[str, float]:
    """Return the peak learning rate of every group.

    What the configuration leaves open is filled in: ``lr`` by `default_learning_rate`; Muon's by 0.02
    (Jordan et al. 2024), or ``lr`` in the rms scale; embeddings by 0.1 with Muon, else by ``lr``; the
    head by ``lr``. When fine-tuning, all of these defaults are a tenth.

    Args:
        model: The model; its size sets the default.
        config: The optimiser's configuration.
        fine_tuning: Whether the weights come from a checkpoint.

    Returns:
        Group name to learning rate.
    """
    factor = FINE_TUNING_FACTOR if fine_tuning else 1.0
    lr = config.lr
    if lr is None:
        outside = {
            id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()
        }
        outside |= _head_parameters(model)
        hidden = sum(p.numel() for p in model.parameters() if id(p) not in outside)
        lr = factor * default_learning_rate(hidden)
    rates = {"hidden": lr, "head": lr, "embeddings": lr, "vectors": lr}
    if config.name == "muon":
        rates["hidden"] = factor * DEFAULT_MUON_LR if config.muon_scale == "spectral" else lr
        rates["embeddings"] = factor * DEFAULT_MUON_EMBEDDING_LR
        if config.muon_lr is not None:
            rates["hidden"] = config.muon_lr
    if config.embedding_lr is not None:
        rates["embeddings"] = config.embedding_lr
    if config.head_lr is not None:
        rates["head"] = config.head_lr
    return rates


def lr_factor(config: ScheduleConfig, step: int, max_steps: int) -> float:
    """Return the learning rate at a step as a factor of its peak.

    Args:
        config: The schedule. wsd is the linear-decay form of Hägele et al. 2024 (arXiv:2405.18392),
            inverse_sqrt that of Vaswani et al. 2017 (arXiv:1706.03762) with its peak at the end of
            the warm-up.
        step: Optimiser steps done so far; 0 at the first one, whose factor is not 0.
        max_steps: Steps of the whole run; the decay would reach its end at this step.

    Returns:
        A factor in [0, 1].
    """
    warmup = warmup_steps(config, max_steps)
    rise = min(1.0, (step + 1) / (warmup + 1))
    start = warmup
    if config.name == "wsd":
        start = max_steps - round(config.decay_fraction * max_steps)
    progress = min(1.0, max(0.0, (step - start) / max(1, max_steps - start)))
    if config.name == "constant":
        shape = 1.0
    elif config.name == "inverse_sqrt":
        shape = math.sqrt((warmup + 1) / (max(step, warmup) + 1))
    elif config.name == "cosine":
        shape = 0.5 * (1 + math.cos(math.pi * progress))
    else:
        shape = 1 - progress
    return min(rise, config.min_lr_ratio + (1 - config.min_lr_ratio) * shape)


def warmup_steps(config: ScheduleConfig, max_steps: int) -> int:
    """Return how many steps the warm-up takes: what was asked for, or 2 % of the run.

    Args:
        config: The schedule.
        max_steps: Steps of the whole run.
    """
    return round(0.02 * max_steps) if config.warmup_steps is None else config.warmup_steps


def build_schedule(
    optimizer: torch.optim.Optimizer, config: ScheduleConfig, max_steps: int
) -> LambdaLR:
    """Build the schedule of all groups; call its ``step`` once after each optimiser step.

    Args:
        optimizer: The optimiser; its groups' learning rates are the peaks.
        config: The schedule.
        max_steps: Steps of the whole run.

    Returns:
        A `LambdaLR`.

    Raises:
        UserError: If the run has no step.
    """
    if max_steps < 1:
        raise UserError(f"--max_steps is {max_steps}. A run has at least 1 step.")
    return LambdaLR(optimizer, lambda step: lr_factor(config, step, max_steps))


def freeze(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Stop the parameters whose names match any pattern from being trained.

    Args:
        model: The model.
        patterns: Shell patterns over full parameter names, such as ``model.layers.0.*``.

    Returns:
        The names of all frozen parameters, in the model's order.

    Raises:
        UserError: If a pattern matches nothing, or if nothing is left to train.
    """
    named = dict(model.named_parameters())
    for pattern in patterns:
        if not fnmatch.filter(named, pattern):
            names = list(named)
            examples = ", ".join(names[:: max(1, len(names) // 5)][:6])
            raise UserError(
                f"--freeze {pattern!r} matches no parameter. {suggest(pattern, names)}"
                f"Names look like: {examples}. Use * for any part of a name."
            )
    frozen = [n for n in named if any(fnmatch.fnmatchcase(n, pattern) for pattern in patterns)]
    if frozen and all(name in frozen or not p.requires_grad for name, p in named.items()):
        raise UserError(f"--freeze {' '.join(patterns)} leaves nothing to train. Freeze less.")
    for name in frozen:
        named[name].requires_grad_(False)
    return frozen
