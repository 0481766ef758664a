"""Adversarial losses of a discriminator D and a generator.

Letters: B images of a batch, K classes or attributes; r the scores that D gives to real images, f those
that it gives to drawn ones, both (B,). A mean over r and one over f, so that the losses of micro-batches
of one size have the mean that the whole batch has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F

from hf_genmodels.losses.reduction import check_same_shape, widen

Kind = Literal["non_saturating", "least_squares", "hinge", "wasserstein", "relativistic"]
KINDS = ("non_saturating", "least_squares", "hinge", "wasserstein", "relativistic")


def discriminator_loss(
    kind: Kind, real_logits: torch.Tensor, fake_logits: torch.Tensor
) -> torch.Tensor:
    """Return what D minimises; see the function of each kind.

    Args:
        kind: One of `KINDS`.
        real_logits: r, (B,).
        fake_logits: f, (B,). In a relativistic loss, of as many images, in the order of the real ones.

    Returns:
        A scalar.

    Raises:
        ValueError: If the kind is unknown, or paired scores differ in number.
    """
    _check_kind(kind)
    return _DISCRIMINATOR[kind](real_logits, fake_logits)


def generator_loss(
    kind: Kind, fake_logits: torch.Tensor, real_logits: torch.Tensor | None = None
) -> torch.Tensor:
    """Return what the generator minimises; see the function of each kind.

    Args:
        kind: One of `KINDS`.
        fake_logits: f, (B,).
        real_logits: r, (B,), needed by a relativistic loss and not looked at by others.

    Returns:
        A scalar.

    Raises:
        ValueError: If the kind is unknown, or a relativistic loss misses its real scores.
    """
    _check_kind(kind)
    if kind != "relativistic":
        return _GENERATOR[kind](widen(fake_logits)).mean()
    if real_logits is None:
        raise ValueError(
            "A relativistic loss compares drawn with real images: give real_logits to the generator too."
        )
    return relativistic(fake_logits, real_logits)


def non_saturating(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    """Return D's loss E[softplus(-r)] + E[softplus(f)], the binary cross-entropy of logits.

    Goodfellow et al. 2014, arXiv:1406.2661. The generator minimises E[softplus(-f)], which unlike
    -E[softplus(f)] keeps a gradient while D wins.

    Args:
        real_logits: r, (B,).
        fake_logits: f, (B,).
    """
    return F.softplus(-widen(real_logits)).mean() + F.softplus(widen(fake_logits)).mean()


def least_squares(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    """Return D's loss E[(r - 1)^2] / 2 + E[f^2] / 2; the generator minimises E[(f - 1)^2] / 2.

    Mao et al. 2017, arXiv:1611.04076, with targets 0, 1 and 1.

    Args:
        real_logits: r, (B,).
        fake_logits: f, (B,).
    """
    return ((widen(real_logits) - 1).square().mean() + widen(fake_logits).square().mean()) / 2


def hinge(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    """Return D's loss E[max(0, 1 - r)] + E[max(0, 1 + f)]; the generator minimises -E[f].

    Lim and Ye 2017, arXiv:1705.02894.

    Args:
        real_logits: r, (B,).
        fake_logits: f, (B,).
    """
    return F.relu(1 - widen(real_logits)).mean() + F.relu(1 + widen(fake_logits)).mean()


def wasserstein(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    """Return D's loss E[f] - E[r]; the generator minimises -E[f].

    Arjovsky et al. 2017, arXiv:1701.07875. It is bounded only while D is kept Lipschitz: clip its
    weights, or add a penalty of `losses/gradient_penalty.py`.

    Args:
        real_logits: r, (B,).
        fake_logits: f, (B,).
    """
    return widen(fake_logits).mean() - widen(real_logits).mean()


def relativistic(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    """Return D's loss E[softplus(f - r)] over pairs; the generator minimises E[softplus(r - f)].

    Jolicoeur-Martineau 2018, arXiv:1807.00734, as paired by Huang et al. 2024, arXiv:2501.05441.

    Args:
        real_logits: r, (B,).
        fake_logits: f, (B,), row i of the same condition as row i of r.

    Raises:
        ValueError: If the numbers differ.
    """
    check_same_shape(real_logits=real_logits, fake_logits=fake_logits)
    return F.softplus(widen(fake_logits) - widen(real_logits)).mean()


def classification_loss(class_logits: torch.Tensor, class_labels: torch.Tensor) -> torch.Tensor:
    """Return the loss of an auxiliary classifier in D (Odena et al. 2017, arXiv:1610.09585).

    Args:
        class_logits: (B, K).
        class_labels: Class of each image, int64 (B,): mean of -log softmax; or attributes, (B, K) of
            bool or of numbers in [0, 1]: mean over all B K of the binary cross-entropy.

    Returns:
        A scalar in nats.

    Raises:
        ValueError: If the shapes do not fit.
    """
    if class_labels.ndim == 1:
        check_same_shape(class_labels=class_labels, rows=class_logits[:, 0])
        return F.cross_entropy(widen(class_logits), class_labels)
    check_same_shape(class_labels=class_labels, class_logits=class_logits)
    logits = widen(class_logits)
    return F.binary_cross_entropy_with_logits(logits, class_labels.to(logits.dtype))


_DISCRIMINATOR: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "non_saturating": non_saturating,
    "least_squares": least_squares,
    "hinge": hinge,
    "wasserstein": wasserstein,
    "relativistic": relativistic,
}
_GENERATOR: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "non_saturating": lambda fake: F.softplus(-fake),
    "least_squares": lambda fake: (fake - 1).square() / 2,
    "hinge": torch.neg,
    "wasserstein": torch.neg,
}


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is unknown. Choose from: {', '.join(KINDS)}.")
