"""Small generators with random weights."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from hf_genmodels.models.configuration_gan import GenGANConfig
from hf_genmodels.models.modeling_gan import GenGANDiscriminator, GenGANGenerator
from tests.hub.translators import make_tokenizer

LABELS = ("T-shirt/top", "Ankle boot", "Bag")
CLIPS: dict[str, Any] = {
    "num_frames": 4,
    "motion_dim": 3,
    "motion_hidden_size": 4,
    "video_downsampling": 1,
    "video_discriminator_width": 4,
}


def config(**fields: Any) -> GenGANConfig:
    sizes: dict[str, Any] = {
        "architecture": "dcgan",
        "image_size": 8,
        "conditioning": "class",
        "latent_dim": 4,
        "condition_dim": 4,
        "generator_width": 4,
        "discriminator_width": 4,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 16,
        "id2label": dict(enumerate(LABELS)),
    }
    return GenGANConfig(**(sizes | fields))


def generator(**fields: Any) -> GenGANGenerator:
    """Return a generator in eval mode whose images differ clearly from each other."""
    torch.manual_seed(0)
    model = GenGANGenerator(config(**fields))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.4)
    return model.eval()


def discriminator(**fields: Any) -> GenGANDiscriminator:
    torch.manual_seed(1)
    return GenGANDiscriminator(config(**fields)).eval()


def text_fields(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    ids = {name: getattr(tokenizer, name) for name in names}
    return {"conditioning": "text", "vocab_size": len(tokenizer), "id2label": None, **ids}


def text_generator(**fields: Any) -> tuple[GenGANGenerator, PreTrainedTokenizerFast]:
    """Return a generator that reads texts of up to 16 tokens, and its tokenizer."""
    tokenizer = make_tokenizer()
    return generator(**text_fields(tokenizer), **fields), tokenizer
