"""Encoder-decoder Transformer, a first-class transformers model.

Vaswani et al. 2017, "Attention Is All You Need" (arXiv:1706.03762), with the switches of
[`GenSeq2SeqConfig`]. Here are the headless model and the model with its head; below them, each in
its file, stand encoder and decoders (`seq2seq_stacks.py`), their blocks (`seq2seq_blocks.py`) and
attention (`attention.py`, `bidirectional_attention.py`). What a second decoder needs is in
`refinement.py`.

Shapes are written with these letters: B batch, S tokens of the source, T tokens of the target,
U tokens of a draft, D hidden_size, V vocabulary.
"""

from typing import Any

import torch
from torch import nn
from transformers import Cache, GenerationMixin, MarianMTModel
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqModelOutput
from transformers.utils import can_return_tuple

from .configuration_seq2seq import GenSeq2SeqConfig
from .convert_marian import fields_from_marian, weights_from_marian
from .linear import Linear
from .refinement import GenSeq2SeqOutput, RefinementMixin
from .seq2seq_loss import (
    apply_head,
    decoder_inputs_from_labels,
    loss_from_logits,
    loss_from_states,
)
from .seq2seq_stacks import (
    GenSeq2SeqDecoder,
    GenSeq2SeqEncoder,
    GenSeq2SeqPreTrainedModel,
    GenSeq2SeqRefinementDecoder,
)
from .warm_start import WarmStartMixin


