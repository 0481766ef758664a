"""Penalties on the gradient of a discriminator D, and clipping of its weights.

Images may be clips, (B, T, C, H, W), as well. Letters: B images of a batch, g_i the gradient of image i's score. Each g_i is taken as the gradient of
the sum of all scores, which is right where the score of an image depends on this image alone: not with
BatchNorm in D. All penalties can be differentiated once more, by the weights of D.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from hf_genmodels.losses.reduction import check_same_shape, widen

Critic = Callable[[torch.Tensor], torch.Tensor]


def zero_centered(logits: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """Return E[|g|^2]: R1 on real images, R2 on drawn ones (Mescheder et al. 2018, arXiv:1801.04406).

    The papers weigh it with gamma / 2.

    Args:
        logits: Scores of the inputs, (B,), or several scores for each.
        inputs: Images, (B, C, H, W), that required a gradient when their scores were computed.

    Returns:
        A scalar, at least 0.

    Raises:
        ValueError: If the inputs do not require a gradient.
    """
    return _squared_norms(logits, inputs).mean()


def interpolated(
    critic: Critic, real: torch.Tensor, fake: torch.Tensor, mix: torch.Tensor
) -> torch.Tensor:
    """Return E[(|g| - 1)^2] at u x + (1 - u) y (WGAN-GP; Gulrajani et al. 2017, arXiv:1704.00028).

    The paper weighs it with 10.

    Args:
        critic: From images (B, C, H, W) to scores (B,).
        real: x, (B, C, H, W).
        fake: y, (B, C, H, W).
        mix: u, uniform on [0, 1], (B, 1, 1, 1).

    Returns:
        A scalar, at least 0.

    Raises:
        ValueError: If the shapes differ.
    """
    between = _between(real, fake, mix)
    (gradients,) = _gradients(critic(between), between)
    # vector_norm has the derivative 0 at 0, where that of a square root is infinite.
    norms = torch.linalg.vector_norm(widen(gradients).flatten(1), dim=1)
    return (norms - 1).square().mean()


def wasserstein_divergence(
    critic: Critic,
    real: torch.Tensor,
    fake: torch.Tensor,
    mix: torch.Tensor,
    power: float = 6,
    weight: float = 2,
) -> torch.Tensor:
    """Return k E[|g|^p] at u x + (1 - u) y (WGAN-div; Wu et al. 2018, arXiv:1712.01026).

    Args:
        critic: From images (B, C, H, W) to scores (B,).
        real: x, (B, C, H, W).
        fake: y, (B, C, H, W).
        mix: u, uniform on [0, 1], (B, 1, 1, 1).
        power: p, at least 2.
        weight: k.

    Returns:
        A scalar, at least 0.

    Raises:
        ValueError: If the shapes differ or the power is too small.
    """
    between = _between(real, fake, mix)
    return _power_of_norms(critic(between), (between,), power, weight)


def matching_aware(
    logits: torch.Tensor,
    images: torch.Tensor,
    sentences: torch.Tensor,
    power: float = 6,
    weight: float = 2,
) -> torch.Tensor:
    """Return k E[|(g_image, g_sentence)|^p] for real images with their own text.

    The matching-aware penalty of DF-GAN (Tao et al. 2022, arXiv:2008.05865): the norm of both gradients
    together, as the authors compute it, where the paper's equation adds two norms.

    Args:
        logits: Scores of the pairs, (B,).
        images: Real images, (B, C, H, W), that required a gradient when the scores were computed.
        sentences: Vectors of their texts, (B, D), likewise.
        power: p, at least 2.
        weight: k.

    Returns:
        A scalar, at least 0.

    Raises:
        ValueError: If the inputs do not require a gradient or the power is too small.
    """
    return _power_of_norms(logits, (images, sentences), power, weight)


def clip_weights(module: torch.nn.Module, bound: float) -> None:
    """Clip all parameters to [-bound, bound] in place (Arjovsky et al. 2017, arXiv:1701.07875).

    Args:
        module: D, after each of its steps.
        bound: More than 0; 0.01 in the paper.

    Raises:
        ValueError: If the bound is not positive.
    """
    if bound <= 0:
        raise ValueError(f"bound={bound} must be more than 0.")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.clamp_(-bound, bound)


def _between(real: torch.Tensor, fake: torch.Tensor, mix: torch.Tensor) -> torch.Tensor:
    """Return points between real and drawn images, a leaf that requires a gradient."""
    check_same_shape(real=real, fake=fake)
    check_same_shape(mix=mix, images=real.flatten(1)[:, :1].view(-1, *[1] * (real.ndim - 1)))
    return (mix * real + (1 - mix) * fake).detach().requires_grad_()


def _gradients(logits: torch.Tensor, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    if not all(tensor.requires_grad for tensor in inputs):
        raise ValueError(
            "A gradient penalty needs inputs that require a gradient: call requires_grad_() on them "
            "before the discriminator sees them."
        )
    return torch.autograd.grad(logits.sum(), inputs, create_graph=True)


def _squared_norms(logits: torch.Tensor, *inputs: torch.Tensor) -> torch.Tensor:
    """Return the squared norm of each row's gradient over all inputs together, (B,)."""
    parts = [widen(part).flatten(1).square().sum(dim=1) for part in _gradients(logits, *inputs)]
    return torch.stack(parts).sum(dim=0)


def _power_of_norms(
    logits: torch.Tensor, inputs: tuple[torch.Tensor, ...], power: float, weight: float
) -> torch.Tensor:
    if power < 2:
        raise ValueError(
            f"power={power} must be at least 2: less has no derivative at a gradient of 0."
        )
    return weight * _squared_norms(logits, *inputs).pow(power / 2).mean()
