"""Weights and configurations between GPT-2 of transformers and our language model, both ways.

GPT-2 keeps its projections as `Conv1D`, whose weight is the transpose of a linear layer's, and
queries, keys and values in one of them.
"""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import GPT2Config

SHARED_FIELDS = (
    "vocab_size",
    "n_positions",
    "n_embd",
    "n_layer",
    "n_head",
    "n_inner",
    "activation_function",
    "resid_pdrop",
    "embd_pdrop",
    "attn_pdrop",
    "layer_norm_epsilon",
    "initializer_range",
    "use_cache",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "tie_word_embeddings",
)
# What our configuration must say for the network to be GPT-2's.
GPT2_SWITCHES = {
    "position_embedding": "learned",
    "norm": "layernorm",
    "norm_affine": True,
    "use_bias": True,
    "qk_norm": False,
    "attention_scale": 1.0,
    "logit_softcap": None,
    "num_value_embeddings": 0,
    "image_sizes": [],
}
# Our name in a block -> GPT-2's; the last entry tells whether the weight is transposed.
BLOCK_NAMES = (
    ("attn_norm", "ln_1", False),
    ("attn.o_proj", "attn.c_proj", True),
    ("mlp_norm", "ln_2", False),
    ("mlp.up_proj", "mlp.c_fc", True),
    ("mlp.down_proj", "mlp.c_proj", True),
)
MODEL_NAMES = (
    ("model.embed_tokens", "transformer.wte"),
    ("model.embed_positions", "transformer.wpe"),
    ("model.final_norm", "transformer.ln_f"),
    ("lm_head", "lm_head"),
)
QKV = ("attn.q_proj", "attn.k_proj", "attn.v_proj")


def fields_from_gpt2(config: GPT2Config) -> dict[str, Any]:
    """Return the fields of our configuration for a GPT-2 configuration.

    Raises:
        ValueError: If the checkpoint uses a variant of attention that our model does not have.
    """
    unsupported = {
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
        "add_cross_attention": False,
        "scale_attn_weights": True,
    }
    for name, needed in unsupported.items():
        if getattr(config, name) != needed:
            raise ValueError(
                f"This GPT-2 checkpoint has {name}={getattr(config, name)}; only {needed} can be "
                "converted."
            )
    return {name: getattr(config, name) for name in SHARED_FIELDS}


def weights_from_gpt2(
    weights: Mapping[str, torch.Tensor], num_layers: int
) -> dict[str, torch.Tensor]:
    """Return our weights for the state dict of a `GPT2LMHeadModel`."""
    converted = {}
    for ours, theirs in MODEL_NAMES:
        for kind in ("weight", "bias"):
            if f"{theirs}.{kind}" in weights:
                converted[f"{ours}.{kind}"] = weights[f"{theirs}.{kind}"]
    for layer in range(num_layers):
        ours_prefix, theirs_prefix = f"model.layers.{layer}.", f"transformer.h.{layer}."
        for ours, theirs, transposed in BLOCK_NAMES:
            weight = weights[f"{theirs_prefix}{theirs}.weight"]
            converted[f"{ours_prefix}{ours}.weight"] = weight.T if transposed else weight
            converted[f"{ours_prefix}{ours}.bias"] = weights[f"{theirs_prefix}{theirs}.bias"]
        for kind in ("weight", "bias"):
            fused = weights[f"{theirs_prefix}attn.c_attn.{kind}"]  # (D, 3 D) or (3 D,)
            for name, part in zip(QKV, fused.chunk(3, dim=-1), strict=True):
                converted[f"{ours_prefix}{name}.{kind}"] = part.T if kind == "weight" else part
    return {name: tensor.contiguous() for name, tensor in converted.items()}


def differences_from_gpt2(config: Any) -> list[str]:
    """Return what keeps a configuration of ours from being GPT-2's, a sentence each."""
    reasons = [
        f"{name}={getattr(config, name)!r}, GPT-2 has {needed!r}"
        for name, needed in GPT2_SWITCHES.items()
        if getattr(config, name) != needed
    ]
    if config.num_key_value_heads != config.num_attention_heads:
        reasons.append(
            f"num_key_value_heads={config.num_key_value_heads}, GPT-2 has as many as query heads "
            f"({config.num_attention_heads})"
        )
    return reasons


def fields_to_gpt2(config: Any) -> dict[str, Any]:
    """Return the fields of a `GPT2Config` for a configuration of ours.

    Raises:
        ValueError: If the configuration is not GPT-2's, with every reason.
    """
    reasons = differences_from_gpt2(config)
    if reasons:
        raise ValueError(
            "This model cannot be written as GPT-2: " + "; ".join(reasons) + ". Train with the "
            "preset `gpt2` if the folder must load as GPT2LMHeadModel."
        )
    return {name: getattr(config, name) for name in SHARED_FIELDS}


def weights_to_gpt2(
    weights: Mapping[str, torch.Tensor], num_layers: int
) -> dict[str, torch.Tensor]:
    """Return the state dict of a `GPT2LMHeadModel` for our weights."""
    converted = {}
    for ours, theirs in MODEL_NAMES:
        for kind in ("weight", "bias"):
            if f"{ours}.{kind}" in weights:
                converted[f"{theirs}.{kind}"] = weights[f"{ours}.{kind}"]
    for layer in range(num_layers):
        ours_prefix, theirs_prefix = f"model.layers.{layer}.", f"transformer.h.{layer}."
        for ours, theirs, transposed in BLOCK_NAMES:
            weight = weights[f"{ours_prefix}{ours}.weight"]
            converted[f"{theirs_prefix}{theirs}.weight"] = weight.T if transposed else weight
            converted[f"{theirs_prefix}{theirs}.bias"] = weights[f"{ours_prefix}{ours}.bias"]
        for kind in ("weight", "bias"):
            parts = [weights[f"{ours_prefix}{name}.{kind}"] for name in QKV]
            parts = [part.T if kind == "weight" else part for part in parts]
            converted[f"{theirs_prefix}attn.c_attn.{kind}"] = torch.cat(parts, dim=-1)
    return {name: tensor.contiguous() for name, tensor in converted.items()}
