"""Blocks of the encoder-decoder Transformer.

Shapes are written with these letters: B batch, S tokens of the source, T tokens of the target,
U tokens of the draft, D hidden_size.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import EncoderDecoderCache
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention import CrossAttention, SelfAttention
from .bidirectional_attention import BidirectionalCrossAttention, SourceHalves
from .configuration_seq2seq import GenSeq2SeqConfig
from .layers import MLP, build_norm


class GenSeq2SeqBlock(GradientCheckpointingLayer):
    """What the blocks share: how a sublayer is added to the residual stream."""

    def __init__(self, config: GenSeq2SeqConfig):
        super().__init__()
        self.norms_first = config.norm_position == "pre"
        self.dropout = config.residual_dropout

    def add(
        self,
        residual: torch.Tensor,
        norm: nn.Module,
        sublayer: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """Return residual + sublayer(norm(residual)), or norm(residual + sublayer(residual))."""
        states = sublayer(norm(residual) if self.norms_first else residual)
        if self.training:
            states = F.dropout(states, self.dropout)
        return residual + states if self.norms_first else norm(residual + states)


class GenSeq2SeqEncoderBlock(GenSeq2SeqBlock):
    """Self-attention and MLP."""

    def __init__(self, config: GenSeq2SeqConfig, layer_idx: int):
        super().__init__(config)
        self.attn_norm = build_norm(config)
        self.attn = SelfAttention(config, layer_idx, is_causal=False)
        self.mlp_norm = build_norm(config)
        self.mlp = MLP(config, config.activation_dropout)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        rotary: tuple[torch.Tensor, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Transform (B, S, D) into (B, S, D); the arguments are those of the attention."""
        hidden_states = self.add(
            hidden_states,
            self.attn_norm,
            lambda states: self.attn(states, attention_mask, rotary, **kwargs)[0],
        )
        return self.add(hidden_states, self.mlp_norm, self.mlp)


class GenSeq2SeqDecoderBlock(GenSeq2SeqBlock):
    """Causal self-attention, cross-attention over the source and MLP."""

    def __init__(self, config: GenSeq2SeqConfig, layer_idx: int):
        super().__init__(config)
        self.attn_norm = build_norm(config)
        self.attn = SelfAttention(config, layer_idx)
        self.cross_attn_norm = build_norm(config)
        is_full = config.cross_attention == "full"
        cross_attention = CrossAttention if is_full else BidirectionalCrossAttention
        self.cross_attn = cross_attention(config, layer_idx)
        self.mlp_norm = build_norm(config)
        self.mlp = MLP(config, config.activation_dropout)

    def forward(
        self, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, **kwargs: Any
    ) -> torch.Tensor:
        """Transform (B, T, D) into (B, T, D), looking at the source (B, S, D)."""
        hidden_states = self.attend_target_and_source(
            hidden_states, encoder_hidden_states, **kwargs
        )
        return self.add(hidden_states, self.mlp_norm, self.mlp)

    def attend_target_and_source(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | SourceHalves | None = None,
        rotary: tuple[torch.Tensor, torch.Tensor] | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Add what the target's earlier tokens say and what the source says."""
        own_cache = None if past_key_values is None else past_key_values.self_attention_cache
        hidden_states = self.add(
            hidden_states,
            self.attn_norm,
            lambda states: self.attn(
                states, attention_mask, rotary, past_key_values=own_cache, **kwargs
            )[0],
        )
        return self.add(
            hidden_states,
            self.cross_attn_norm,
            lambda states: self.cross_attn(
                states, encoder_hidden_states, encoder_attention_mask, past_key_values, **kwargs
            )[0],
        )


class GenSeq2SeqRefinementBlock(GenSeq2SeqDecoderBlock):
    """A decoder's block with one more attention, over the states of a draft."""

    def __init__(self, config: GenSeq2SeqConfig, layer_idx: int):
        super().__init__(config, layer_idx)
        self.draft_attn_norm = build_norm(config)
        # In the cache, the draft's keys stand behind the source's.
        self.draft_attn = CrossAttention(config, config.refinement_layers + layer_idx)

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        draft_hidden_states: torch.Tensor,
        draft_attention_mask: torch.Tensor | None = None,
        past_key_values: EncoderDecoderCache | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Transform (B, T, D) into (B, T, D), looking at source (B, S, D) and draft (B, U, D)."""
        hidden_states = self.attend_target_and_source(
            hidden_states, encoder_hidden_states, past_key_values=past_key_values, **kwargs
        )
        hidden_states = self.add(
            hidden_states,
            self.draft_attn_norm,
            lambda states: self.draft_attn(
                states, draft_hidden_states, draft_attention_mask, past_key_values
            )[0],
        )
        return self.add(hidden_states, self.mlp_norm, self.mlp)


__all__ = ["GenSeq2SeqDecoderBlock", "GenSeq2SeqEncoderBlock", "GenSeq2SeqRefinementBlock"]
