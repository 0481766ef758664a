"""Attention that the model families share: self-attention and cross-attention.

Shapes are written with these letters: B batch, T tokens, S tokens that are attended to, D
hidden_size, H query heads, K key and value heads, C channels of a head.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import Cache, EncoderDecoderCache, PreTrainedConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .head_positions import norm_and_rotate
from .layers import ResidualLinear, apply_rotary, autocast_dtype, rms_norm
from .linear import Linear
from .short_attention import short_attention, suits_short_attention


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


class Attention(nn.Module):
    """What every attention has: projections, grouped key-value heads, QK-norm.

    Args:
        config: Configuration of the model.
        layer_idx: Number of the layer, for the cache.
        is_causal: Whether a token sees earlier tokens only.
    """

    fusable: tuple[str, ...] = ()  # projections of the same input

    def __init__(self, config: PreTrainedConfig, layer_idx: int, is_causal: bool):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.scaling = config.attention_scale * self.head_dim**-0.5
        self.qk_norm, self.norm_eps = config.qk_norm, config.norm_eps
        self.attention_dropout = config.attention_dropout
        self.is_causal = is_causal
        query_size = config.num_attention_heads * self.head_dim
        key_value_size = config.num_key_value_heads * self.head_dim
        self.q_proj = Linear(config.hidden_size, query_size, bias=config.use_bias)
        self.k_proj = Linear(config.hidden_size, key_value_size, bias=config.use_bias)
        self.v_proj = Linear(config.hidden_size, key_value_size, bias=config.use_bias)
        self.o_proj = ResidualLinear(query_size, config.hidden_size, bias=config.use_bias)
        # One layer for the fusable ones, where they are fused for inference.
        self.fused_proj: nn.Module | None = None
        self.fused_sizes = [self.get_submodule(name).out_features for name in self.fusable]

    def split_heads(self, states: torch.Tensor, is_normed: bool) -> torch.Tensor:
        """Return (B, T, heads * C) as (B, heads, T, C), normalised if `is_normed` and configured."""
        states = states.view(*states.shape[:-1], -1, self.head_dim).transpose(1, 2)
        return rms_norm(states, self.norm_eps) if is_normed and self.qk_norm else states

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend with the implementation that the configuration names.

        Args:
            query: (B, H, T, C).
            key: (B, K, S, C).
            value: (B, K, S, C).
            attention_mask: What transformers' mask functions made.
            **kwargs: Passed to the attention implementation.

        Returns:
            The output (B, T, D) and the attention weights (B, H, T, S), if the implementation
            computes them.
        """
        name = self.config._attn_implementation
        dropout = self.attention_dropout if self.training else 0.0
        if (
            (name, attention_mask, dropout) == ("sdpa", None, 0.0)
            and self.is_causal
            and suits_short_attention(query, key)
        ):
            groups = self.num_key_value_groups
            key, value = (repeat_key_value_heads(states, groups) for states in (key, value))
            # Normalised queries and keys have a length of sqrt(C).
            largest_score = self.scaling * self.head_dim if self.qk_norm else math.inf
            output = short_attention(query, key, value, self.scaling, largest_score)
            return self.o_proj(output.flatten(-2)), None
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(name, eager_attention_forward)
        output, weights = attention(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=self.scaling,
            **kwargs,
        )
        return self.o_proj(output.flatten(-2)), weights


