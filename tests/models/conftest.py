"""Tiny models with weights large enough that every part of them matters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from hf_genmodels.models.configuration_gpt import GenGPTConfig
from hf_genmodels.models.modeling_gpt import GenGPTForCausalLM

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
NO_DROPOUT = dict.fromkeys(("attention_dropout", "residual_dropout", "embedding_dropout"), 0.0)
VARIANTS: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "modern": {
        "position_embedding": "rotary",
        "norm": "rmsnorm",
        "use_bias": False,
        "qk_norm": True,
        "attention_scale": 2.0,
        "hidden_act": "relu2",
        "num_key_value_heads": 2,
        "num_value_embeddings": 2,
        "tie_word_embeddings": False,
        "logit_softcap": 5.0,
    },
    "sinusoidal": {
        "position_embedding": "sinusoidal",
        "norm_affine": False,
        "num_key_value_heads": 1,
        "hidden_act": "silu",
    },
}


def randomise(model: torch.nn.Module, std: float = 0.3) -> None:
    """Draw every parameter, so that none is zero or one."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            mean = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.normal_(mean, 0.1 if parameter.ndim == 1 else std)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The fields of one combination of switches."""
    return dict(VARIANTS[request.param])


@pytest.fixture
def modern() -> dict[str, Any]:
    """The fields of the combination that is farthest from GPT-2."""
    return dict(VARIANTS["modern"])


@pytest.fixture
def make_config() -> Callable[..., GenGPTConfig]:
    """A maker of tiny configurations without dropout, from fields that differ."""

    def make(**fields: Any) -> GenGPTConfig:
        return GenGPTConfig(**(SIZES | NO_DROPOUT | fields))

    return make


@pytest.fixture
def make_model(make_config: Callable[..., GenGPTConfig]) -> Callable[..., GenGPTForCausalLM]:
    """A maker of tiny models in eval mode, from fields that differ."""

    def make(**fields: Any) -> GenGPTForCausalLM:
        model = GenGPTForCausalLM(make_config(**fields))
        randomise(model)
        return model.eval()

    return make


@pytest.fixture
def make_gpt2() -> Callable[..., GPT2LMHeadModel]:
    """A maker of tiny models of transformers' own GPT-2 in eval mode."""

    def make(**fields: Any) -> GPT2LMHeadModel:
        sizes = {
            "vocab_size": 97,
            "n_embd": 32,
            "n_layer": 3,
            "n_head": 4,
            "n_positions": 64,
            "bos_token_id": 1,
            "eos_token_id": 2,
        }
        model = GPT2LMHeadModel(GPT2Config(**(sizes | fields)))
        randomise(model)
        return model.eval()

    return make


@pytest.fixture
def input_ids() -> torch.LongTensor:
    """Two rows of twelve tokens, none of them special."""
    return torch.randint(3, 97, (2, 12), generator=torch.Generator().manual_seed(1))
