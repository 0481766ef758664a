"""A second decoder that rewrites the first one's draft.

Xia et al. 2017, "Deliberation Networks: Sequence Generation Beyond One-Pass Decoding". The first
decoder writes a draft; the second one sees the source and, with an attention of its own, the states
that the first decoder has for that draft, and writes the final text.

Shapes are written with these letters: B batch, S tokens of the source, T tokens of the target,
U tokens of the draft, D hidden_size.
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import (
    DynamicCache,
    EncoderDecoderCache,
    GenerationConfig,
    PreTrainedConfig,
)
from transformers.modeling_outputs import Seq2SeqLMOutput
from transformers.utils import ModelOutput

from .linear_cross_entropy import IGNORE_INDEX
from .seq2seq_loss import decoder_inputs_from_labels, loss_from_states

ROWS_AT_ONCE = 512  # of the draft, whose logits are held at once
NO_OUTPUTS = {
    "return_dict_in_generate": False,
    "output_scores": False,
    "output_logits": False,
    "output_attentions": False,
    "output_hidden_states": False,
    "num_return_sequences": 1,
}


@dataclass
class GenSeq2SeqOutput(Seq2SeqLMOutput):
    """What a sequence-to-sequence model returns, with the two losses of a refinement model.

    Attributes:
        draft_loss: Loss of the first decoder.
        refinement_loss: Loss of the second decoder.
    """

    draft_loss: torch.FloatTensor | None = None
    refinement_loss: torch.FloatTensor | None = None


class RefinementMixin:
    """Adds the second pass to a model with `model.decoder` and `model.refinement_decoder`."""

    config: PreTrainedConfig
    model: Any
    lm_head: nn.Module

    def rewrites(self, draft_ids: torch.LongTensor | None = None) -> bool:
        """Return whether there is a second decoder.

        Raises:
            ValueError: If there is none, but a draft to rewrite.
        """
        if draft_ids is not None and not self.config.refinement_decoder:
            raise ValueError(
                "draft_ids were given, but this model has no second decoder to rewrite them. Leave "
                "them out, or train with refinement_decoder: true."
            )
        return bool(self.config.refinement_decoder)

    def freeze_first_pass(self) -> None:
        """Train the second decoder alone: everything else, also the shared head, is frozen."""
        self.requires_grad_(False)
        for name, parameter in self.model.refinement_decoder.named_parameters():
            parameter.requires_grad_(not name.startswith("embed_tokens."))

    @property
    def first_pass_is_frozen(self) -> bool:
        """Whether no weight of the first decoder's blocks is trained."""
        return not any(weight.requires_grad for weight in self.model.decoder.layers.parameters())

    def join_losses(self, draft_loss: torch.Tensor, refinement_loss: torch.Tensor) -> torch.Tensor:
        """Return the loss to minimise.

        draft_loss + refinement_loss_weight * refinement_loss, or the second alone if the first pass
        is frozen.
        """
        if self.first_pass_is_frozen:
            return refinement_loss
        return draft_loss + self.config.refinement_loss_weight * refinement_loss

    def first_pass(
        self,
        labels: torch.LongTensor,
        label_smoothing: float,
        num_items_in_batch: int | torch.Tensor | None,
        **decoder_inputs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the first decoder on the given target.

        Args:
            labels: The target, (B, T); -100 does not count.
            label_smoothing: Smoothing of the loss.
            num_items_in_batch: What the sum is divided by, if not by the tokens that count here.
            **decoder_inputs: Arguments of the first decoder.

        Returns:
            The first decoder's loss and the token that it finds most likely at each place, (B, T),
            -100 where the labels are.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.first_pass_is_frozen):
            states = self.model.decoder(use_cache=False, **decoder_inputs).last_hidden_state
            loss = loss_from_states(
                states,
                self.lm_head,
                labels,
                label_smoothing,
                num_items_in_batch,
                self.config.logit_softcap,
            )
        with torch.no_grad():
            rows = states.flatten(0, -2).split(ROWS_AT_ONCE)
            likeliest = torch.cat([self.lm_head(part).argmax(-1) for part in rows])
        draft = likeliest.view(labels.shape)
        return loss, draft.masked_fill(labels.to(draft.device).eq(IGNORE_INDEX), IGNORE_INDEX)

    def encode_draft(
        self, draft_ids: torch.LongTensor, **source: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the first decoder's states when it reads a draft.

        It reads the draft itself, not the target that a draft may have been made from, whose words
        its states would give away.

        Args:
            draft_ids: Token ids of the draft, (B, U); what follows the first eos is ignored.
            **source: `encoder_hidden_states` and `encoder_attention_mask`.

        Returns:
            The states (B, U, D), each of which predicts one token of the draft, and their mask
            (B, U).
        """
        draft_ids = end_at_eos(draft_ids, self.config.eos_token_id)
        mask = draft_ids.ne(IGNORE_INDEX)
        mask[:, 0] = True  # an empty draft is its start token
        inputs = decoder_inputs_from_labels(draft_ids, self.config)
        states = self.model.decoder(input_ids=inputs, use_cache=False, **source).last_hidden_state
        return states, mask.long()

    @torch.no_grad()
    def generate(
        self,
        inputs: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        *,
        return_draft: bool = False,
        draft_ids: torch.LongTensor | None = None,
        **kwargs: Any,
    ) -> torch.LongTensor | ModelOutput:
        """Generate as every transformers model does; a refinement model writes twice.

        Of a refinement model, the first decoder writes one draft for each source with the same
        settings (the best beam, or one sample), and the second decoder's text is returned: as many
        as `num_return_sequences`, with scores, attentions and hidden states of the second pass. The
        second pass always uses a dynamic cache; a streamer gets its text only.

        Args:
            inputs: Token ids of the sources, (B, S); `input_ids` is understood too.
            generation_config: Settings, as in transformers' `generate`.
            return_draft: Whether to return the drafts too. The result is then always a
                `ModelOutput`, with `sequences` and `draft_sequences` (B, 1 + U): one draft for each
                source, which begins with the start token and is padded behind its end.
            draft_ids: Token ids of drafts to rewrite, (B, U), without a start token, ending with
                eos, instead of the first decoder's.
            **kwargs: Settings and inputs, as in transformers' `generate`.

        Returns:
            Token ids, or a `ModelOutput` with `return_dict_in_generate` or `return_draft`.

        Raises:
            ValueError: If drafts are given to or wanted from a model that makes none.
        """
        if not self.rewrites(draft_ids):
            if return_draft:
                raise ValueError(
                    "return_draft=True: this model has no second decoder, so that its text is not "
                    "a draft. Leave it out, or train with refinement_decoder: true."
                )
            return super().generate(inputs, generation_config, **kwargs)
        settings = copy.deepcopy(generation_config or self.generation_config)
        kwargs = settings.update(**kwargs)
        source = self._encode_source(inputs, settings, kwargs)
        if draft_ids is None:
            first = copy.deepcopy(settings)
            first.update(**NO_OUTPUTS)
            silent = {name: value for name, value in kwargs.items() if name != "streamer"}
            sequences = super().generate(generation_config=first, **silent, **fresh(source))
        else:
            start = torch.full_like(draft_ids[:, :1], self.config.decoder_start_token_id)
            sequences = torch.cat((start, draft_ids), dim=1)
        kwargs["draft_hidden_states"], kwargs["draft_attention_mask"] = self.encode_draft(
            sequences[:, 1:],
            encoder_hidden_states=source["encoder_outputs"][0],
            encoder_attention_mask=source["attention_mask"],
        )
        settings.cache_implementation = None
        if settings.use_cache is not False:
            kwargs["past_key_values"] = EncoderDecoderCache(DynamicCache(), DynamicCache())
        settings.return_dict_in_generate = settings.return_dict_in_generate or return_draft
        outputs = super().generate(generation_config=settings, **kwargs, **fresh(source))
        if return_draft:
            outputs["draft_sequences"] = sequences
        return outputs

    def _encode_source(
        self,
        inputs: torch.Tensor | None,
        settings: GenerationConfig,
        kwargs: dict[str, Any],
    ) -> dict[str, Any]:
        """Return the encoder's output and the source's mask, taking the source out of `kwargs`."""
        ids, embeds = kwargs.pop("input_ids", inputs), kwargs.pop("inputs_embeds", None)
        mask, pad = kwargs.pop("attention_mask", None), self.config.pad_token_id
        if mask is None and ids is not None and pad is not None:
            mask = ids.ne(pad).long()
        encoded = kwargs.pop("encoder_outputs", None)
        if encoded is None:
            encoded = self.model.encoder(
                ids,
                mask,
                embeds,
                output_attentions=settings.output_attentions,
                output_hidden_states=settings.output_hidden_states,
            )
        return {"encoder_outputs": encoded, "attention_mask": mask}


def fresh(source: dict[str, Any]) -> dict[str, Any]:
    """Return a source with a shallow copy of the encoder's output, which `generate` overwrites."""
    return source | {"encoder_outputs": copy.copy(source["encoder_outputs"])}


def end_at_eos(ids: torch.LongTensor, eos: int | list[int] | None) -> torch.Tensor:
    """Replace what follows the first eos of each row of (B, U) by -100."""
    if eos is None:
        return ids
    is_eos = torch.isin(ids, torch.tensor(eos, device=ids.device)).long()
    return ids.masked_fill((is_eos.cumsum(-1) - is_eos).bool(), IGNORE_INDEX)


__all__ = ["GenSeq2SeqOutput", "RefinementMixin", "end_at_eos"]
