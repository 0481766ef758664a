"""Layers that the model families share: norms, positions, MLP.

Shapes are written with these letters: B batch, T tokens, D hidden_size, H heads, C channels of a
head.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.utils.import_utils import is_tracing

from .linear import Linear


def inverse_root_mean_square(states: torch.Tensor, eps: float) -> torch.Tensor:
    """Return 1 / sqrt(mean(x^2) + eps) of fp32 states (..., C), as (..., 1)."""
    # Not as a product of vectors, which autocast would round to bf16.
    length = torch.linalg.vector_norm(states, dim=-1, keepdim=True)
    return length.square_().div_(states.shape[-1]).add_(eps).rsqrt_()


def norm_gradient(grad: torch.Tensor, normed: torch.Tensor) -> torch.Tensor:
    """Return the gradient (..., C) of x / rms(x) times rms(x), in fp32: without its part along x."""
    wide, normed = grad.float(), normed.float()
    along = torch.linalg.vecdot(wide, normed).div_(grad.shape[-1]).unsqueeze(-1)
    return torch.addcmul(wide, normed, along, value=-1)


class _RMSNormFunction(torch.autograd.Function):
    """Half the passes over memory of what autograd makes of the formula; torch has no CPU kernel."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, eps: float, dtype: torch.dtype) -> torch.Tensor:
        normed, inverse = _normed(states, eps, dtype)
        ctx.save_for_backward(normed, inverse)
        ctx.dtype = states.dtype
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        normed, inverse = ctx.saved_tensors
        return norm_gradient(grad, normed).mul_(inverse).to(ctx.dtype), None, None


