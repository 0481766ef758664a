"""Tiny encoder-decoder Transformers and padded batches for them."""

from __future__ import annotations

from typing import Any

import torch

from hf_genmodels.models.configuration_seq2seq import GenSeq2SeqConfig
from hf_genmodels.models.modeling_seq2seq import GenSeq2SeqForConditionalGeneration
from tests.models.conftest import randomise

DROPOUTS = ("attention_dropout", "residual_dropout", "embedding_dropout", "activation_dropout")
SIZES: dict[str, Any] = {
    "vocab_size": 41,
    "hidden_size": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
} | dict.fromkeys(DROPOUTS, 0.0)
VARIANTS: dict[str, dict[str, Any]] = {
    "vaswani": {},
    "modern": {
        "position_embedding": "rotary",
        "norm": "rmsnorm",
        "norm_position": "pre",
        "use_bias": False,
        "qk_norm": True,
        "hidden_act": "relu2",
        "num_key_value_heads": 2,
        "source_vocab_size": 29,
        "scale_embedding": False,
        "logit_softcap": 5.0,
        "encoder_layers": 3,
        "decoder_layers": 1,
    },
    "learned": {
        "position_embedding": "learned",
        "norm_affine": False,
        "num_key_value_heads": 1,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
    },
    "bidirectional": {"cross_attention": "bidirectional", "num_key_value_heads": 2},
    "bidirectional rotary": {
        "cross_attention": "bidirectional",
        "position_embedding": "rotary",
        "norm_position": "pre",
        "source_vocab_size": 29,
    },
}
LENGTHS = (7, 4, 1)


def make_config(**fields: Any) -> GenSeq2SeqConfig:
    """Return a tiny configuration without dropout."""
    return GenSeq2SeqConfig(**(SIZES | fields))


def make_model(**fields: Any) -> GenSeq2SeqForConditionalGeneration:
    """Return a tiny model in eval mode, with weights large enough that every part matters."""
    torch.manual_seed(0)
    model = GenSeq2SeqForConditionalGeneration(make_config(**fields))
    randomise(model, std=0.25)
    return model.eval()


def make_batch(
    lengths: tuple[int, ...] = LENGTHS, padding: str = "right", width: int = 0
) -> dict[str, torch.Tensor]:
    """Return sources of these lengths, padded on one side to the longest or to `width`."""
    width = max(width, *lengths)
    generator = torch.Generator().manual_seed(1)
    ids = torch.zeros(len(lengths), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        tokens = torch.randint(3, 29, (length,), generator=generator)
        place = slice(0, length) if padding == "right" else slice(width - length, width)
        ids[row, place], mask[row, place] = tokens, 1
    return {"input_ids": ids, "attention_mask": mask}


def make_labels(lengths: tuple[int, ...] = (5, 3, 6)) -> torch.LongTensor:
    """Return targets of these lengths that end with eos, padded with -100."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(3, 41, (len(lengths), max(lengths)), generator=generator)
    for row, length in enumerate(lengths):
        labels[row, length - 1] = 2
        labels[row, length:] = -100
    return labels
