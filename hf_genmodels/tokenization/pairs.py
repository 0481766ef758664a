"""Tokenizers of sequence-to-sequence models."""

from __future__ import annotations

import copy

from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from hf_genmodels.errors import UserError


def for_pairs(tokenizer: PreTrainedTokenizerFast, model_max_length: int) -> PreTrainedTokenizerFast:
    """Return a copy that pads on the right and ends every text with the end-of-sequence token.

    The end stands in `tokenizer.json`, so that whoever loads the tokenizer encodes a source as it was
    encoded in training.

    Args:
        tokenizer: A fast tokenizer with end-of-sequence and padding tokens.
        model_max_length: Longest source of the model, in tokens.

    Raises:
        UserError: If it has no such tokens.
    """
    for name in ("eos_token", "pad_token"):
        if getattr(tokenizer, name) is None:
            raise UserError(
                f"The tokenizer has no {name}, which a sequence-to-sequence model needs. Train one "
                "with genmodels tokenizer train, or leave out --tokenizer_name."
            )
    tokenizer = copy.deepcopy(tokenizer)
    end = (tokenizer.eos_token, tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end[0]}", pair=f"$A $B {end[0]}", special_tokens=[end]
    )
    tokenizer.padding_side = "right"
    tokenizer.model_max_length = model_max_length
    return tokenizer
