"""Weights and configurations between Marian of transformers and our encoder-decoder, both ways.

Both are the Transformer of Vaswani et al. 2017 with post-norm; the weights differ in their names and
in the shape of the head's bias.
"""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import MarianConfig

SHARED_FIELDS = (
    "max_position_embeddings",
    "d_model",
    "encoder_layers",
    "decoder_layers",
    "activation_function",
    "scale_embedding",
    "attention_dropout",
    "activation_dropout",
    "init_std",
    "use_cache",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "tie_word_embeddings",
)
# What our configuration must say for the network to be Marian's.
MARIAN_SWITCHES = {
    "position_embedding": "sinusoidal",
    "norm": "layernorm",
    "norm_position": "post",
    "norm_eps": 1e-5,
    "norm_affine": True,
    "use_bias": True,
    "qk_norm": False,
    "attention_scale": 1.0,
    "logit_softcap": None,
    "cross_attention": "full",
    "refinement_decoder": False,
}
SELF_ATTENTION_NAMES = {
    "attn.q_proj": "self_attn.q_proj",
    "attn.k_proj": "self_attn.k_proj",
    "attn.v_proj": "self_attn.v_proj",
    "attn.o_proj": "self_attn.out_proj",
    "attn_norm": "self_attn_layer_norm",
}
CROSS_ATTENTION_NAMES = {
    "cross_attn.q_proj": "encoder_attn.q_proj",
    "cross_attn.k_proj": "encoder_attn.k_proj",
    "cross_attn.v_proj": "encoder_attn.v_proj",
    "cross_attn.o_proj": "encoder_attn.out_proj",
    "cross_attn_norm": "encoder_attn_layer_norm",
}
MLP_NAMES = {
    "mlp.up_proj": "fc1",
    "mlp.down_proj": "fc2",
    "mlp_norm": "final_layer_norm",
}


def weight_names(config: Any) -> dict[str, str]:
    """Return our name of every weight that only has another name in a `MarianMTModel`.

    Args:
        config: A configuration of ours.

    Returns:
        Our name -> Marian's.
    """
    names = {"lm_head.weight": "lm_head.weight"}
    if config.shares_vocabulary:
        names["model.embed_tokens.weight"] = "model.shared.weight"
    for side, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        table = f"model.{side}.embed_tokens.weight"
        names[table] = table
        modules = SELF_ATTENTION_NAMES | MLP_NAMES
        if side == "decoder":
            modules |= CROSS_ATTENTION_NAMES
        for layer in range(layers):
            prefix = f"model.{side}.layers.{layer}."
            for ours, theirs in modules.items():
                for kind in ("weight", "bias"):
                    names[f"{prefix}{ours}.{kind}"] = f"{prefix}{theirs}.{kind}"
    return names


def fields_from_marian(config: MarianConfig, has_bias: bool = False) -> dict[str, Any]:
    """Return the fields of our configuration for a Marian configuration.

    Args:
        config: The Marian configuration.
        has_bias: Whether the checkpoint adds a bias to its logits.

    Raises:
        ValueError: If encoder and decoder differ in more than their depth, with every difference.
    """
    different = [
        f"encoder_{name}={getattr(config, f'encoder_{name}')} and "
        f"decoder_{name}={getattr(config, f'decoder_{name}')}"
        for name in ("attention_heads", "ffn_dim")
        if getattr(config, f"encoder_{name}") != getattr(config, f"decoder_{name}")
    ]
    if different:
        raise ValueError(
            "This Marian checkpoint cannot be converted, whose encoder and decoder have other "
            f"widths: {'; '.join(different)}."
        )
    shares = config.share_encoder_decoder_embeddings
    return {name: getattr(config, name) for name in SHARED_FIELDS} | {
        "vocab_size": config.vocab_size if shares else config.decoder_vocab_size,
        "source_vocab_size": None if shares else config.vocab_size,
        "num_attention_heads": config.encoder_attention_heads,
        "intermediate_size": config.encoder_ffn_dim,
        "residual_dropout": config.dropout,
        "embedding_dropout": config.dropout,
        "head_bias": has_bias,
    }


def weights_from_marian(
    weights: Mapping[str, torch.Tensor], config: Any
) -> dict[str, torch.Tensor]:
    """Return our weights for the state dict of a `MarianMTModel`.

    Args:
        weights: The state dict.
        config: Our configuration, made by [`fields_from_marian`].

    Raises:
        ValueError: If the checkpoint says that both sides share an embedding, and has two.
    """
    converted = {ours: weights[theirs] for ours, theirs in weight_names(config).items()}
    if config.shares_vocabulary:
        tables = [weights[f"model.{side}.embed_tokens.weight"] for side in ("encoder", "decoder")]
        if not torch.equal(*tables):
            raise ValueError(
                "This Marian checkpoint says share_encoder_decoder_embeddings=True, but its encoder "
                "and its decoder have different embeddings: it cannot be converted."
            )
        converted["model.embed_tokens.weight"] = tables[0]
    if config.head_bias:
        converted["lm_head.bias"] = weights["final_logits_bias"][0]
    return converted


def differences_from_marian(config: Any) -> list[str]:
    """Return what keeps a configuration of ours from being Marian's, a sentence each."""
    reasons = [
        f"{name}={getattr(config, name)!r}, Marian has {needed!r}"
        for name, needed in MARIAN_SWITCHES.items()
        if getattr(config, name) != needed
    ]
    if config.num_key_value_heads != config.num_attention_heads:
        reasons.append(
            f"num_key_value_heads={config.num_key_value_heads}, Marian has as many as query heads "
            f"({config.num_attention_heads})"
        )
    if config.pad_token_id is None:
        reasons.append("pad_token_id=None, Marian cannot do without one")
    return reasons


def fields_to_marian(config: Any) -> dict[str, Any]:
    """Return the fields of a `MarianConfig` for a configuration of ours.

    Raises:
        ValueError: If the configuration is not Marian's, with every reason.
    """
    reasons = differences_from_marian(config)
    if reasons:
        raise ValueError(
            "This model cannot be written as Marian: " + "; ".join(reasons) + ". Train with the "
            "preset `marian` if the folder must load as MarianMTModel."
        )
    fields = {name: getattr(config, name) for name in SHARED_FIELDS}
    for side in ("encoder", "decoder"):
        fields[f"{side}_attention_heads"] = config.num_attention_heads
        fields[f"{side}_ffn_dim"] = config.intermediate_size
    return fields | {
        "vocab_size": config.source_vocab_size or config.vocab_size,
        "decoder_vocab_size": config.vocab_size,
        "share_encoder_decoder_embeddings": config.shares_vocabulary,
        "dropout": config.residual_dropout,
        "forced_eos_token_id": None,
    }


def weights_to_marian(weights: Mapping[str, torch.Tensor], config: Any) -> dict[str, torch.Tensor]:
    """Return the state dict of a `MarianMTModel` for our weights; its positions are not in it.

    Args:
        weights: Our state dict.
        config: Our configuration.
    """
    converted = {theirs: weights[ours] for ours, theirs in weight_names(config).items()}
    bias = weights.get("lm_head.bias")
    if bias is None:
        bias = torch.zeros_like(weights["lm_head.weight"][:, 0])
    converted["final_logits_bias"] = bias[None]
    return converted


__all__ = [
    "differences_from_marian",
    "fields_from_marian",
    "fields_to_marian",
    "weights_from_marian",
    "weights_to_marian",
]
