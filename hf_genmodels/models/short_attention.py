"""Causal attention of short texts while training in bf16 on the CPU.

torch's flash attention never holds the weights of attention, which costs it most of its time where they
would be small: 200 tokens take 2.5 times as long as the products written out, a few heads at a time, so
that their weights stay in the cache.

Shapes are written with these letters: B batch, H heads, T tokens, C channels of a head, N = B x H.
"""

import math
from typing import Any

import torch
from torch.autograd.function import once_differentiable

LONGEST = 320  # tokens; the weights are kept for the backward pass
WEIGHTS_AT_A_TIME = 1 << 20
SAFE_SCORE = 40.0  # a row of exponentials of such scores neither overflows nor vanishes


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
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float,
    largest_score: float = math.inf,
) -> torch.Tensor:
    """Attend to all earlier tokens.

    Args:
        query: (B, H, T, C).
        key: The same shape.
        value: The same shape.
        scaling: Factor of the products of queries and keys.
        largest_score: What no scaled product exceeds, as where queries and keys are normalised. Below
            40, the largest score of each row need not be looked for.

    Returns:
        The output, (B, T, H, C).
    """
    heads = [states.flatten(0, 1) for states in (query, key, value)]
    output: torch.Tensor = _ShortAttention.apply(*heads, scaling, largest_score < SAFE_SCORE)
    return output.view(query.shape).transpose(1, 2)


class _ShortAttention(torch.autograd.Function):
    """Scores and gradients are rounded to bf16 between the products, as autocast rounds them.

    The weights are kept as powers of two whose rows do not add up to 1: dividing the output and its
    gradient by the sums is less work.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float,
        is_bounded: bool,
    ) -> torch.Tensor:
        number, length, _ = query.shape
        hidden = query.new_full((length, length), float("-inf")).triu_(1)
        weights = query.new_empty(number, length, length)
        sums = query.new_empty(number, length, 1, dtype=torch.float)
        output = torch.empty_like(value)
        ctx.scaling, ctx.at_once = scaling, max(1, WEIGHTS_AT_A_TIME // (length * length))
        alpha = scaling * math.log2(math.e)
        with torch.autocast("cpu", enabled=False):
            for start in range(0, number, ctx.at_once):
                own = slice(start, start + ctx.at_once)
                part = weights[own]
                torch.baddbmm(hidden, query[own], key[own].mT, alpha=alpha, out=part)
                if not is_bounded:
                    part.sub_(part.amax(-1, keepdim=True))
                torch.sum(part.exp2_(), -1, keepdim=True, dtype=torch.float, out=sums[own])
                torch.bmm(part, value[own], out=output[own])
        output.div_(sums)
        ctx.save_for_backward(query, key, value, weights, sums, output)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, weights, sums, output = ctx.saved_tensors
        grads = of_query, of_key, of_value = [torch.empty_like(one) for one in (query, key, value)]
        wide = grad.float() / sums
        grad = wide.to(query.dtype)
        # The sum over a row of weights times their gradients (Dao et al. 2022, arXiv:2205.14135).
        along = torch.linalg.vecdot(wide, output.float()).neg_().to(query.dtype)[..., None]
        scale = {"beta": 0, "alpha": ctx.scaling}
        for start in range(0, len(query), ctx.at_once):
            own = slice(start, start + ctx.at_once)
            torch.bmm(weights[own].mT, grad[own], out=of_value[own])
            of_scores = torch.baddbmm(along[own], grad[own], value[own].mT).mul_(weights[own])
            torch.baddbmm(of_query[own], of_scores, key[own], **scale, out=of_query[own])
            torch.baddbmm(of_key[own], of_scores.mT, query[own], **scale, out=of_key[own])
        return *grads, None, None


__all__ = ["short_attention", "suits_short_attention"]
