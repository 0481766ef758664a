"""Encoder and decoders of the encoder-decoder Transformer.

Shapes are written with these letters: B batch, S tokens of the source, T tokens of the target,
U tokens of a draft, D hidden_size.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import Cache, DynamicCache, EncoderDecoderCache, PreTrainedModel
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPastAndCrossAttentions,
)
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .attention import CrossAttention, SelfAttention, fold_beams
from .bidirectional_attention import BidirectionalCrossAttention, split_source
from .configuration_seq2seq import GenSeq2SeqConfig
from .growing_cache import make_growing
from .inference import Int8Mixin
from .layers import (
    ResidualLinear,
    SinusoidalPositions,
    build_norm,
    build_positions,
    check_last_position,
)
from .seq2seq_blocks import (
    GenSeq2SeqDecoderBlock,
    GenSeq2SeqEncoderBlock,
    GenSeq2SeqRefinementBlock,
)


class GenSeq2SeqPreTrainedModel(Int8Mixin, PreTrainedModel):
    """What all models share: configuration, capabilities and initialisation."""

    config: GenSeq2SeqConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    num_sublayers = 1  # of the stack that this model is

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise one module; encoder and decoder initialise their own."""
        super()._init_weights(module)
        config = self.config
        if isinstance(module, ResidualLinear) and config.zero_init_residual:
            init.zeros_(module.weight)
        elif isinstance(module, ResidualLinear) and config.norm_position == "pre":
            std = config.initializer_range / math.sqrt(self.num_sublayers)
            init.normal_(module.weight, mean=0.0, std=std)
        elif isinstance(module, SinusoidalPositions):
            init.copy_(module.table, module.make_table())
        elif module is self.get_input_embeddings() and config.embedding_init_range is not None:
            init.normal_(module.weight, mean=0.0, std=config.embedding_init_range)

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> nn.Embedding:
        """Resize the target's vocabulary, which is also the source's if they share one.

        Args:
            new_num_tokens: New size of the vocabulary. `None`: as it is.
            pad_to_multiple_of: Round the size up to a multiple of this.
            mean_resizing: Draw new rows from the normal distribution of the old ones, instead of
                from the initial distribution.

        Returns:
            The embedding of the target's tokens.
        """
        if self.config.shares_vocabulary:
            return super().resize_token_embeddings(
                new_num_tokens, pad_to_multiple_of, mean_resizing
            )
        decoder, head = self.base_model.decoder, self.get_output_embeddings()
        table = self._get_resized_embeddings(
            decoder.embed_tokens, new_num_tokens, pad_to_multiple_of, mean_resizing
        )
        table.requires_grad_(decoder.embed_tokens.weight.requires_grad)
        self.base_model.set_target_embeddings(table)
        if head is not None:
            resized = self._get_resized_lm_head(
                head, table.num_embeddings, mean_resizing=mean_resizing
            )
            self.set_output_embeddings(resized.requires_grad_(head.weight.requires_grad))
        self.config.vocab_size = table.num_embeddings
        self.tie_weights()
        return table

    def resize_source_embeddings(
        self, new_num_tokens: int, mean_resizing: bool = True
    ) -> nn.Embedding:
        """Resize the vocabulary that the source has to itself.

        Args:
            new_num_tokens: New size of the vocabulary.
            mean_resizing: See [`resize_token_embeddings`].

        Returns:
            The embedding of the source's tokens.

        Raises:
            ValueError: If source and target share one vocabulary.
        """
        if self.config.shares_vocabulary:
            raise ValueError(
                "Source and target share one vocabulary: call resize_token_embeddings instead."
            )
        old = self.get_input_embeddings()
        table = self._get_resized_embeddings(old, new_num_tokens, mean_resizing=mean_resizing)
        self.set_input_embeddings(table.requires_grad_(old.weight.requires_grad))
        self.config.source_vocab_size = new_num_tokens
        return table


