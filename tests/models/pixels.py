"""Small language models of pictures with random weights."""

from __future__ import annotations

from typing import Any

import torch

from hf_genmodels.models.configuration_gpt import GenGPTConfig
from hf_genmodels.models.modeling_gpt import GenGPTForCausalLM

IMAGE, SMALL_IMAGE, CAPTION, FIRST_COLOUR, COLOURS = 40, 41, 42, 43, 8
SIZE, SMALL = 4, 2
# Every way in which a step could differ from the whole model.
VARIANTS: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "rotary": {"position_embedding": "rotary", "qk_norm": True, "attention_scale": 2.5},
    "sinusoidal": {"position_embedding": "sinusoidal", "norm": "rmsnorm", "norm_affine": False},
    "grouped": {"num_key_value_heads": 2, "hidden_act": "relu2", "logit_softcap": 5.0},
    "values": {
        "num_value_embeddings": 1,
        "tie_word_embeddings": False,
        "position_embedding": "rotary",
    },
}


def config(**fields: Any) -> GenGPTConfig:
    values: dict[str, Any] = {
        "vocab_size": FIRST_COLOUR + COLOURS + 2,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 48,
        "image_sizes": [SIZE, SMALL],
        "image_token_ids": [IMAGE, SMALL_IMAGE],
        "caption_token_id": CAPTION,
        "palette_token_id": FIRST_COLOUR,
        "palette_size": COLOURS,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    return GenGPTConfig(**(values | fields))


def model(**fields: Any) -> GenGPTForCausalLM:
    """Return a model in eval mode whose next tokens depend clearly on all earlier ones."""
    torch.manual_seed(0)
    made = GenGPTForCausalLM(config(**fields))
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.3)
    return made.eval()
