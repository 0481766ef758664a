"""Divergences between distributions that are given as log-probabilities, in nats.

A use of them is R-Drop (Liang et al. 2021, arXiv:2106.14448): two passes over the same batch draw
different dropout, and half the symmetric relative entropy of their predictions is added to the loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch

from hf_genmodels.losses.reduction import check_same_shape, token_mean, widen

Reduction = Literal["mean", "sum", "none"]
REDUCTIONS = ("mean", "sum", "none")


def kl_divergence(
    log_p: torch.Tensor,
    log_q: torch.Tensor,
    *,
    mask: torch.Tensor | None = None,
    reduction: Reduction = "mean",
    num_items: int | torch.Tensor | None = None,
) -> torch.Tensor:
    """Return D(p || q) = sum over v of p(v) log(p(v) / q(v)) (Kullback and Leibler 1951).

    Args:
        log_p: log p, (..., V); -inf where p is 0.
        log_q: log q, (..., V).
        mask: Rows that count, (...), bool. `None`: all.
        reduction: `mean` or `sum` over the rows that count, or `none`: a value for each row, 0 for
            those that do not count.
        num_items: In a mean, divide by this instead of by the number of rows that count.

    Returns:
        At least 0, infinite where q is 0 and p is not.

    Raises:
        ValueError: If the shapes do not fit or the reduction is unknown.
    """
    return _reduce(_relative_entropy, log_p, log_q, mask, reduction, num_items)


def js_divergence(
    log_p: torch.Tensor,
    log_q: torch.Tensor,
    *,
    mask: torch.Tensor | None = None,
    reduction: Reduction = "mean",
    num_items: int | torch.Tensor | None = None,
) -> torch.Tensor:
    """Return D(p || m) / 2 + D(q || m) / 2 with m = (p + q) / 2 (Jensen-Shannon; Lin 1991).

    Args:
        log_p: log p, (..., V); -inf where p is 0.
        log_q: log q, (..., V); -inf where q is 0.
        mask: See `kl_divergence`.
        reduction: See `kl_divergence`.
        num_items: See `kl_divergence`.

    Returns:
        Between 0 and ln 2 a row, the same for (p, q) and (q, p), always finite.

    Raises:
        ValueError: If the shapes do not fit or the reduction is unknown.
    """
    return _reduce(_jensen_shannon, log_p, log_q, mask, reduction, num_items)


def symmetric_relative_entropy(
    log_p: torch.Tensor,
    log_q: torch.Tensor,
    *,
    mask: torch.Tensor | None = None,
    reduction: Reduction = "mean",
    num_items: int | torch.Tensor | None = None,
) -> torch.Tensor:
    """Return D(p || q) + D(q || p) (Jeffreys 1946).

    Args:
        log_p: log p, (..., V); -inf where p is 0.
        log_q: log q, (..., V); -inf where q is 0.
        mask: See `kl_divergence`.
        reduction: See `kl_divergence`.
        num_items: See `kl_divergence`.

    Returns:
        At least 0, the same for (p, q) and (q, p), infinite where only one of them is 0.

    Raises:
        ValueError: If the shapes do not fit or the reduction is unknown.
    """
    return _reduce(_jeffreys, log_p, log_q, mask, reduction, num_items)


def _relative_entropy(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    impossible = log_p.eq(-torch.inf)  # 0 log 0 = 0, and so is its gradient
    ratio = log_p.masked_fill(impossible, 0) - log_q.masked_fill(impossible, 0)
    return (log_p.exp() * ratio).sum(dim=-1)


def _jensen_shannon(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    impossible = log_p.eq(-torch.inf) & log_q.eq(-torch.inf)
    doubled = torch.logaddexp(log_p.masked_fill(impossible, 0), log_q.masked_fill(impossible, 0))
    log_m = doubled - math.log(2)
    return (_relative_entropy(log_p, log_m) + _relative_entropy(log_q, log_m)) / 2


def _jeffreys(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    return _relative_entropy(log_p, log_q) + _relative_entropy(log_q, log_p)


def _reduce(
    divergence: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    log_p: torch.Tensor,
    log_q: torch.Tensor,
    mask: torch.Tensor | None,
    reduction: Reduction,
    num_items: int | torch.Tensor | None,
) -> torch.Tensor:
    """Compute a divergence for the rows that count and put the values together."""
    if reduction not in REDUCTIONS:
        raise ValueError(
            f"reduction={reduction!r} is unknown. Choose from: {', '.join(REDUCTIONS)}."
        )
    check_same_shape(log_p=log_p, log_q=log_q)
    if mask is None:
        mask = torch.ones_like(log_p[..., 0], dtype=torch.bool)
    check_same_shape(mask=mask, rows=log_p[..., 0])
    values = divergence(widen(log_p[mask]), widen(log_q[mask]))
    if reduction == "none":
        return values.new_zeros(mask.shape).masked_scatter(mask, values)
    total = values.sum()
    return total if reduction == "sum" else token_mean(total, len(values), num_items)
