"""Layers that the model families share: norms, positions, attention, MLP.

Shapes are written with these letters: B batch, T tokens, D hidden_size, H query heads, K key and
value heads, C channels of a head, V vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from transformers import Cache, PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .linear import Linear


class _RMSNormFunction(torch.autograd.Function):
    """Half the passes over memory of what autograd makes of the formula; torch has no CPU kernel."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, eps: float) -> torch.Tensor:
        mean_square = torch.linalg.vecdot(states, states).div_(states.shape[-1])
        inverse = mean_square.add_(eps).rsqrt_().unsqueeze(-1)
        normed = states * inverse
        ctx.save_for_backward(normed, inverse)
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        normed, inverse = ctx.saved_tensors
        along = torch.linalg.vecdot(grad, normed).div_(grad.shape[-1]).unsqueeze(-1)
        return torch.addcmul(grad, normed, along, value=-1).mul_(inverse), None


def rms_norm(states: torch.Tensor, eps: float) -> torch.Tensor:
    """Return x / sqrt(mean(x^2) + eps) over the last dimension, computed in fp32."""
    return _RMSNormFunction.apply(states.float(), eps).to(states.dtype)


class RMSNorm(nn.RMSNorm):
    """`torch.nn.RMSNorm` on [`rms_norm`]: the same parameters, names and results."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Normalise the last dimension of (..., D)."""
        normed = rms_norm(states, self.eps)
        return normed * self.weight if self.elementwise_affine else normed


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


def activation_function(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return an activation by its transformers name.

    `gelu_new` is the tanh form of GELU; torch's fused kernel computes it several times faster than
    the chain of elementwise operations.
    """
    if name in ("gelu_new", "gelu_pytorch_tanh"):
        return nn.GELU(approximate="tanh")
    return ACT2FN[name]


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
        frequencies = 10000.0 ** (-torch.arange(0, self.dim, 2, dtype=torch.float) / self.dim)
        angles = torch.outer(torch.arange(self.num_positions, dtype=torch.float), frequencies)
        return torch.cat((angles.sin(), angles.cos()), dim=-1)

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


def apply_rotary(
    states: torch.Tensor, positions: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """Rotate the channel pairs (c, c + C/2) of (B, H, T, C) states by the angles of their positions."""
    cos, sin = (table.to(states.dtype) for table in positions)
    first, second = states.chunk(2, dim=-1)
    return states * cos + torch.cat((-second, first), dim=-1) * sin


def repeat_key_value_heads(states: torch.Tensor, groups: int) -> torch.Tensor:
    """Repeat each of the K heads of (B, K, T, C) for its group of query heads: (B, K * groups, T, C)."""
    return states if groups == 1 else states.repeat_interleave(groups, dim=1)


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention in plain operations, which also returns its weights.

    Args:
        module: The attention layer, for its number of key-value groups and its mode.
        query: (B, H, T, C).
        key: (B, K, S, C).
        value: (B, K, S, C).
        attention_mask: Mask that broadcasts to (B, H, T, S), additive or true where a token may be
            seen, or `None`.
        scaling: Factor of the scores.
        dropout: Probability of dropping an attention weight.
        **kwargs: Options of other attention implementations, not used here.

    Returns:
        The output (B, T, H, C) and the attention weights (B, H, T, S).
    """
    key = repeat_key_value_heads(key, module.num_key_value_groups)
    value = repeat_key_value_heads(value, module.num_key_value_groups)
    scores = torch.matmul(query, key.transpose(-1, -2)) * scaling
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    elif attention_mask is not None:
        scores = scores + attention_mask
    weights = F.softmax(scores, dim=-1, dtype=torch.float).to(query.dtype)
    weights = F.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class ResidualLinear(Linear):
    """A projection into the residual stream, which has initial weights of its own."""


class SelfAttention(nn.Module):
    """Causal self-attention with grouped key-value heads, QK-norm and value embeddings.

    Args:
        config: Configuration of the model.
        layer_idx: Number of the layer, for the cache.
        has_value_embedding: Whether a token's value embedding is mixed into its values.
    """

    def __init__(self, config: PreTrainedConfig, layer_idx: int, has_value_embedding: bool = False):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling = self.head_dim**-0.5
        self.qk_norm, self.norm_eps = config.qk_norm, config.norm_eps
        self.attention_dropout = config.attention_dropout
        self.is_causal = True
        query_size = config.num_attention_heads * self.head_dim
        key_value_size = config.num_key_value_heads * self.head_dim
        self.q_proj = Linear(config.hidden_size, query_size, bias=config.use_bias)
        self.k_proj = Linear(config.hidden_size, key_value_size, bias=config.use_bias)
        self.v_proj = Linear(config.hidden_size, key_value_size, bias=config.use_bias)
        self.o_proj = ResidualLinear(query_size, config.hidden_size, bias=config.use_bias)
        # One layer for all three, where they are fused for inference.
        self.qkv_proj: nn.Module | None = None
        self.qkv_sizes = (query_size, key_value_size, key_value_size)
        self.value_mix = nn.Parameter(torch.full((2,), 0.5)) if has_value_embedding else None

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        rotary: tuple[torch.Tensor, torch.Tensor] | None = None,
        value_embedding: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend to all earlier tokens.

        Args:
            hidden_states: (B, T, D).
            attention_mask: What `create_causal_mask` made, or `None` for plain causality.
            rotary: Cosine and sine of the positions, if they are rotary.
            value_embedding: (B, T, K * C), if this layer mixes one in.
            past_key_values: Cache that is read and extended.
            **kwargs: Passed to the attention implementation.

        Returns:
            The output (B, T, D) and the attention weights (B, H, T, S), if the implementation
            computes them.
        """
        heads = (*hidden_states.shape[:-1], -1, self.head_dim)
        query, key, value = self._project(hidden_states)
        query = query.view(heads).transpose(1, 2)  # (B, H, T, C)
        key = key.view(heads).transpose(1, 2)  # (B, K, T, C)
        if value_embedding is not None:
            value_embedding = value_embedding.to(value.dtype)  # differs under autocast
            value = self.value_mix[0] * value + self.value_mix[1] * value_embedding
        value = value.view(heads).transpose(1, 2)

        if self.qk_norm:
            query = rms_norm(query, self.norm_eps)
            key = rms_norm(key, self.norm_eps)
        if rotary is not None:
            query, key = apply_rotary(query, rotary), apply_rotary(key, rotary)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)

        attention = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, weights = attention(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.o_proj(output.flatten(-2)), weights

    def _project(self, hidden_states: torch.Tensor) -> Sequence[torch.Tensor]:
        """Return queries (B, T, H * C), keys and values (B, T, K * C), heads side by side."""
        if self.qkv_proj is not None:
            fused: torch.Tensor = self.qkv_proj(hidden_states)
            return fused.split(self.qkv_sizes, dim=-1)
        return self.q_proj(hidden_states), self.k_proj(hidden_states), self.v_proj(hidden_states)


class MLP(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, bias=config.use_bias)
        self.down_proj = ResidualLinear(
            config.intermediate_size, config.hidden_size, bias=config.use_bias
        )
        self.activation = activation_function(config.hidden_act)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Transform (B, T, D) into (B, T, D), each token by itself."""
        return self.down_proj(self.activation(self.up_proj(hidden_states)))
