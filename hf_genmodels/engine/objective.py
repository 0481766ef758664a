"""What a sequence-to-sequence model minimises: a weighted sum of losses, each known by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_genmodels.config.seq2seq import LossConfig
from hf_genmodels.data.packing import IGNORED
from hf_genmodels.data.seq2seq import Counts
from hf_genmodels.losses.contrastive import info_nce, pooled
from hf_genmodels.losses.divergences import (
    js_divergence,
    kl_divergence,
    symmetric_relative_entropy,
)
from hf_genmodels.losses.sequence import sequence_unlikelihood

DIVERGENCES = {"kl": kl_divergence, "js": js_divergence, "symmetric": symmetric_relative_entropy}
INPUTS = ("input_ids", "attention_mask", "labels")
# Losses that a model computes itself and adds up.
OWN_PARTS = ("draft_loss", "refinement_loss")


def compute_losses(
    model: nn.Module,
    bare_model: PreTrainedModel,
    batch: Mapping[str, torch.Tensor],
    counts: Counts,
    config: LossConfig,
) -> dict[str, torch.Tensor]:
    """Return the loss of a micro-batch as its share of the step, and what it is made of.

    Args:
        model: The prepared model, which computes the cross-entropy.
        bare_model: The same without wrappers, for the passes of the other losses.
        batch: `input_ids`, `attention_mask`, `labels`; for the losses over groups also
            `positive_input_ids`, `positive_attention_mask`, `groups`, `negatives` and
            `negative_labels`.
        counts: What stands in the whole step, over all ranks and micro-batches.
        config: Which losses count, and how much.

    Returns:
        `loss`, which is minimised, and its unweighted parts.
    """
    inputs = {name: batch[name] for name in INPUTS}
    tokens = max(counts.tokens, 1)
    if config.consistency == "none":
        outputs: Any = model(**inputs, num_items_in_batch=tokens)
    else:
        twice = {name: tensor.repeat(2, 1) for name, tensor in inputs.items()}
        outputs = model(**twice, num_items_in_batch=2 * tokens, return_logits=True)
    loss = outputs.loss
    parts = {"cross_entropy": outputs.loss}
    parts |= {name: outputs[name] for name in OWN_PARTS if outputs.get(name) is not None}

    if config.consistency != "none":
        part = _consistency(outputs.logits, inputs["labels"], config.consistency, tokens)
        parts["consistency"] = part
        loss = loss + config.consistency_weight * part
    if config.contrastive_weight:
        states = outputs.encoder_last_hidden_state[: len(inputs["labels"])]
        part = _contrastive(bare_model, states, batch, config, max(counts.pairs, 1))
        parts["contrastive"] = part
        loss = loss + config.contrastive_weight * part
    if config.unlikelihood_weight:
        part = _unlikelihood(bare_model, batch, max(counts.negatives, 1))
        parts["unlikelihood"] = part
        loss = loss + config.unlikelihood_weight * part
    return {"loss": loss, **(parts if len(parts) > 1 else {})}


def added(
    total: Mapping[str, torch.Tensor], more: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return the losses of one more micro-batch added to those before, without their graphs."""
    return {name: total.get(name, 0.0) + part.detach() for name, part in more.items()}


def _consistency(
    logits: torch.Tensor, labels: torch.Tensor, divergence: str, tokens: int
) -> torch.Tensor:
    """Return how far two passes over the same pairs differ, in both directions (R-Drop)."""
    counted = labels.ne(IGNORED)
    first, second = (half[counted].float().log_softmax(-1) for half in logits.chunk(2))
    measure = DIVERGENCES[divergence]
    if divergence == "js":
        return measure(first, second, num_items=tokens)
    forward = measure(first, second, num_items=tokens)
    return (forward + measure(second, first, num_items=tokens)) / 2


def _contrastive(
    bare_model: PreTrainedModel,
    states: torch.Tensor,
    batch: Mapping[str, torch.Tensor],
    config: LossConfig,
    pairs: int,
) -> torch.Tensor:
    """Return InfoNCE between the mean encoder states of sources and of what belongs to them."""
    mask = batch["positive_attention_mask"]
    encoder: Any = bare_model.get_encoder()
    positives = encoder(input_ids=batch["positive_input_ids"], attention_mask=mask)
    return info_nce(
        pooled(states, batch["attention_mask"]),
        pooled(positives.last_hidden_state, mask),
        config.contrastive_temperature,
        batch["groups"],
        num_items=pairs,
    )


def _unlikelihood(
    bare_model: Any, batch: Mapping[str, torch.Tensor], negatives: int
) -> torch.Tensor:
    """Return the unlikelihood of what only targets of other sources say."""
    outputs = bare_model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        decoder_input_ids=bare_model.prepare_decoder_input_ids_from_labels(batch["negatives"]),
        use_cache=False,
    )
    return sequence_unlikelihood(outputs.logits, batch["negative_labels"], num_items=negatives)
