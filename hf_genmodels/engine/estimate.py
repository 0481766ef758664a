"""How much memory a training step will take, and numbers as people read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from hf_genmodels.engine.muon import BATCH_ELEMENTS
from hf_genmodels.engine.optim import parameter_groups

CHUNKED_LOGITS_BYTES = 24 << 20  # three buffers of 8 MiB, whatever the batch
_FULL_LOGITS_COPIES = 4  # logits, their log-softmax, and the gradients of both
_ALLOCATOR_OVERHEAD = 1.3  # measured on Linux: freed blocks that do not fit the next request
_MUON_WORKSPACE_COPIES = 5  # of one batch of matrices during Newton-Schulz

Inputs = Callable[[Tensor], dict[str, Tensor]]


def _input_ids(ids: Tensor) -> dict[str, Tensor]:
    return {"input_ids": ids}


def estimate_memory(
    model: nn.Module,
    optimizer_name: str,
    batch_size: int,
    block_size: int,
    *,
    chunked_loss: bool = True,
    ema: bool = False,
    inputs: Inputs = _input_ids,
) -> dict[str, int]:
    """Estimate the memory of one training step on one process, in bytes.

    Activations are not guessed: the model without its head runs forward on one short window, and what
    autograd keeps is counted and scaled up to the batch. So gradient checkpointing, attention and dropout
    count as they are. No gradient is made and no random number of the run is used.

    Args:
        model: The model, in training mode, with its trainable parameters chosen; a transformers model.
        optimizer_name: ``adamw`` or ``muon``.
        batch_size: Windows in one forward pass of one process.
        block_size: Tokens in a window.
        chunked_loss: Whether the loss never holds all logits.
        ema: Whether a moving average of the weights is kept.
        inputs: Makes the arguments of the headless model from token ids (1, T).

    Returns:
        ``weights``, ``gradients``, ``optimizer`` (with the average, if any), ``activations``, ``logits`` and
        their sum, ``total``.
    """
    parameters = list(model.parameters())
    trainable = sum(_bytes(p) for p in parameters if p.requires_grad)
    buffers = sum(_bytes(buffer) for buffer in model.buffers())
    tokens = batch_size * block_size
    estimate = {
        "weights": sum(_bytes(p) for p in parameters) + buffers,
        "gradients": trainable,
        "optimizer": _optimizer_bytes(model, optimizer_name) + (trainable if ema else 0),
        "activations": _activation_bytes(model, batch_size, block_size, inputs),
        "logits": _logits_bytes(model, tokens, chunked_loss),
    }
    return {**estimate, "total": sum(estimate.values())}


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _optimizer_bytes(model: nn.Module, optimizer_name: str) -> int:
    groups = parameter_groups(model)
    sizes = {name: sum(_bytes(p) for _, p in members) for name, members in groups.items()}
    if optimizer_name != "muon" or "hidden" not in groups:
        return 2 * sum(sizes.values())
    hidden = [p for _, p in groups["hidden"]]
    batch = min(sum(p.numel() for p in hidden), max(BATCH_ELEMENTS, *(p.numel() for p in hidden)))
    workspace = _MUON_WORKSPACE_COPIES * batch * hidden[0].element_size()
    return 2 * sum(sizes.values()) - sizes["hidden"] + workspace


def _logits_bytes(model: nn.Module, tokens: int, chunked_loss: bool) -> int:
    find: Any = getattr(model, "get_output_embeddings", None)  # transformers models have it
    head = find() if find else None
    if head is None:
        return 0
    full = _FULL_LOGITS_COPIES * tokens * head.weight.shape[0] * 4
    return min(full, CHUNKED_LOGITS_BYTES) if chunked_loss else full


def _activation_bytes(model: nn.Module, batch_size: int, block_size: int, inputs: Inputs) -> int:
    """Return what autograd keeps of a forward pass without the head, and the largest gradients of it."""
    short = min(block_size, 64)
    kept, largest = _kept_bytes(model, short, inputs)
    tokens = batch_size * block_size
    return round(_ALLOCATOR_OVERHEAD * (kept + 2 * largest) / short * tokens)


def _kept_bytes(model: nn.Module, length: int, inputs: Inputs) -> tuple[int, int]:
    """Return the bytes that a forward pass on one window keeps, and those of the largest tensor."""
    owned = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}
    kept: dict[int, Tensor] = {}

    def remember(tensor: Tensor) -> Tensor:
        pointer = tensor.untyped_storage().data_ptr()
        if pointer not in owned:
            kept[pointer] = tensor
        return tensor

    body: Any = getattr(model, "base_model", model)
    device = next(model.parameters()).device
    ids = torch.zeros(1, length, dtype=torch.long, device=device)
    with torch.random.fork_rng(), saved_tensors_hooks(remember, lambda tensor: tensor):
        output = body(
            **inputs(ids)
        )  # held, so that no storage is given back and counted as another
    sizes = [tensor.untyped_storage().nbytes() for tensor in kept.values()]
    del output
    return sum(sizes), max(sizes, default=0)


def format_bytes(count: float) -> str:
    """Return a size such as ``"1.38 GB"`` (powers of 1000).

    Args:
        count: Bytes.
    """
    return _scaled(count, ("B", "kB", "MB", "GB", "TB"))


def format_count(count: float) -> str:
    """Return a number such as ``"5.31 M"``; below a thousand it is written out.

    Args:
        count: How many.
    """
    return _scaled(count, ("", "k", "M", "B", "T"))


def _scaled(count: float, units: tuple[str, ...]) -> str:
    value, unit = float(count), 0
    while unit < len(units) - 1 and float(f"{abs(value):.3g}") >= 1000:
        value, unit = value / 1000, unit + 1
    number = f"{value:.0f}" if unit == 0 else f"{value:#.3g}".rstrip(".")
    return f"{number} {units[unit]}".strip()


def format_duration(seconds: float) -> str:
    """Return a time such as ``"1 h 02 min"``, ``"3 min 20 s"`` or ``"4.2 s"``.

    Args:
        seconds: How long; infinity or NaN is ``"unknown"``.
    """
    if not 0 <= seconds < float("inf"):
        return "unknown"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24:02d} h"