class SelfAttention(Attention):
    """Self-attention, causal if not said otherwise, with value embeddings.

    Args:
        config: Configuration of the model.
        layer_idx: Number of the layer, for the cache.
        has_value_embedding: Whether a token's value embedding is mixed into its values.
        is_causal: Whether a token sees earlier tokens only.
    """

    fusable = ("q_proj", "k_proj", "v_proj")

    def __init__(
        self,
        config: PreTrainedConfig,
        layer_idx: int,
        has_value_embedding: bool = False,
        is_causal: bool = True,
    ):
        super().__init__(config, layer_idx, is_causal)
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
        """Attend to all tokens, or to all earlier ones.

        Args:
            hidden_states: (B, T, D).
            attention_mask: What `create_causal_mask` or `create_bidirectional_mask` made; `None`
                hides nothing but later tokens, and those only if causal.
            rotary: Cosine and sine of the positions, if they are rotary.
            value_embedding: (B, T, K * C), if this layer mixes one in.
            past_key_values: Cache that is read and extended.
            **kwargs: Passed to the attention implementation.

        Returns:
            The output (B, T, D) and the attention weights (B, H, T, S), if the implementation
            computes them.
        """
        query, key, value = self._project(hidden_states)
        if value_embedding is not None:
            value_embedding = value_embedding.to(value.dtype)  # differs under autocast
            value = self.value_mix[0] * value + self.value_mix[1] * value_embedding
        query, key = self._place(query, rotary), self._place(key, rotary)
        value = self.split_heads(value, is_normed=False)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        return self.attend(query, key, value, attention_mask, **kwargs)

    def _place(
        self, states: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor] | None
    ) -> torch.Tensor:
        """Return queries or keys (B, T, heads * C) as (B, heads, T, C), normalised and rotated."""
        if rotary is not None and self.qk_norm and torch.is_grad_enabled():
            return norm_and_rotate(self.split_heads(states, False), rotary, self.norm_eps)
        heads = self.split_heads(states, is_normed=True)
        return heads if rotary is None else apply_rotary(heads, rotary)

    def _project(self, hidden_states: torch.Tensor) -> Sequence[torch.Tensor]:
        """Return queries (B, T, H * C), keys and values (B, T, K * C), heads side by side."""
        hidden_states = hidden_states.to(autocast_dtype(hidden_states))  # once, not for each
        if self.fused_proj is not None:
            fused: torch.Tensor = self.fused_proj(hidden_states)
            return fused.split(self.fused_sizes, dim=-1)
        return self.q_proj(hidden_states), self.k_proj(hidden_states), self.v_proj(hidden_states)


class CrossAttention(Attention):
    """Attention of a decoder over the states of an encoder, whose keys are computed once.

    Beams share them: B sentences can be attended to by B * n rows, n beams of a sentence side by
    side. Keys and values, also in the cache, then stay those of B sentences.

    Args:
        config: Configuration of the model.
        layer_idx: Number of the layer in the cross-attention's cache.
    """

    fusable = ("k_proj", "v_proj")

    def __init__(self, config: PreTrainedConfig, layer_idx: int):
        super().__init__(config, layer_idx, is_causal=False)

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend to all states of the encoder.

        Args:
            hidden_states: (B * n, T, D).
            encoder_hidden_states: (B, S, D).
            attention_mask: What `create_bidirectional_mask` made for queries (B, n * T), or `None`
                if there is no padding.
            past_key_values: Cache that is filled at the first call and read at the next ones.
            **kwargs: Passed to the attention implementation.

        Returns:
            The output (B * n, T, D) and the attention weights (B * n, H, T, S), if the
            implementation computes them.
        """
        key, value = compute_once(
            past_key_values,
            self.layer_idx,
            lambda: self.project_memory(encoder_hidden_states),
        )
        return self.attend_memory(hidden_states, key, value, attention_mask, **kwargs)

    def project_memory(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values, each (B, K, S, C), of states (B, S, D)."""
        if self.fused_proj is not None:
            key, value = self.fused_proj(states).split(self.fused_sizes, dim=-1)
        else:
            key, value = self.k_proj(states), self.v_proj(states)
        return self.split_heads(key, is_normed=True), self.split_heads(value, is_normed=False)

    def attend_memory(
        self,
        hidden_states: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend from (B * n, T, D) to keys and values (B, K, S, C); returns as `forward` does."""
        beams = hidden_states.shape[0] // key.shape[0]
        folded = fold_beams(hidden_states, key.shape[0])
        query = self.split_heads(self.q_proj(folded), is_normed=True)
        output, weights = self.attend(query, key, value, attention_mask, **kwargs)
        if weights is not None and beams > 1:
            weights = weights.unflatten(2, (beams, -1)).transpose(1, 2).flatten(0, 1)
        return output.view(hidden_states.shape), weights


def fold_beams(states: torch.Tensor, rows: int) -> torch.Tensor:
    """Return (B * n, T, D) as (B, n * T, D) for B `rows`: beams of one sentence behind each other."""
    return states.reshape(rows, -1, states.shape[-1])


def compute_once(
    cache: EncoderDecoderCache | None,
    layer_idx: int,
    compute: Callable[[], tuple[torch.Tensor, torch.Tensor]],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return keys and values of the cross-attention's cache, computing them if they are missing."""
    if cache is None:
        return compute()
    if cache.is_updated.get(layer_idx):
        layer: Any = cache.cross_attention_cache.layers[layer_idx]
        return layer.keys, layer.values
    key, value = cache.cross_attention_cache.update(*compute(), layer_idx)
    cache.is_updated[layer_idx] = True
    return key, value


__all__ = ["Attention", "CrossAttention", "SelfAttention", "compute_once", "fold_beams"]
