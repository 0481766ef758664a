"""Our encoder-decoder as CTranslate2 describes a Transformer.

Letters: H query heads, K key and value heads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hf_genmodels.errors import require_extra

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

EXTRA = ("ctranslate2", "export")
ACTIVATIONS = {
    "relu": "RELU",
    "gelu": "GELU",
    "gelu_new": "GELUTanh",
    "gelu_pytorch_tanh": "GELUTanh",
    "silu": "SWISH",
    "swish": "SWISH",
    "quick_gelu": "GELUSigmoid",
}
# What our configuration must say for CTranslate2 to have a layer for it.
SWITCHES = {
    "qk_norm": False,
    "attention_scale": 1.0,
    "logit_softcap": None,
    "cross_attention": "full",
    "refinement_decoder": False,
}


def differences_from_ctranslate2(config: Any) -> list[str]:
    """Return what CTranslate2 has no layer for, a sentence each."""
    reasons = [
        f"{name}={getattr(config, name)!r}, CTranslate2 has {needed!r}"
        for name, needed in SWITCHES.items()
        if getattr(config, name) != needed
    ]
    if config.position_embedding == "rotary":
        reasons.append(
            "position_embedding='rotary', CTranslate2 has positions that are added to the input "
            "('sinusoidal', 'learned') in encoder-decoders"
        )
    if config.hidden_act not in ACTIVATIONS:
        reasons.append(
            f"hidden_act={config.hidden_act!r}, CTranslate2 has {', '.join(sorted(ACTIVATIONS))}"
        )
    if isinstance(config.eos_token_id, list) or config.eos_token_id is None:
        reasons.append(f"eos_token_id={config.eos_token_id}, CTranslate2 has exactly one")
    return reasons


def make_spec(
    model: PreTrainedModel, source_tokens: Sequence[str], target_tokens: Sequence[str]
) -> Any:
    """Return CTranslate2's description of a model, with its weights.

    Args:
        model: An encoder-decoder of ours.
        source_tokens: Token of each id of the source's vocabulary.
        target_tokens: The same of the target.
    """
    require_extra(*EXTRA)
    from ctranslate2.specs import common_spec, transformer_spec

    config = model.config
    spec = transformer_spec.TransformerSpec.from_config(
        (config.encoder_layers, config.decoder_layers),
        config.num_attention_heads,
        pre_norm=config.norm_position == "pre",
        activation=common_spec.Activation[ACTIVATIONS[config.hidden_act]],
        rms_norm=config.norm == "rmsnorm",
    )
    network: Any = model
    writer = SpecWriter(config)
    writer.stack(spec.encoder, spec.encoder.embeddings[0], network.model.encoder)
    writer.stack(spec.decoder, spec.decoder.embeddings, network.model.decoder)
    writer.linear(spec.decoder.projection, network.lm_head)
    spec.register_source_vocabulary(list(source_tokens))
    spec.register_target_vocabulary(list(target_tokens))
    start = target_tokens[config.decoder_start_token_id]
    spec.config.decoder_start_token = start
    spec.config.bos_token = start
    spec.config.eos_token = target_tokens[config.eos_token_id]
    spec.config.unk_token = target_tokens[config.pad_token_id]  # byte-level: nothing is unknown
    spec.config.layer_norm_epsilon = config.norm_eps
    spec.validate()
    spec.optimize(quantization="float32")
    return spec


class SpecWriter:
    """Writes our layers into CTranslate2's.

    Args:
        config: Configuration of the model.
    """

    def __init__(self, config: Any):
        self.config = config

    def stack(self, spec: Any, embedding_spec: Any, stack: Any) -> None:
        """Write encoder or decoder."""
        config = self.config
        spec.scale_embeddings = math.sqrt(config.hidden_size) if config.scale_embedding else 1.0
        embedding_spec.weight = _plain(stack.embed_tokens.weight)
        positions = dict(stack.embed_positions.named_buffers()) | dict(
            stack.embed_positions.named_parameters()
        )
        spec.position_encodings.encodings = _plain(next(iter(positions.values())))
        if config.norm_position == "pre":
            self.norm(spec.layer_norm, stack.final_norm)
        for layer_spec, layer in zip(spec.layer, stack.layers, strict=True):
            self.self_attention(layer_spec.self_attention, layer)
            if "cross_attn" in dict(layer.named_children()):
                self.cross_attention(layer_spec.attention, layer)
            self.norm(layer_spec.ffn.layer_norm, layer.mlp_norm)
            self.linear(layer_spec.ffn.linear_0, layer.mlp.up_proj)
            self.linear(layer_spec.ffn.linear_1, layer.mlp.down_proj)

    def self_attention(self, spec: Any, layer: Any) -> None:
        """Write self-attention, whose queries, keys and values are one layer there."""
        attention = layer.attn
        keys, values = self.repeated(attention.k_proj), self.repeated(attention.v_proj)
        _write_linear(spec.linear[0], [_tensors(attention.q_proj), keys, values])
        self.linear(spec.linear[1], attention.o_proj)
        self.norm(spec.layer_norm, layer.attn_norm)

    def cross_attention(self, spec: Any, layer: Any) -> None:
        """Write cross-attention, whose keys and values are one layer there."""
        attention = layer.cross_attn
        keys, values = self.repeated(attention.k_proj), self.repeated(attention.v_proj)
        self.linear(spec.linear[0], attention.q_proj)
        _write_linear(spec.linear[1], [keys, values])
        self.linear(spec.linear[2], attention.o_proj)
        self.norm(spec.layer_norm, layer.cross_attn_norm)

    def repeated(self, layer: Any) -> dict[str, torch.Tensor]:
        """Return a projection to K heads as one to H: each head once for every query head."""
        groups = self.config.num_attention_heads // self.config.num_key_value_heads
        return {
            name: tensor.unflatten(0, (-1, self.config.head_dim))
            .repeat_interleave(groups, dim=0)
            .flatten(0, 1)
            for name, tensor in _tensors(layer).items()
        }

    def linear(self, spec: Any, layer: Any) -> None:
        """Write a linear layer."""
        _write_linear(spec, [_tensors(layer)])

    def norm(self, spec: Any, norm: Any) -> None:
        """Write a norm; one without weights gets those that do nothing."""
        import torch

        tensors = _tensors(norm)
        size = self.config.hidden_size
        spec.gamma = tensors.get("weight", torch.ones(size))
        if self.config.norm == "layernorm":
            spec.beta = tensors.get("bias", torch.zeros(size))


def _tensors(layer: Any) -> dict[str, torch.Tensor]:
    """Return a layer's own weights by name."""
    return {name: _plain(tensor) for name, tensor in layer.named_parameters(recurse=False)}


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().float().contiguous()


def _write_linear(spec: Any, parts: Sequence[Mapping[str, torch.Tensor]]) -> None:
    """Write layers of the same input as one, with a bias if they have one."""
    import torch

    spec.weight = torch.cat([part["weight"] for part in parts])
    if "bias" in parts[0]:
        spec.bias = torch.cat([part["bias"] for part in parts])
