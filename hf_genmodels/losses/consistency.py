"""Consistency of a discriminator D: the score of an image and of its transformation T should agree."""

from __future__ import annotations

import torch

from hf_genmodels.losses.reduction import check_same_shape, widen


def consistency(logits: torch.Tensor, transformed_logits: torch.Tensor) -> torch.Tensor:
    """Return E[(D(x) - D(T(x)))^2] (Zhang et al. 2020, arXiv:1910.12027).

    Args:
        logits: D(x), (B,).
        transformed_logits: D(T(x)) of the same images, (B,).

    Returns:
        A scalar, at least 0; both sides have a gradient.

    Raises:
        ValueError: If the shapes differ.
    """
    check_same_shape(logits=logits, transformed_logits=transformed_logits)
    return (widen(logits) - widen(transformed_logits)).square().mean()


def balanced_consistency(
    real_logits: torch.Tensor,
    transformed_real_logits: torch.Tensor,
    fake_logits: torch.Tensor,
    transformed_fake_logits: torch.Tensor,
    real_weight: float = 10,
    fake_weight: float = 10,
) -> torch.Tensor:
    """Return a E[(D(x) - D(T(x)))^2] + b E[(D(y) - D(T(y)))^2] over real x and drawn y.

    bCR (Zhao et al. 2021, arXiv:2002.04724): with real images alone the generator learns to draw what T
    does to them. Part of D's loss only.

    Args:
        real_logits: D(x), (B,).
        transformed_real_logits: D(T(x)), (B,).
        fake_logits: D(y), (B,).
        transformed_fake_logits: D(T(y)), (B,).
        real_weight: a.
        fake_weight: b.

    Returns:
        A scalar, at least 0.

    Raises:
        ValueError: If the shapes do not fit.
    """
    real = consistency(real_logits, transformed_real_logits)
    return real_weight * real + fake_weight * consistency(fake_logits, transformed_fake_logits)
