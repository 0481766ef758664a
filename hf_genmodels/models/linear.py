"""Linear layers that use the faster of torch's two matrix libraries on x86 CPUs.

In fp32, `torch.nn.functional.linear` calls MKL, which stays with AVX2 code on CPUs that are not
Intel's. oneDNN, which comes with the same torch, uses all that the CPU has (AVX-512, say) and needs
less than half the time, with the same rounding error. It works on the plain weights: nothing is
packed or cached, so nothing can go stale.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

_PLAIN_TENSORS = (torch.Tensor, nn.Parameter)
# Below so many multiplications, MKL is done before oneDNN has prepared itself: one row of decoding.
FEWEST_PRODUCTS = 1 << 20


def _onednn_is_available() -> bool:
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


ONEDNN_IS_AVAILABLE = _onednn_is_available()


def linear(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Return `input @ weight.T + bias` as `torch.nn.functional.linear` does, faster where possible.

    Args:
        input: (..., D).
        weight: (N, D), of any strides.
        bias: (N,), or `None`.

    Returns:
        The product (..., N), differentiable as often as wanted.
    """
    if not _suits_onednn(input, weight):
        return F.linear(input, weight, bias)
    if torch.is_grad_enabled() and (
        input.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    ):
        return _OneDNNLinear.apply(input, weight, bias)
    return _onednn_linear(input, weight, bias)


class Linear(nn.Linear):
    """`torch.nn.Linear` on [`linear`]: the same parameters, names and results."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Transform (..., in_features) into (..., out_features)."""
        return linear(input, self.weight, self.bias)


def _suits_onednn(input: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether both are plain fp32 tensors on the CPU, large, and nothing is being traced or cast."""
    return (
        ONEDNN_IS_AVAILABLE
        and input.dtype == weight.dtype == torch.float32
        and input.device.type == weight.device.type == "cpu"
        and type(input) in _PLAIN_TENSORS
        and type(weight) in _PLAIN_TENSORS
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not torch.is_autocast_enabled("cpu")
        and input.numel() * weight.shape[0] >= FEWEST_PRODUCTS
    )


def _onednn_linear(
    input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    if not weight.is_contiguous() and not weight.T.is_contiguous():
        weight = weight.contiguous()  # for gaps in a weight oneDNN has a reference code only
    return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")


class _OneDNNLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(input, weight)
        return _onednn_linear(input, weight, bias)

    @staticmethod
    def backward(ctx: Any, output_grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        wants_input, wants_weight, wants_bias = ctx.needs_input_grad
        input_grad = weight_grad = bias_grad = None
        rows = output_grad.reshape(-1, weight.shape[0])
        if wants_input:
            input_grad = linear(rows, weight.T).view(input.shape)
        if wants_weight:
            weight_grad = linear(rows.T, input.reshape(-1, weight.shape[1]).T)
        if wants_bias:
            bias_grad = rows.sum(0)
        return input_grad, weight_grad, bias_grad


__all__ = ["Linear", "linear"]