class GenSeq2SeqModel(GenSeq2SeqPreTrainedModel):
    """Encoder and decoder without the head.

    Args:
        config: Configuration of the model.
    """

    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]  # of an untied head, in its checkpoint

    def __init__(self, config: GenSeq2SeqConfig):
        super().__init__(config)
        if config.shares_vocabulary:
            self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
            self._tied_weights_keys = {
                "encoder.embed_tokens.weight": "embed_tokens.weight",
                "decoder.embed_tokens.weight": "embed_tokens.weight",
            }
        else:
            self._tied_weights_keys = {}
        self.encoder = GenSeq2SeqEncoder(config)
        self.decoder = GenSeq2SeqDecoder(config)
        if config.refinement_decoder:
            self.refinement_decoder = GenSeq2SeqRefinementDecoder(config)
            table = "embed_tokens" if config.shares_vocabulary else "decoder.embed_tokens"
            self._tied_weights_keys["refinement_decoder.embed_tokens.weight"] = f"{table}.weight"
        self.post_init()

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """Return which weights are tied: a shared embedding is one, whether or not the head is it."""
        if all_submodels:
            return super().get_expanded_tied_weights_keys(all_submodels=True)
        return dict(self._tied_weights_keys)

    def get_input_embeddings(self) -> nn.Module:
        """Return the embedding of the source's tokens, which is the target's if they share one."""
        return self.embed_tokens if self.config.shares_vocabulary else self.encoder.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the embedding of the source's tokens, and the target's if they share one."""
        self.encoder.embed_tokens = value
        if self.config.shares_vocabulary:
            self.embed_tokens = value
            self.set_target_embeddings(value)

    def set_target_embeddings(self, value: nn.Module) -> None:
        """Replace the embedding of the target's tokens."""
        self.decoder.embed_tokens = value
        if self.config.refinement_decoder:
            self.refinement_decoder.embed_tokens = value

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[torch.Tensor, ...] | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        decoder_inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        draft_hidden_states: torch.FloatTensor | None = None,
        draft_attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Seq2SeqModelOutput:
        """Compute the states of source and target; see [`GenSeq2SeqForConditionalGeneration`].

        With the states of a draft, the target's states are those of the second decoder.
        """
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                inputs_embeds=inputs_embeds,
                **kwargs,
            )
        elif not isinstance(encoder_outputs, BaseModelOutput):
            encoder_outputs = BaseModelOutput(*encoder_outputs[:3])
        decoder = self.decoder
        if draft_hidden_states is not None:
            decoder = self.refinement_decoder
            kwargs["draft_hidden_states"] = draft_hidden_states
            kwargs["draft_attention_mask"] = draft_attention_mask
        outputs = decoder(
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=encoder_outputs.last_hidden_state,
            encoder_attention_mask=attention_mask,
            past_key_values=past_key_values,
            inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        return Seq2SeqModelOutput(
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=outputs.past_key_values,
            decoder_hidden_states=outputs.hidden_states,
            decoder_attentions=outputs.attentions,
            cross_attentions=outputs.cross_attentions,
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
        )


class GenSeq2SeqForConditionalGeneration(
    RefinementMixin, WarmStartMixin, GenSeq2SeqPreTrainedModel, GenerationMixin
):
    """The encoder-decoder with its head: translation, summarisation, dialogue.

    Args:
        config: Configuration of the model.
    """

    _fsdp_plan = {"lm_head": "keep_full_weight"}

    def __init__(self, config: GenSeq2SeqConfig):
        super().__init__(config)
        self.model = GenSeq2SeqModel(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=config.head_bias)
        table = "embed_tokens" if config.shares_vocabulary else "decoder.embed_tokens"
        self._tied_weights_keys = {"lm_head.weight": f"model.{table}.weight"}
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the embedding of the source's tokens, which is the target's if they share one."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the embedding of the source's tokens, and the target's if they share one."""
        self.model.set_input_embeddings(value)

    @classmethod
    def from_marian(cls, dir_or_id: str, **kwargs: Any) -> "GenSeq2SeqForConditionalGeneration":
        """Load any Marian checkpoint of transformers into this model.

        Args:
            dir_or_id: Folder or hub id of a checkpoint that `MarianMTModel` loads.
            **kwargs: Passed to `MarianMTModel.from_pretrained`.

        Returns:
            The model in eval mode, with the checkpoint's generation settings.

        Raises:
            ValueError: If encoder and decoder of the checkpoint differ in more than their depth.
        """
        source = MarianMTModel.from_pretrained(dir_or_id, **kwargs)
        fields = fields_from_marian(source.config, bool(source.final_logits_bias.any()))
        fields["attn_implementation"] = source.config._attn_implementation
        config = cls.config_class(**fields, dtype=source.dtype)
        model = cls(config).to(source.dtype)
        model.load_state_dict(weights_from_marian(source.state_dict(), config))
        model.tie_weights()
        model.generation_config = source.generation_config
        return model.eval()

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
        encoder_outputs: BaseModelOutput | tuple[torch.Tensor, ...] | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        decoder_inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        return_logits: bool | None = None,
        num_items_in_batch: int | torch.Tensor | None = None,
        draft_ids: torch.LongTensor | None = None,
        draft_hidden_states: torch.FloatTensor | None = None,
        draft_attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> GenSeq2SeqOutput:
        """Compute logits, and the loss if labels are given.

        Args:
            input_ids: Token ids of the source, (B, S).
            attention_mask: 1 for the source's tokens and 0 for its padding, (B, S).
            decoder_input_ids: Token ids of the target behind the start token, (B, T). `None`: made
                from `labels`.
            decoder_attention_mask: 1 for the target's tokens and 0 for its padding, (B, past + T).
                Only left padding needs it.
            encoder_outputs: What the encoder returned, instead of the source. With B * n targets
                for B sources, the n of one source stand side by side.
            past_key_values: Keys and values of earlier tokens and of the source.
            inputs_embeds: Embeddings instead of `input_ids`, (B, S, D).
            decoder_inputs_embeds: Embeddings instead of `decoder_input_ids`, (B, T, D).
            labels: Token ids of the target, (B, T), aligned with the logits: nothing is shifted.
                -100 does not count.
            use_cache: Whether to return keys and values. `None`: as configured, but not with labels.
            logits_to_keep: Number of last positions, or the positions, whose logits are wanted.
                0: all. With labels, all are returned.
            return_logits: Whether logits are wanted beside the loss. `None`: not while training,
                where the loss is computed in chunks that never hold all logits at once.
            num_items_in_batch: Number of tokens that the summed loss is divided by. `None`: those
                that count here.
            draft_ids: Token ids of a draft that ends with eos, (B, U), which the second decoder of a
                refinement model rewrites. `None`, with labels: what the first decoder finds most
                likely at each place.
            draft_hidden_states: The draft's states, (B, U, D), instead of its ids.
            draft_attention_mask: 1 for the states' tokens and 0 for padding, (B, U).
            **kwargs: `label_smoothing` of this loss, if not as configured, and arguments of the
                attention implementation.

        Returns:
            The loss, the logits (B, T, V) if wanted, the cache, hidden states and attentions. Of a
            refinement model they are the second decoder's, if there are labels or a draft; the loss
            is then that of [`RefinementMixin.join_losses`], beside its two parts.
        """
        # Not a parameter: the Trainer takes every one that is called label... for a label.
        label_smoothing = kwargs.pop("label_smoothing", None)
        if label_smoothing is None:
            label_smoothing = self.config.label_smoothing
        if return_logits is None:
            return_logits = labels is None or not self.training
        if labels is not None:
            use_cache = bool(use_cache)
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)

        first_loss = None
        if (labels is not None or draft_ids is not None) and self.rewrites(draft_ids):
            if encoder_outputs is None:
                encoder_outputs = self.get_encoder()(
                    input_ids, attention_mask, inputs_embeds, **kwargs
                )
            source = {
                "encoder_hidden_states": encoder_outputs[0],
                "encoder_attention_mask": attention_mask,
            }
            if labels is not None:
                first_loss, likeliest = self.first_pass(
                    labels,
                    label_smoothing,
                    num_items_in_batch,
                    input_ids=decoder_input_ids,
                    inputs_embeds=decoder_inputs_embeds,
                    attention_mask=decoder_attention_mask,
                    **source,
                )
                draft_ids = likeliest if draft_ids is None else draft_ids
            draft_hidden_states, draft_attention_mask = self.encode_draft(draft_ids, **source)
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
            draft_hidden_states=draft_hidden_states,
            draft_attention_mask=draft_attention_mask,
            **kwargs,
        )

        states, softcap = outputs.last_hidden_state, self.config.logit_softcap
        loss = logits = None
        if labels is None:
            if isinstance(logits_to_keep, int):
                logits_to_keep = slice(-logits_to_keep, None)
            logits = apply_head(states[:, logits_to_keep], self.lm_head, softcap)
        elif return_logits:
            logits = apply_head(states, self.lm_head, softcap)
            loss = loss_from_logits(logits, labels, label_smoothing, num_items_in_batch)
        else:
            loss = loss_from_states(
                states, self.lm_head, labels, label_smoothing, num_items_in_batch, softcap
            )
        return GenSeq2SeqOutput(
            loss=loss if first_loss is None else self.join_losses(first_loss, loss),
            draft_loss=first_loss,
            refinement_loss=None if first_loss is None else loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            decoder_hidden_states=outputs.decoder_hidden_states,
            decoder_attentions=outputs.decoder_attentions,
            cross_attentions=outputs.cross_attentions,
            encoder_last_hidden_state=outputs.encoder_last_hidden_state,
            encoder_hidden_states=outputs.encoder_hidden_states,
            encoder_attentions=outputs.encoder_attentions,
        )


__all__ = ["GenSeq2SeqForConditionalGeneration", "GenSeq2SeqModel", "GenSeq2SeqPreTrainedModel"]
