"""Recurrent sequence-to-sequence model with attention, a first-class transformers model.

Sutskever et al. 2014 (arXiv:1409.3215), Bahdanau et al. 2015 (arXiv:1409.0473) and Luong et al. 2015
(arXiv:1508.04025), with the switches of [`GenRNNSeq2SeqConfig`]. Read from top to bottom: base class,
encoder, decoder, headless model, model with its head; their layers are in recurrent_layers.

Shapes are written with these letters: B sentences, R rows of the decoder (B, or B times the beams of
a sentence), S source tokens, T target tokens, E embedding_size, D hidden_size, L layers, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPastAndCrossAttentions,
    Seq2SeqLMOutput,
    Seq2SeqModelOutput,
)
from transformers.utils import can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_rnn_seq2seq import GenRNNSeq2SeqConfig
from .inference import Int8Mixin
from .linear import Linear
from .recurrent_cache import RecurrentCache
from .recurrent_layers import (
    Bridge,
    DecoderStack,
    DecoderState,
    EncoderStack,
    Memory,
    initial_recurrent_weight,
    real_lengths,
)
from .seq2seq_loss import decoder_inputs_from_labels, loss_from_logits, loss_from_states


@dataclass
class GenRNNEncoderOutput(BaseModelOutput):
    """The encoder's states at every token and after the last one.

    Attributes:
        last_hidden_state: (B, S, D); zeros at padding.
        hidden_states: The embeddings and `last_hidden_state`, if wanted.
        final_hidden: Hidden state of each layer after its last token, (B, L, D).
        final_cell: The same of the cells of an LSTM.
        keys: What additive attention compares the decoder's states with, (B, S, D): U h, which has
            to be computed only once.
    """

    final_hidden: torch.FloatTensor | None = None
    final_cell: torch.FloatTensor | None = None
    keys: torch.FloatTensor | None = None


class GenRNNSeq2SeqPreTrainedModel(Int8Mixin, PreTrainedModel):
    """What all models share: configuration, capabilities and initialisation."""

    config: GenRNNSeq2SeqConfig
    base_model_prefix = "model"
    _no_split_modules = ["GenRNNEncoder", "GenRNNDecoder"]
    _skip_keys_device_placement = ["past_key_values"]
    _is_stateful = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise one module.

        Recurrent layers get orthogonal matrices between their states (Saxe et al. 2014,
        arXiv:1312.6120), and an LSTM remembers at first: its forget gates have a bias of 1
        (Jozefowicz et al. 2015). All other matrices are Glorot and Bengio's (2010), apart from
        embeddings and an untied head, which are normal.
        """
        super()._init_weights(module)
        if isinstance(module, nn.RNNBase):
            for name, parameter in module.named_parameters(recurse=False):
                init.copy_(parameter, initial_recurrent_weight(module.mode, name, parameter))
        elif isinstance(module, nn.Linear) and module is not self.get_output_embeddings():
            init.xavier_uniform_(module.weight)

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """Return which weights are the same, as each model's constructor decided.

        The embedding of a shared vocabulary is shared with or without `tie_word_embeddings`, which
        is all that `PreTrainedModel` looks at.
        """
        if all_submodels:
            return super().get_expanded_tied_weights_keys(all_submodels=True)
        return dict(self._tied_weights_keys or {})


