"""The policy gradient of a model that writes token by token (Williams 1992, REINFORCE).

Letters: B texts of a batch, L tokens of each, V vocabulary; p the distribution that the model predicts
at a place, y the token that was drawn from it.
"""

from __future__ import annotations

import torch

from hf_genmodels.losses.reduction import check_same_shape, token_mean, widen


def rewards_of(token_logits: torch.Tensor) -> torch.Tensor:
    """Return 2 sigmoid(f) - 1, a reward in [-1, 1] for each token.

    As in de Masson d'Autume et al. 2019, arXiv:1905.09922, section 3.2: bounded, and 0 where a
    discriminator cannot decide.

    Args:
        token_logits: f, the verdicts of a discriminator on each token or on each beginning, (B, L).
    """
    return torch.tanh(widen(token_logits) / 2)


def returns_of(rewards: torch.Tensor, mask: torch.Tensor, discount: float) -> torch.Tensor:
    """Return R_t = r_t + discount * R_(t+1): what a token brings in by itself and by what follows.

    Args:
        rewards: r, (B, L).
        mask: Tokens that count, bool (B, L); others bring in nothing.
        discount: Weight of the next token's return, in [0, 1].

    Returns:
        (B, L), 0 where nothing counts.

    Raises:
        ValueError: If the shapes differ or the discount is out of range.
    """
    check_same_shape(rewards=rewards, mask=mask)
    if not 0 <= discount <= 1:
        raise ValueError(f"discount={discount} must lie in [0, 1].")
    rewards = widen(rewards).masked_fill(~mask, 0)
    total = torch.zeros_like(rewards[:, 0])
    returns = torch.empty_like(rewards)
    for place in range(rewards.shape[1] - 1, -1, -1):
        total = rewards[:, place] + discount * total
        returns[:, place] = total
    return returns.masked_fill(~mask, 0)


def advantages_of(returns: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return how much more a token brings in than tokens at the same place of the other texts.

    The mean of the others is a baseline that does not depend on the token itself, so that the
    gradient stays unbiased (Kool et al. 2019, "Buy 4 REINFORCE Samples, Get a Baseline for Free!").

    Args:
        returns: (B, L).
        mask: Tokens that count, bool (B, L).

    Returns:
        (B, L), 0 where nothing counts and where no other text is as long.

    Raises:
        ValueError: If the shapes differ.
    """
    check_same_shape(returns=returns, mask=mask)
    returns = widen(returns).masked_fill(~mask, 0)
    others = mask.sum(dim=0, keepdim=True) - 1
    baseline = (returns.sum(dim=0, keepdim=True) - returns) / others.clamp(min=1)
    return (returns - baseline).masked_fill(~mask | (others < 1), 0)


def policy_gradient(
    log_probs: torch.Tensor, tokens: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Return the mean of -A log p(y), whose gradient is that of -E[return].

    Args:
        log_probs: log p, (B, L, V).
        tokens: y, int64 (B, L).
        advantages: A, (B, L), without gradient.
        mask: Tokens that count, bool (B, L).

    Returns:
        A scalar; 0 if nothing counts.

    Raises:
        ValueError: If the shapes differ.
    """
    check_same_shape(tokens=tokens, advantages=advantages)
    check_same_shape(tokens=tokens, mask=mask)
    picked = widen(log_probs).gather(2, tokens.unsqueeze(2)).squeeze(2)
    losses = -(advantages.detach() * picked)[mask]
    return token_mean(losses.sum(), losses.numel(), None)


def entropy(log_probs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean of -sum over v of p(v) log p(v) (Shannon 1948), in nats.

    Args:
        log_probs: log p, (B, L, V).
        mask: Places that count, bool (B, L).

    Returns:
        A scalar; 0 if nothing counts.
    """
    rows = widen(log_probs)[mask]
    return token_mean(-(rows.exp() * rows).sum(), len(rows), None)
