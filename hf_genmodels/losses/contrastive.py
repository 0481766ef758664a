"""Contrastive losses over vectors, and how an encoder's states become one vector.

Letters: B rows of a batch, S tokens, N vectors, D their size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from hf_genmodels.losses.reduction import check_same_shape, token_mean, widen


def info_nce(
    anchors: torch.Tensor,
    positives: torch.Tensor,
    temperature: float = 0.1,
    groups: torch.Tensor | None = None,
    *,
    num_items: int | torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean over i of -log(exp(s_ii / t) / sum over j of exp(s_ij / t)).

    InfoNCE (van den Oord et al. 2018, arXiv:1807.03748): s_ij is the cosine between anchor i and
    positive j, t the temperature; the positives of other anchors are the negatives of anchor i.

    Args:
        anchors: (N, D).
        positives: (N, D), row i belongs to anchor i.
        temperature: t, more than 0.
        groups: Numbers of groups, (N,), such as the author of each row: rows of one group are not each
            other's negatives. `None`: every other row is a negative.
        num_items: Divide by this instead of by N.

    Returns:
        A scalar in nats; 0 if there are no negatives.

    Raises:
        ValueError: If the shapes do not fit or the temperature is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature={temperature} must be more than 0.")
    check_same_shape(anchors=anchors, positives=positives)
    with torch.autocast(anchors.device.type, enabled=False):
        similarity = F.normalize(widen(anchors), dim=-1) @ F.normalize(widen(positives), dim=-1).T
    scores = similarity / temperature  # (N, N)
    if groups is not None:
        check_same_shape(groups=groups, rows=anchors[:, 0])
        same = groups[:, None].eq(groups).fill_diagonal_(False)
        scores = scores.masked_fill(same, -torch.inf)
    own = torch.arange(len(scores), device=scores.device)
    return token_mean(F.cross_entropy(scores, own, reduction="sum"), len(scores), num_items)


def pooled(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean of each row's states over its real tokens.

    Args:
        states: States of an encoder, (B, S, D).
        mask: 1 for real tokens and 0 for padding, (B, S).

    Returns:
        (B, D); zeros for a row without real tokens.

    Raises:
        ValueError: If the shapes do not fit.
    """
    check_same_shape(mask=mask, tokens=states[..., 0])
    real = mask.bool()[..., None]
    total = widen(states).masked_fill(~real, 0).sum(dim=1)
    return total / real.sum(dim=1).clamp(min=1)