def _normed(
    states: torch.Tensor, eps: float, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    wide = states.float()
    inverse = inverse_root_mean_square(wide, eps)
    return (wide * inverse).to(dtype), inverse


def rms_norm(states: torch.Tensor, eps: float, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Return x / sqrt(mean(x^2) + eps) over the last dimension, computed in fp32.

    Args:
        states: x, (..., C).
        eps: Added to the mean square.
        dtype: Of the result; `None`: that of the states.
    """
    dtype = dtype or states.dtype
    if not torch.is_grad_enabled():  # autograd's way in costs more than the norm of a few tokens
        return _normed(states, eps, dtype)[0]
    normed: torch.Tensor = _RMSNormFunction.apply(states, eps, dtype)
    return normed


def autocast_dtype(states: torch.Tensor) -> torch.dtype:
    """Return the type in which a product of these states is computed."""
    device = states.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states.dtype


class RMSNorm(nn.RMSNorm):
    """`torch.nn.RMSNorm` on [`rms_norm`]: the same parameters, names and results."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Normalise the last dimension of (..., D); under autocast in its type, as the next product is.

        With weights, the result stays in fp32 under autocast, as that of `torch.nn.RMSNorm`.
        """
        if self.elementwise_affine:
            return rms_norm(states, self.eps) * self.weight
        return rms_norm(states, self.eps, autocast_dtype(states))


def build_norm(config: PreTrainedConfig) -> nn.Module:
    """Return the norm over `hidden_size` that the configuration names."""
    if config.norm == "rmsnorm":
        return RMSNorm(
            config.hidden_size, eps=config.norm_eps, elementwise_affine=config.norm_affine
        )
    return nn.LayerNorm(
        config.hidden_size,
        eps=config.norm_eps,
        elementwise_affine=config.norm_affine,
        bias=config.use_bias,
    )


class _SquaredReLUFunction(torch.autograd.Function):
    """A fifth of the passes over memory of autograd's power and threshold."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor) -> torch.Tensor:
        positive = states.relu()
        ctx.save_for_backward(positive)
        return positive.square()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (positive,) = ctx.saved_tensors
        return (grad * positive).mul_(2)


def squared_relu(states: torch.Tensor) -> torch.Tensor:
    """Return max(x, 0)^2 (So et al. 2021, arXiv:2109.08668)."""
    if not torch.is_grad_enabled():
        return states.relu().square()
    squared: torch.Tensor = _SquaredReLUFunction.apply(states)
    return squared


def activation_function(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return an activation by its transformers name.

    `gelu_new` is the tanh form of GELU; torch's fused kernel computes it several times faster than
    the chain of elementwise operations.
    """
    if name in ("gelu_new", "gelu_pytorch_tanh"):
        return nn.GELU(approximate="tanh")
    return squared_relu if name == "relu2" else ACT2FN[name]


def sinusoids(position_ids: torch.Tensor, dim: int) -> torch.Tensor:
    """Return positions of any shape (...) as sines and cosines (..., dim) in fp32."""
    channels = torch.arange(0, dim, 2, dtype=torch.float, device=position_ids.device)
    angles = position_ids[..., None].float() * 10000.0 ** (-channels / dim)
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


class SinusoidalPositions(nn.Module):
    """Fixed sine and cosine positions of Vaswani et al. 2017 (arXiv:1706.03762), section 3.5.

    Args:
        num_positions: Number of positions in the table.
        dim: Width, even: sines in the first half, cosines in the second.
    """

    def __init__(self, num_positions: int, dim: int):
        super().__init__()
        self.num_positions = num_positions
        self.dim = dim
        self.register_buffer("table", self.make_table(), persistent=False)

    def make_table(self) -> torch.Tensor:
        """Return the table of positions, shape (num_positions, dim)."""
        return sinusoids(torch.arange(self.num_positions), self.dim)

    def forward(self, position_ids: torch.LongTensor) -> torch.Tensor:
        """Look positions of shape (B, T) up; returns (B, T, dim)."""
        return F.embedding(position_ids, self.table)


class RotaryPositions(nn.Module):
    """Angles of rotary positions (Su et al. 2021, arXiv:2104.09864).

    Args:
        dim: Channels of an attention head, even.
        theta: Base of the frequencies.
    """

    def __init__(self, dim: int, theta: float):
        super().__init__()
        self.dim = dim
        self.theta = theta

    def make_frequencies(self, device: torch.device | None = None) -> torch.Tensor:
        """Return the frequency of each pair of channels, shape (dim / 2,)."""
        channels = torch.arange(0, self.dim, 2, dtype=torch.float, device=device)
        return self.theta ** (-channels / self.dim)

    def forward(self, position_ids: torch.LongTensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cosine and sine of every angle, each (B, 1, T, dim), in fp32.

        The frequencies are computed afresh: as a buffer they would be rounded with a model that is
        cast to bf16, and far positions would get wrong angles.
        """
        frequencies = self.make_frequencies(position_ids.device)
        angles = position_ids[:, None, :, None].float() * frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()


def build_positions(config: PreTrainedConfig) -> tuple[nn.Module | None, RotaryPositions | None]:
    """Return the table of positions that is added to the input, or the rotary angles."""
    if config.position_embedding == "rotary":
        return None, RotaryPositions(config.head_dim, config.rope_theta)
    kind = nn.Embedding if config.position_embedding == "learned" else SinusoidalPositions
    return kind(config.max_position_embeddings, config.hidden_size), None


def check_last_position(position_ids: torch.LongTensor, limit: int) -> None:
    """Refuse a text that is longer than the table of positions.

    Elsewhere than on the CPU nothing is checked: the look would make the host wait for the device.

    Raises:
        ValueError: With both lengths.
    """
    if position_ids.device.type != "cpu" or is_tracing(position_ids):
        return
    length = int(position_ids.max()) + 1
    if length > limit:
        raise ValueError(
            f"A text of {length} tokens is longer than max_position_embeddings={limit}. "
            "Shorten it, or train with position_embedding: rotary."
        )


def apply_rotary(
    states: torch.Tensor, positions: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """Rotate the channel pairs (c, c + C/2) of (B, H, T, C) states by the angles of their positions."""
    cos, sin = (table.to(states.dtype) for table in positions)
    first, second = states.chunk(2, dim=-1)
    return states * cos + torch.cat((-second, first), dim=-1) * sin


class ResidualLinear(Linear):
    """A projection into the residual stream, which has initial weights of its own."""


class MLP(nn.Module):
    """Two linear layers with an activation between them.

    Args:
        config: Configuration of the model.
        dropout: Dropout after the activation.
    """

    def __init__(self, config: PreTrainedConfig, dropout: float = 0.0):
        super().__init__()
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, bias=config.use_bias)
        self.down_proj = ResidualLinear(
            config.intermediate_size, config.hidden_size, bias=config.use_bias
        )
        self.activation = activation_function(config.hidden_act)
        self.dropout = dropout

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Transform (B, T, D) into (B, T, D), each token by itself."""
        activated = self.activation(self.up_proj(hidden_states))
        if self.dropout and self.training:
            activated = F.dropout(activated, self.dropout)
        return self.down_proj(activated)
