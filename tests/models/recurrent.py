"""Tiny recurrent models and padded batches for them."""

from __future__ import annotations

from typing import Any

import torch

from hf_genmodels.models.configuration_rnn_seq2seq import GenRNNSeq2SeqConfig
from hf_genmodels.models.modeling_rnn_seq2seq import GenRNNSeq2SeqForConditionalGeneration

SIZES: dict[str, Any] = {
    "vocab_size": 41,
    "hidden_size": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "dropout": 0.0,
}
# Every cell, attention and way of feeding, each with each of the others at least once.
VARIANTS: dict[str, dict[str, Any]] = {
    "lstm none": {"cell": "lstm", "attention": "none"},
    "lstm dot feeding": {"cell": "lstm", "attention": "dot", "input_feeding": True},
    "lstm general": {"cell": "lstm", "attention": "general", "encoder_layers": 3},
    "lstm additive feeding": {"cell": "lstm", "attention": "additive", "input_feeding": True},
    "gru none": {"cell": "gru", "attention": "none", "bidirectional_encoder": False},
    "gru dot": {"cell": "gru", "attention": "dot", "source_vocab_size": 29},
    "gru general feeding": {"cell": "gru", "attention": "general", "input_feeding": True},
    "gru additive": {"cell": "gru", "attention": "additive", "tie_word_embeddings": False},
    "rnn none": {"cell": "rnn", "attention": "none"},
    "rnn dot feeding": {
        "cell": "rnn",
        "attention": "dot",
        "input_feeding": True,
        "embedding_size": 10,
        "tie_word_embeddings": False,
    },
    "rnn general": {"cell": "rnn", "attention": "general"},
    "rnn additive": {"cell": "rnn", "attention": "additive", "source_vocab_size": 29},
}
LENGTHS = (7, 4, 1)


def make_model(**fields: Any) -> GenRNNSeq2SeqForConditionalGeneration:
    """Return a tiny model in eval mode, with weights large enough that every part matters."""
    torch.manual_seed(0)
    model = GenRNNSeq2SeqForConditionalGeneration(GenRNNSeq2SeqConfig(**(SIZES | fields)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
    return model.eval()


def make_batch(lengths: tuple[int, ...] = LENGTHS) -> dict[str, torch.Tensor]:
    """Return sources of these lengths, padded on the right."""
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 29, mask.shape, generator=generator)
    return {"input_ids": ids * mask, "attention_mask": mask.long()}


def make_labels(rows: int = len(LENGTHS), length: int = 6) -> torch.Tensor:
    """Return labels of which some do not count."""
    labels = torch.randint(3, 41, (rows, length), generator=torch.Generator().manual_seed(2))
    labels[0, 4:] = -100
    labels[-1, 2:] = -100
    return labels
