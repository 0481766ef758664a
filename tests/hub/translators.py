"""Small encoder-decoders with random weights, and tokenizers that end a text."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hf_genmodels.models.configuration_seq2seq import GenSeq2SeqConfig
from hf_genmodels.models.modeling_seq2seq import GenSeq2SeqForConditionalGeneration
from hf_genmodels.tokenization.pairs import for_pairs

SIZES: dict[str, Any] = {
    "vocab_size": 259,
    "hidden_size": 32,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 256,
    "bos_token_id": 257,
    "eos_token_id": 258,
}


def make_tokenizer(more_tokens: int = 0) -> PreTrainedTokenizerFast:
    """Return a tokenizer of bytes with `more_tokens` useless tokens before the special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    alphabet += [f"<more {index}>" for index in range(more_tokens)]
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    return for_pairs(tokenizer, 64)


def make_translator(**fields: Any) -> GenSeq2SeqForConditionalGeneration:
    """Return a model in eval mode whose outputs differ clearly from place to place."""
    torch.manual_seed(0)
    model = GenSeq2SeqForConditionalGeneration(GenSeq2SeqConfig(**(SIZES | fields)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            mean = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.normal_(mean, 0.1 if parameter.ndim == 1 else 0.3)
    return model.eval()
