"""Bidirectional cross-attention: a decoder that looks at each half of the source by itself.

Every block has two cross-attentions, one over the first half of the encoder's states and one over
the second half, and a learned gate that merges what they found.

Shapes are written with these letters: B batch, T tokens of the target, S tokens of the source, D
hidden_size, K key and value heads, C channels of a head.
"""

from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import EncoderDecoderCache, PreTrainedConfig
from transformers.masking_utils import create_bidirectional_mask

from .attention import CrossAttention, compute_once
from .layers import sinusoids
from .linear import Linear


class SourceHalves(NamedTuple):
    """Where the two halves of each source lie; the same for all layers.

    Attributes:
        in_first: Whether a token belongs to the first half, (B, S).
        has_second: Whether there is a second half, (B,): a source of one token has none.
        positions: Encodings of the tokens' positions in their half, (B, S, D), or `None` where keys
            are read from the cache.
        first_mask: What the attention implementation wants to see the first half only.
        second_mask: The same for the second half.
    """

    in_first: torch.Tensor
    has_second: torch.Tensor
    positions: torch.Tensor | None
    first_mask: Any
    second_mask: Any


def split_source(
    config: PreTrainedConfig,
    queries: torch.Tensor,
    states: torch.Tensor,
    attention_mask: torch.Tensor | None,
    with_positions: bool,
) -> SourceHalves:
    """Split every source in the middle of its own tokens; of an odd number, the first half has more.

    Time runs in both halves from the outside to the middle: the first half counts its tokens from 0
    at the first one, the second half counts backwards, from 0 at the last one.

    Args:
        config: Configuration of the model.
        queries: States that attend, (B, n * T, D), n rows of one source behind each other.
        states: States of the source, (B, S, D).
        attention_mask: 1 for tokens and 0 for padding on either side, (B, S), or `None`.
        with_positions: Whether keys are to be computed.

    Returns:
        The halves.

    Raises:
        ValueError: If the mask is not of that shape.
    """
    if attention_mask is None:
        attention_mask = states.new_ones(states.shape[:2], dtype=torch.long)
    if attention_mask.ndim != 2:
        raise ValueError(
            "Bidirectional cross-attention needs a padding mask of shape (batch, source length) to "
            f"find the middle of each source, not one of {attention_mask.ndim} dimensions."
        )
    is_token = attention_mask.bool()
    index = is_token.long().cumsum(-1) - 1
    length = is_token.sum(-1, keepdim=True)
    in_first = index < (length + 1) // 2
    has_second = length.squeeze(1) > 1
    # An empty half sees anything at all: an attention over nothing is not a number.
    in_second = torch.where(has_second[:, None], ~in_first, in_first) & is_token
    positions = None
    if with_positions:
        from_outside = torch.where(in_first, index, length - 1 - index).clamp(min=0)
        positions = sinusoids(from_outside, states.shape[-1]).to(states.dtype)
    first_mask, second_mask = (
        create_bidirectional_mask(
            config=config, inputs_embeds=queries, attention_mask=half, encoder_hidden_states=states
        )
        for half in (in_first & is_token, in_second)
    )
    return SourceHalves(in_first, has_second, positions, first_mask, second_mask)


class HalfAttention(CrossAttention):
    """One of the two cross-attentions; its keys know positions, its values do not."""

    fusable = ()

    def project_half(
        self, states: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values, each (B, K, S, C), of states (B, S, D) at positions (B, S, D)."""
        key = self.split_heads(self.k_proj(states + positions), is_normed=True)
        return key, self.split_heads(self.v_proj(states), is_normed=False)


class BidirectionalCrossAttention(nn.Module):
    """Cross-attention over each half of the source, merged by a gate.

    With a over the first half and b over the second, the output is g a + (1 - g) b with the gate
    g = sigmoid(W [a; b]). Without a second half b is zero. A token has its key and value from the
    attention to which it belongs, so that the cache is as large as with one attention.

    Args:
        config: Configuration of the model.
        layer_idx: Number of the layer in the cross-attention's cache.
    """

    def __init__(self, config: PreTrainedConfig, layer_idx: int):
        super().__init__()
        self.layer_idx = layer_idx
        self.first = HalfAttention(config, layer_idx)
        self.second = HalfAttention(config, layer_idx)
        self.gate = Linear(2 * config.hidden_size, config.hidden_size, bias=config.use_bias)

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        halves: SourceHalves,
        past_key_values: EncoderDecoderCache | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend to both halves.

        Args:
            hidden_states: (B * n, T, D); see [`CrossAttention`].
            encoder_hidden_states: (B, S, D).
            halves: Where they lie.
            past_key_values: Cache that is filled at the first call and read at the next ones.
            **kwargs: Passed to the attention implementation.

        Returns:
            The output (B * n, T, D) and, if the implementation computes them, the mean of both
            attentions' weights (B * n, H, T, S), which sums to one over the source.
        """
        key, value = compute_once(
            past_key_values,
            self.layer_idx,
            lambda: self._project(encoder_hidden_states, halves),
        )
        first, first_weights = self.first.attend_memory(
            hidden_states, key, value, halves.first_mask, **kwargs
        )
        second, second_weights = self.second.attend_memory(
            hidden_states, key, value, halves.second_mask, **kwargs
        )
        has_second = halves.has_second.repeat_interleave(len(hidden_states) // len(key))
        second = second * has_second[:, None, None]
        gate = torch.sigmoid(self.gate(torch.cat((first, second), dim=-1)))
        weights = None
        if first_weights is not None:  # those of an empty second half are the first's
            weights = (first_weights + second_weights) / 2
        return gate * first + (1 - gate) * second, weights

    def _project(
        self, states: torch.Tensor, halves: SourceHalves
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the keys and values (B, K, S, C), each token's from its own half."""
        in_first = halves.in_first[:, None, :, None]
        of_first = self.first.project_half(states, halves.positions)
        of_second = self.second.project_half(states, halves.positions)
        key, value = (torch.where(in_first, a, b) for a, b in zip(of_first, of_second, strict=True))
        return key, value


__all__ = ["BidirectionalCrossAttention", "SourceHalves", "split_source"]
