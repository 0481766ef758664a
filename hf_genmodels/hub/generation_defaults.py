"""The settings of `generate` that are published with a model."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel

DEFAULT_NEW_TOKENS = 128
NUM_BEAMS = 4
LONGEST_TARGET = 256


def generation_defaults(model: PreTrainedModel) -> GenerationConfig:
    """Return the model's generation settings, completed by what suits its family.

    What is set already stays. Otherwise a language model samples with temperature 0.8 and the
    smallest set of tokens that holds 95 % of the probability (Holtzman et al. 2020,
    arXiv:1904.09751), at most 128 new tokens and half of the context; and a sequence-to-sequence
    model searches with 4 beams until no better result is in sight, at most as many tokens as it has
    positions, or 256.

    Args:
        model: A model that can generate.
    """
    settings = copy.deepcopy(model.generation_config)
    settings._from_model_config = False
    config = model.config
    if config.is_encoder_decoder:
        _search_with_beams(settings, config)
    else:
        _sample(settings, config)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if getattr(settings, name) is None:
            setattr(settings, name, getattr(config, name))
    return settings


def _sample(settings: GenerationConfig, config: PreTrainedConfig) -> None:
    """Complete the settings of a language model."""
    if settings.do_sample is None:
        settings.do_sample = True
    if settings.do_sample and settings.temperature is None and settings.top_p is None:
        settings.temperature = 0.8
        settings.top_p = 0.95
    if settings.max_new_tokens is None and settings.max_length is None:
        settings.max_new_tokens = min(DEFAULT_NEW_TOKENS, config.max_position_embeddings // 2)


def _search_with_beams(settings: GenerationConfig, config: PreTrainedConfig) -> None:
    """Complete the settings of a sequence-to-sequence model."""
    if settings.do_sample is None:
        settings.do_sample = False
    if settings.num_beams is None and not settings.do_sample:
        settings.num_beams = NUM_BEAMS
    if settings.max_new_tokens is None and settings.max_length is None:
        positions = config.to_dict().get("max_position_embeddings")
        settings.max_new_tokens = positions or LONGEST_TARGET
    if settings.decoder_start_token_id is None:
        settings.decoder_start_token_id = config.decoder_start_token_id
