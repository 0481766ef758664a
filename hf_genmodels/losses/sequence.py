"""Losses of a sequence of tokens.

Letters: V vocabulary, p the distribution that a model predicts at a place, y the token that stands there.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from hf_genmodels.losses.reduction import check_same_shape, token_mean, widen
from hf_genmodels.models.linear_cross_entropy import IGNORE_INDEX


def cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, *, num_items: int | torch.Tensor | None = None
) -> torch.Tensor:
    """Return the mean of -log p(y), with p = softmax(logits).

    Args:
        logits: (..., V).
        targets: Token ids, (...); `IGNORE_INDEX` marks places that do not count.
        num_items: Divide by this instead of by the number of places that count.

    Returns:
        A scalar in nats; 0 if no place counts.

    Raises:
        ValueError: If the shapes do not fit.
    """
    return label_smoothed_cross_entropy(logits, targets, 0.0, num_items=num_items)


def label_smoothed_cross_entropy(
    logits: torch.Tensor,
    targets: torch.Tensor,
    smoothing: float,
    *,
    num_items: int | torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean of (1 - e) (-log p(y)) + e / V * sum over v of -log p(v).

    Label smoothing (Szegedy et al. 2016, arXiv:1512.00567): the cross-entropy with a target that gives
    e / V to every token and the rest to y. Infinite where e > 0 and a logit is -inf.

    Args:
        logits: (..., V).
        targets: Token ids, (...); `IGNORE_INDEX` marks places that do not count.
        smoothing: e, at least 0 and less than 1.
        num_items: Divide by this instead of by the number of places that count.

    Returns:
        A scalar in nats; 0 if no place counts.

    Raises:
        ValueError: If the shapes do not fit or smoothing is out of range.
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing={smoothing} must be at least 0 and less than 1.")
    rows, tokens = _counted_rows(logits, targets)
    total = F.cross_entropy(widen(rows), tokens, reduction="sum", label_smoothing=smoothing)
    return token_mean(total, len(tokens), num_items)


def nll(
    log_probs: torch.Tensor, targets: torch.Tensor, *, num_items: int | torch.Tensor | None = None
) -> torch.Tensor:
    """Return the mean of -log p(y) where log p is given, as by a mixture or a renormalised model.

    Args:
        log_probs: log p, (..., V); tokens that cannot occur may be -inf.
        targets: Token ids, (...); `IGNORE_INDEX` marks places that do not count.
        num_items: Divide by this instead of by the number of places that count.

    Returns:
        A scalar in nats; 0 if no place counts, infinite if a target cannot occur.

    Raises:
        ValueError: If the shapes do not fit.
    """
    rows, tokens = _counted_rows(log_probs, targets)
    picked = widen(rows.gather(1, tokens[:, None]))
    return token_mean(-picked.sum(), len(tokens), num_items)


def sequence_unlikelihood(
    logits: torch.Tensor, negatives: torch.Tensor, *, num_items: int | torch.Tensor | None = None
) -> torch.Tensor:
    """Return the mean of -log(1 - p(n)) over tokens n that the model should not write.

    Unlikelihood over a sequence (Welleck et al. 2020, arXiv:1908.04319, equation 6). 1 - p(n) is summed
    up from all other tokens, so that the loss is exact, and its gradient lives, where p(n) rounds to 1.

    Args:
        logits: (..., V), from a forward pass in which the negatives were the targets.
        negatives: Token ids, (...); `IGNORE_INDEX` marks places that do not count.
        num_items: Divide by this instead of by the number of places that count.

    Returns:
        A scalar in nats; 0 if no place counts. Where all other logits are -inf, p(n) is 1 and the loss
        is the largest the format can tell from infinity, -log(tiny), without a gradient.

    Raises:
        ValueError: If the shapes do not fit.
    """
    rows, tokens = _counted_rows(logits, negatives)
    rows = widen(rows)
    others = rows.scatter(1, tokens[:, None], -torch.inf)
    certain = others.eq(-torch.inf).all(dim=1, keepdim=True)
    log_rest = others.masked_fill(certain, 0).logsumexp(dim=1) - rows.logsumexp(dim=1)
    largest = -math.log(torch.finfo(rows.dtype).tiny)
    losses = (-log_rest).masked_fill(certain[:, 0], largest)
    return token_mean(losses.sum(), len(tokens), num_items)


def _counted_rows(scores: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows (N, V) of the places that count, and their tokens (N,)."""
    check_same_shape(targets=targets, scores=scores[..., 0])
    counted = targets.ne(IGNORE_INDEX)
    return scores[counted], targets[counted]