class GenSeq2SeqStack(GenSeq2SeqPreTrainedModel):
    """What encoder and decoder share: the embeddings below their blocks and the norm above.

    Args:
        config: Configuration of the model.
        vocab_size: Number of tokens.
    """

    def __init__(self, config: GenSeq2SeqConfig, vocab_size: int):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(vocab_size, config.hidden_size)
        self.embed_positions, self.rotary = build_positions(config)
        self.embedding_scale = math.sqrt(config.hidden_size) if config.scale_embedding else 1.0
        # Blocks that normalise their input leave the last residual as it is.
        self.final_norm = build_norm(config) if config.norm_position == "pre" else nn.Identity()
        self.gradient_checkpointing = False

    def embed(
        self,
        input_ids: torch.LongTensor | None,
        inputs_embeds: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        past_length: int | torch.Tensor = 0,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]:
        """Return the blocks' input (B, T, D), and the rotary angles if positions are rotary.

        A padding mask says where a row begins, so that its first token has position 0 also behind
        left padding.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError(
                f"Give {type(self).__name__} either token ids or embeddings, not both and not none."
            )
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        length = inputs_embeds.shape[1]
        if attention_mask is not None and attention_mask.ndim == 2:
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -length:]
        else:
            position_ids = torch.arange(length, device=inputs_embeds.device)
            position_ids = (position_ids + past_length).unsqueeze(0)

        hidden_states = inputs_embeds * self.embedding_scale
        rotary = None
        if self.rotary is not None:
            rotary = self.rotary(position_ids)
        else:
            check_last_position(position_ids, self.config.max_position_embeddings)
            positions = self.embed_positions(position_ids)
            hidden_states = hidden_states + positions.to(hidden_states.dtype)
        return F.dropout(hidden_states, self.config.embedding_dropout, self.training), rotary


class GenSeq2SeqEncoder(GenSeq2SeqStack):
    """The encoder: a state for every token of the source.

    Args:
        config: Configuration of the model.
    """

    _no_split_modules = ["GenSeq2SeqEncoderBlock"]
    _can_record_outputs = {"hidden_states": GenSeq2SeqEncoderBlock, "attentions": SelfAttention}

    def __init__(self, config: GenSeq2SeqConfig):
        super().__init__(config, config.source_vocab_size or config.vocab_size)
        self.num_sublayers = 2 * config.encoder_layers
        self.layers = nn.ModuleList(
            GenSeq2SeqEncoderBlock(config, layer_idx) for layer_idx in range(config.encoder_layers)
        )
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Compute the states of the source.

        Args:
            input_ids: Token ids, (B, S).
            attention_mask: 1 for tokens and 0 for padding, (B, S); padding may be on either side.
            inputs_embeds: Embeddings instead of `input_ids`, (B, S, D).
            **kwargs: Passed to the attention implementation.

        Returns:
            The states (B, S, D).

        Raises:
            ValueError: If not exactly one of `input_ids` and `inputs_embeds` is given, or if the
                source is longer than the model's positions.
        """
        hidden_states, rotary = self.embed(input_ids, inputs_embeds, attention_mask)
        mask = create_bidirectional_mask(
            config=self.config, inputs_embeds=hidden_states, attention_mask=attention_mask
        )
        for layer in self.layers:
            hidden_states = layer(hidden_states, mask, rotary, **kwargs)
        return BaseModelOutput(last_hidden_state=self.final_norm(hidden_states))


