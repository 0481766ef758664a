"""Norm and rotation of queries and keys in one step, as training does them.

Written as single operations, norm and rotation cost more of a small model's training step than its
attention does: each is a pass over memory, forwards and backwards, and keeps its result. A rotation
changes no lengths, so the gradient needs the output alone, which attention keeps anyway.

Shapes are written with these letters: B batch, H heads, T tokens, C channels of a head.
"""

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from .layers import inverse_root_mean_square, norm_gradient


def norm_and_rotate(
    states: torch.Tensor, positions: tuple[torch.Tensor, torch.Tensor], eps: float
) -> torch.Tensor:
    """Return `apply_rotary(rms_norm(states, eps), positions)`, computed in fp32.

    Args:
        states: (B, H, T, C).
        positions: Cosine and sine of the angles, each (B or 1, 1, T, C), the same in both halves of C.
        eps: Added to the mean square.

    Returns:
        The same shape and type, differentiable once, contiguous.
    """
    turned: torch.Tensor = _NormAndRotate.apply(states, *positions, eps)
    return turned


class _NormAndRotate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, eps: float
    ) -> torch.Tensor:
        wide = states.contiguous().float()
        inverse = inverse_root_mean_square(wide, eps)
        turned = _rotated(wide, cos, sin).mul_(inverse).to(states.dtype)
        ctx.save_for_backward(turned, inverse, cos, sin)
        return turned

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        turned, inverse, cos, sin = ctx.saved_tensors
        across = norm_gradient(grad, turned)
        return _rotated(across, cos, -sin).mul_(inverse).to(turned.dtype), None, None, None


def _rotated(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = states.shape[-1] // 2
    turned = states * cos
    turned[..., :half].addcmul_(states[..., half:], sin[..., half:], value=-1)
    turned[..., half:].addcmul_(states[..., :half], sin[..., :half])
    return turned


__all__ = ["norm_and_rotate"]
