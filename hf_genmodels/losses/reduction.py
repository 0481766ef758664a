"""From losses of single rows to one figure."""

from __future__ import annotations

import torch


def widen(values: torch.Tensor) -> torch.Tensor:
    """Return floating-point values in fp32, or in fp64 if they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def token_mean(
    total: torch.Tensor, count: int | torch.Tensor, num_items: int | torch.Tensor | None
) -> torch.Tensor:
    """Divide a sum over rows.

    Args:
        total: The sum, a scalar.
        count: Rows in it.
        num_items: Divide by this instead of by `count`.

    Returns:
        The mean; 0 where no row counts.
    """
    divisor = count if num_items is None else num_items
    return total / (divisor.clamp(min=1) if torch.is_tensor(divisor) else max(divisor, 1))


def check_same_shape(**tensors: torch.Tensor) -> None:
    """Refuse two tensors of different shapes, which broadcasting would silently accept.

    Args:
        tensors: The two tensors by name.

    Raises:
        ValueError: If the shapes differ.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:
        said = " and ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"The shapes must be equal, but are: {said}.")