class GenSeq2SeqDecoder(GenSeq2SeqStack):
    """The decoder: a state for every token of the target, which predicts the next one.

    Args:
        config: Configuration of the model.
    """

    _no_split_modules = ["GenSeq2SeqDecoderBlock"]
    _can_record_outputs = {
        "hidden_states": GenSeq2SeqDecoderBlock,
        "attentions": SelfAttention,
        "cross_attentions": [
            OutputRecorder(kind, index=1, layer_name="cross_attn")
            for kind in (CrossAttention, BidirectionalCrossAttention)
        ],
    }

    def __init__(self, config: GenSeq2SeqConfig):
        super().__init__(config, config.vocab_size)
        self.layers = self.make_layers()
        self.post_init()

    def make_layers(self) -> nn.ModuleList:
        """Return the blocks."""
        self.num_sublayers = 3 * self.config.decoder_layers
        return nn.ModuleList(
            GenSeq2SeqDecoderBlock(self.config, index)
            for index in range(self.config.decoder_layers)
        )

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        encoder_hidden_states: torch.FloatTensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        draft_hidden_states: torch.FloatTensor | None = None,
        draft_attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Compute the states of the target.

        Several rows, beams say, can look at one source: with sources of B rows there may be B * n
        targets, n for the same source side by side.

        Args:
            input_ids: Token ids, (B, T), or the last ones if the cache holds the others.
            attention_mask: 1 for tokens and 0 for padding, (B, past + T). Only left padding needs
                it: no token sees what stands to its right.
            encoder_hidden_states: States of the source, (B, S, D).
            encoder_attention_mask: 1 for the source's tokens and 0 for its padding, (B, S).
            past_key_values: Keys and values of earlier tokens and of the source.
            inputs_embeds: Embeddings instead of `input_ids`, (B, T, D).
            use_cache: Whether to return keys and values.
            draft_hidden_states: States of a draft, (B, U, D), if this decoder rewrites one.
            draft_attention_mask: 1 for the draft's tokens and 0 for its padding, (B, U).
            **kwargs: Passed to the attention implementation.

        Returns:
            The states (B, T, D) and the cache.

        Raises:
            ValueError: If not exactly one of `input_ids` and `inputs_embeds` is given, if the target
                is longer than the model's positions, or if the cache is of another kind.
        """
        if use_cache and past_key_values is None:
            past_key_values = EncoderDecoderCache(DynamicCache(), DynamicCache())
        elif past_key_values is not None and not isinstance(past_key_values, EncoderDecoderCache):
            raise ValueError(
                "The cache of an encoder-decoder is an EncoderDecoderCache(own, source) of two "
                f"caches, not a {type(past_key_values).__name__}."
            )
        make_growing(past_key_values)
        past_length = 0 if past_key_values is None else past_key_values.get_seq_length()
        hidden_states, rotary = self.embed(input_ids, inputs_embeds, attention_mask, past_length)
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=hidden_states,
            attention_mask=attention_mask,
            past_key_values=None
            if past_key_values is None
            else past_key_values.self_attention_cache,
        )
        source_mask = self._make_source_mask(
            hidden_states, encoder_hidden_states, encoder_attention_mask, past_key_values
        )
        memories = [encoder_hidden_states]
        if draft_hidden_states is not None:
            memories.append(draft_hidden_states)
            kwargs["draft_attention_mask"] = self._make_memory_mask(
                hidden_states, draft_hidden_states, draft_attention_mask
            )
        for layer in self.layers:
            hidden_states = layer(
                hidden_states,
                *memories,
                attention_mask=mask,
                encoder_attention_mask=source_mask,
                rotary=rotary,
                past_key_values=past_key_values,
                **kwargs,
            )
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=self.final_norm(hidden_states),
            past_key_values=past_key_values if use_cache else None,
        )

    def _make_source_mask(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
        past_key_values: EncoderDecoderCache | None,
    ) -> Any:
        """Return what the cross-attentions want to know about the source."""
        if self.config.cross_attention == "full":
            return self._make_memory_mask(hidden_states, encoder_hidden_states, attention_mask)
        is_cached = past_key_values is not None and past_key_values.is_updated.get(0, False)
        return split_source(
            self.config,
            fold_beams(hidden_states, encoder_hidden_states.shape[0]),
            encoder_hidden_states,
            attention_mask,
            with_positions=not is_cached,
        )

    def _make_memory_mask(
        self,
        hidden_states: torch.Tensor,
        memory: torch.Tensor,
        attention_mask: torch.Tensor | None,
    ) -> Any:
        """Return what the attention implementation wants, hiding the padding of a memory."""
        return create_bidirectional_mask(
            config=self.config,
            inputs_embeds=fold_beams(hidden_states, memory.shape[0]),
            attention_mask=attention_mask,
            encoder_hidden_states=memory,
        )


class GenSeq2SeqRefinementDecoder(GenSeq2SeqDecoder):
    """The second decoder, which rewrites a draft (Xia et al. 2017, "Deliberation Networks").

    Args:
        config: Configuration of the model.
    """

    _no_split_modules = ["GenSeq2SeqRefinementBlock"]
    _can_record_outputs = GenSeq2SeqDecoder._can_record_outputs | {
        "hidden_states": GenSeq2SeqRefinementBlock
    }

    def make_layers(self) -> nn.ModuleList:
        """Return the blocks."""
        count: int = self.config.refinement_layers
        self.num_sublayers = 4 * count
        return nn.ModuleList(
            GenSeq2SeqRefinementBlock(self.config, index) for index in range(count)
        )


__all__ = [
    "GenSeq2SeqDecoder",
    "GenSeq2SeqEncoder",
    "GenSeq2SeqPreTrainedModel",
    "GenSeq2SeqRefinementDecoder",
]
