"""Causal attention of short texts while training in bf16 on the CPU.

torch's flash attention never holds the weights of attention, which costs it most of its time where they
would be small: 200 tokens take 2.5 times as long as the products written out, a few heads at a time, so
that their weights stay in the cache.

Shapes are written with these letters: B batch, H heads, T tokens, C channels of a head, N = B x H.
"""

from typing import Any

import torch
from torch.autograd.function import once_differentiable

LONGEST = 320  # tokens; the weights are kept for the backward pass
WEIGHTS_AT_A_TIME = 1 << 18


def suits_short_attention(query: torch.Tensor, key: torch.Tensor) -> bool:
    """Tell whether `short_attention` is the faster one, for queries and keys (B, H, T, C)."""
    length = query.shape[-2]
    return (
        query.dtype == torch.bfloat16
        and query.device.type == "cpu"
        and query.requires_grad
        and 1 < length == key.shape[-2] <= LONGEST
        and not torch.compiler.is_compiling()
    )


def short_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Attend to all earlier tokens.

    Args:
        query: (B, H, T, C).
        key: The same shape.
        value: The same shape.
        scaling: Factor of the products of queries and keys.

    Returns:
        The output, (B, T, H, C).
    """
    heads = [states.flatten(0, 1) for states in (query, key, value)]
    output: torch.Tensor = _ShortAttention.apply(*heads, scaling)
    return output.view(query.shape).transpose(1, 2)


class _ShortAttention(torch.autograd.Function):
    """Scores and gradients are rounded to bf16 between the products, as autocast rounds them."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        number, length, _ = query.shape
        hidden = query.new_full((length, length), float("-inf")).triu_(1)
        weights = query.new_empty(number, length, length)
        output = torch.empty_like(value)
        ctx.scaling, ctx.at_once = scaling, max(1, WEIGHTS_AT_A_TIME // (length * length))
        with torch.autocast("cpu", enabled=False):
            for start in range(0, number, ctx.at_once):
                own = slice(start, start + ctx.at_once)
                scores = torch.baddbmm(hidden, query[own], key[own].transpose(1, 2), alpha=scaling)
                torch.softmax(scores, dim=-1, out=weights[own])
                torch.bmm(weights[own], value[own], out=output[own])
        ctx.save_for_backward(query, key, value, weights, output)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, weights, output = ctx.saved_tensors
        grad = grad.contiguous()
        grads = [torch.empty_like(states) for states in (query, key, value)]
        # The sum over a row of weights times their gradients (Dao et al. 2022, arXiv:2205.14135).
        sums = torch.linalg.vecdot(grad.float(), output.float()).to(grad.dtype)[..., None]
        for start in range(0, len(query), ctx.at_once):
            own = slice(start, start + ctx.at_once)
            torch.bmm(weights[own].transpose(1, 2), grad[own], out=grads[2][own])
            of_scores = torch.bmm(grad[own], value[own].transpose(1, 2))
            of_scores.sub_(sums[own]).mul_(weights[own]).mul_(ctx.scaling)
            torch.bmm(of_scores, key[own], out=grads[0][own])
            torch.bmm(of_scores.transpose(1, 2), query[own], out=grads[1][own])
        return *grads, None


__all__ = ["short_attention", "suits_short_attention"]