class GenRNNEncoder(GenRNNSeq2SeqPreTrainedModel):
    """Reads the source.

    Args:
        config: Configuration of the model.
    """

    _can_record_outputs = {"hidden_states": OutputRecorder(EncoderStack, index=0)}

    def __init__(self, config: GenRNNSeq2SeqConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(
            config.source_vocab_size or config.vocab_size, config.embedding_size
        )
        self.stack = EncoderStack(config)
        self.key_proj = None
        if config.attention == "additive":
            self.key_proj = Linear(config.hidden_size, config.hidden_size, bias=False)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        **kwargs: Any,
    ) -> GenRNNEncoderOutput:
        """Read token ids (B, S), or embeddings (B, S, E) instead.

        Args:
            input_ids: Token ids, (B, S).
            attention_mask: 1 for tokens and 0 for padding, which stands on the right, (B, S).
            inputs_embeds: Embeddings instead of `input_ids`, (B, S, E).
            **kwargs: Not used.

        Returns:
            The states at every token and after the last.

        Raises:
            ValueError: If both or none are given, or padding stands before a token.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give either input_ids or inputs_embeds, not both and not none.")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        embeds = F.dropout(inputs_embeds, self.config.dropout, self.training)
        states, hidden, cell = self.stack(embeds, real_lengths(attention_mask))
        return GenRNNEncoderOutput(
            last_hidden_state=states,
            final_hidden=hidden,
            final_cell=cell,
            keys=None if self.key_proj is None else self.key_proj(states),
        )


class GenRNNDecoder(GenRNNSeq2SeqPreTrainedModel):
    """Writes the target.

    Args:
        config: Configuration of the model.
    """

    _can_record_outputs = {
        "hidden_states": OutputRecorder(DecoderStack, index=0),
        "cross_attentions": OutputRecorder(DecoderStack, index=1),
    }

    def __init__(self, config: GenRNNSeq2SeqConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
        self.bridge = Bridge(config)
        self.stack = DecoderStack(config)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        encoder_outputs: GenRNNEncoderOutput | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        past_key_values: RecurrentCache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Decode token ids (R, T), or embeddings (R, T, E) instead.

        Args:
            input_ids: Token ids, (R, T). R may be a multiple of the number of sentences: the beams
                of a sentence then stand side by side.
            encoder_outputs: What [`GenRNNEncoder`] returned.
            encoder_attention_mask: 1 for tokens of the source and 0 for padding, (B, S).
            past_key_values: States after earlier tokens.
            inputs_embeds: Embeddings instead of `input_ids`, (R, T, E).
            use_cache: Whether to return the states.
            **kwargs: Not used.

        Returns:
            The attentional states (R, T, D) and the cache.

        Raises:
            ValueError: If both or none of the inputs are given, or the cache is of another kind.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError(
                "Give either decoder_input_ids or decoder_inputs_embeds, not both and not none."
            )
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        cache = RecurrentCache() if past_key_values is None else past_key_values
        embeds = F.dropout(inputs_embeds, self.config.dropout, self.training)
        if cache.get_seq_length():
            state = read_state(cache)
        else:
            state = self._first_state(encoder_outputs, len(embeds))
        memory = make_memory(encoder_outputs, encoder_attention_mask)
        states, _, state = self.stack(embeds, state, memory)
        if use_cache:
            write_state(cache, state, embeds.shape[1])
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=states, past_key_values=cache if use_cache else None
        )

    def _first_state(self, encoder_outputs: GenRNNEncoderOutput, rows: int) -> DecoderState:
        hidden, cell = self.bridge(encoder_outputs.final_hidden, encoder_outputs.final_cell)
        beams = rows // hidden.shape[1]
        if beams > 1:
            hidden = hidden.repeat_interleave(beams, dim=1)
            cell = None if cell is None else cell.repeat_interleave(beams, dim=1)
        feed = None
        if self.config.input_feeding:
            feed = hidden.new_zeros(rows, 1, self.config.hidden_size)
        return DecoderState(hidden, cell, feed)


def make_memory(encoder_outputs: GenRNNEncoderOutput, mask: torch.Tensor | None) -> Memory:
    """Return what the decoder looks at; `mask` (B, S) is 1 for tokens and 0 for padding."""
    values, keys = encoder_outputs.last_hidden_state, encoder_outputs.keys
    hides = mask is not None and not mask.all()
    return Memory(values if keys is None else keys, values, mask.bool()[:, None] if hides else None)


def read_state(cache: RecurrentCache) -> DecoderState:
    """Return the state that [`write_state`] wrote, layers first as torch wants them."""
    states = {name: state.transpose(0, 1).contiguous() for name, state in cache.states.items()}
    feed = cache.states.get("feed")
    return DecoderState(states["hidden"], states.get("cell"), feed)


def write_state(cache: RecurrentCache, state: DecoderState, new_tokens: int) -> None:
    """Write the state after `new_tokens` more tokens, the batch first."""
    states = {"hidden": state.hidden.transpose(0, 1)}
    if state.cell is not None:
        states["cell"] = state.cell.transpose(0, 1)
    if state.feed is not None:
        states["feed"] = state.feed
    cache.write(states, new_tokens)


class GenRNNSeq2SeqModel(GenRNNSeq2SeqPreTrainedModel):
    """Encoder and decoder without the head.

    Args:
        config: Configuration of the model.
    """

    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]  # of an untied head, in its checkpoint

    def __init__(self, config: GenRNNSeq2SeqConfig):
        super().__init__(config)
        self.embed_tokens = None
        if config.shares_vocabulary:
            self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size)
            self._tied_weights_keys = {
                f"{side}.embed_tokens.weight": "embed_tokens.weight"
                for side in ("encoder", "decoder")
            }
        self.encoder = GenRNNEncoder(config)
        self.decoder = GenRNNDecoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the embedding of the source, which is the target's too if they share one."""
        return self.encoder.embed_tokens if self.embed_tokens is None else self.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Set the embedding of the source, and of the target too if they share one."""
        self.encoder.embed_tokens = value
        if self.embed_tokens is not None:
            self.embed_tokens = self.decoder.embed_tokens = value

    @can_return_tuple
    @merge_with_config_defaults
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: GenRNNEncoderOutput | None = None,
        past_key_values: RecurrentCache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        decoder_inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> Seq2SeqModelOutput:
        """Compute the decoder's last states.

        Args:
            input_ids: Token ids of the source, (B, S).
            attention_mask: 1 for tokens of the source and 0 for padding on their right, (B, S).
            decoder_input_ids: Token ids of the target, (B, T), behind a start token.
            decoder_attention_mask: 1 for tokens of the target and 0 for padding on their right,
                (B, past + T). No state sees later tokens: it is only checked.
            encoder_outputs: What the encoder returned, to save its time.
            past_key_values: States after earlier tokens.
            inputs_embeds: Embeddings instead of `input_ids`, (B, S, E).
            decoder_inputs_embeds: Embeddings instead of `decoder_input_ids`, (B, T, E).
            use_cache: Whether to return the states.
            **kwargs: `output_hidden_states`, `output_attentions`.

        Returns:
            The attentional states (B, T, D), the cache, and what the encoder returned. Hidden states
            are the embeddings and the last states of a side; cross-attentions are one tensor
            (B, 1, T, S).

        Raises:
            ValueError: If padding stands before a token, inputs are missing or given twice, or
                `past_key_values` is no [`RecurrentCache`].
        """
        if past_key_values is not None and not isinstance(past_key_values, RecurrentCache):
            raise ValueError(
                f"past_key_values is a {type(past_key_values).__name__}, but this decoder keeps its "
                "states in a RecurrentCache. Leave past_key_values out to begin a text."
            )
        if decoder_attention_mask is not None and not decoder_attention_mask[:, 0].all():
            raise ValueError(
                "A recurrent decoder reads padding on the left as if it were text, and refuses it: "
                "decoder_attention_mask begins with 0."
            )
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids, attention_mask, inputs_embeds=inputs_embeds, **kwargs
            )
        decoded = self.decoder(
            decoder_input_ids,
            encoder_outputs=encoder_outputs,
            encoder_attention_mask=attention_mask,
            past_key_values=past_key_values,
            inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        return Seq2SeqModelOutput(
            last_hidden_state=decoded.last_hidden_state,
            past_key_values=decoded.past_key_values,
            decoder_hidden_states=decoded.hidden_states,
            cross_attentions=decoded.cross_attentions or None,
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
        )


class GenRNNSeq2SeqForConditionalGeneration(GenRNNSeq2SeqPreTrainedModel, GenerationMixin):
    """The model with its head: translates, continues, answers.

    Args:
        config: Configuration of the model.
    """

    def __init__(self, config: GenRNNSeq2SeqConfig):
        super().__init__(config)
        self.model = GenRNNSeq2SeqModel(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            owner = "model" if config.shares_vocabulary else "model.decoder"
            self._tied_weights_keys = {"lm_head.weight": f"{owner}.embed_tokens.weight"}
        self.post_init()

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # `generate` then leaves the cache to the decoder

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the embedding of the source, which is the target's too if they share one."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Set the embedding of the source, and of the target too if they share one."""
        self.model.set_input_embeddings(value)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Resize embedding and head to a new shared vocabulary, as `PreTrainedModel` does.

        Raises:
            ValueError: If source and target have vocabularies of their own.
        """
        if not self.config.shares_vocabulary:
            raise ValueError(
                "Source and target have vocabularies of their own, which cannot be resized together."
            )
        return super().resize_token_embeddings(*args, **kwargs)

    def prepare_decoder_input_ids_from_labels(self, labels: torch.LongTensor) -> torch.Tensor:
        """Return labels (B, T) one place to the right, behind the start token."""
        return decoder_inputs_from_labels(labels, self.config)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: GenRNNEncoderOutput | None = None,
        past_key_values: RecurrentCache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        decoder_inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        return_logits: bool | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Compute logits, and the loss if labels are given.

        Args:
            input_ids: Token ids of the source, (B, S).
            attention_mask: 1 for tokens of the source and 0 for padding on their right, (B, S).
            decoder_input_ids: Token ids of the target behind a start token, (B, T). Made from the
                labels if left out.
            decoder_attention_mask: 1 for tokens of the target and 0 for padding on their right.
            encoder_outputs: What the encoder returned, to save its time.
            past_key_values: States after earlier tokens.
            inputs_embeds: Embeddings instead of `input_ids`, (B, S, E).
            decoder_inputs_embeds: Embeddings instead of `decoder_input_ids`, (B, T, E).
            labels: Token ids that the logits should predict, (B, T), not shifted. -100 does not
                count.
            use_cache: Whether to return the states; not beside labels.
            logits_to_keep: Number of last positions, or the positions, whose logits are wanted.
                0: all. Beside labels, all are returned.
            return_logits: Whether logits are wanted beside the loss. `None`: not while training,
                where the loss is computed in chunks that never hold all logits at once.
            **kwargs: `num_items_in_batch` (the loss is then the sum divided by it, else the mean),
                `label_smoothing` instead of the configuration's (0.0 gives the plain
                cross-entropy), `output_hidden_states`, `output_attentions`.

        Returns:
            The loss, the logits (B, T, V) if wanted, the cache, hidden states and cross-attentions
            (one tensor (B, 1, T, S)).
        """
        num_items_in_batch = kwargs.pop("num_items_in_batch", None)
        # Not a parameter: the Trainer takes every one that is called label... for a label.
        label_smoothing = kwargs.pop("label_smoothing", None)
        if labels is not None:
            use_cache = False
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        states = outputs.last_hidden_state
        smoothing = self.config.label_smoothing if label_smoothing is None else label_smoothing
        if return_logits is None:
            return_logits = labels is None or not self.training

        loss = logits = None
        if labels is not None and not return_logits:
            loss = loss_from_states(states, self.lm_head, labels, smoothing, num_items_in_batch)
        elif labels is not None:
            logits = self.lm_head(states)
            loss = loss_from_logits(logits, labels, smoothing, num_items_in_batch)
        elif return_logits:
            if isinstance(logits_to_keep, int):
                logits_to_keep = slice(-logits_to_keep, None)
            logits = self.lm_head(states[:, logits_to_keep])
        return Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            decoder_hidden_states=outputs.decoder_hidden_states,
            cross_attentions=outputs.cross_attentions,
            encoder_last_hidden_state=outputs.encoder_last_hidden_state,
            encoder_hidden_states=outputs.encoder_hidden_states,
        )


__all__ = [
    "GenRNNSeq2SeqForConditionalGeneration",
    "GenRNNSeq2SeqModel",
    "GenRNNSeq2SeqPreTrainedModel",
]
