"""Frozen text encoders: any of transformers, whose weights travel inside a GAN's checkpoint."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import (
    CONFIG_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    PreTrainedConfig,
    PreTrainedModel,
)

# What says where a configuration came from, and not what the network is.
ORIGINS = ("_name_or_path", "architectures", "auto_map", "dtype", "transformers_version")


def read_text_encoder(name: str) -> PreTrainedModel:
    """Read an encoder of texts, in fp32, without any code from elsewhere.

    Of a model of texts and images, such as CLIP, the part that reads texts is taken.

    Args:
        name: Id on the hub, or a folder.

    Returns:
        The encoder, for `frozen_fields` and `copy_text_encoder`.

    Raises:
        ValueError: If it is no encoder of texts.
        OSError: If there is no such model.
    """
    config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    if config.is_encoder_decoder:
        raise ValueError(
            f"{name} is an encoder-decoder ({config.model_type}), and a text encoder only reads. "
            "Choose an encoder, such as BERT, DistilBERT or CLIP."
        )
    config = config.get_text_config()
    check_reads_text(config, name)
    return AutoModel.from_pretrained(
        name,
        config=config,
        dtype=torch.float32,
        trust_remote_code=False,
        use_safetensors=True,
    )


def check_reads_text(config: PreTrainedConfig, name: str) -> None:
    """Refuse a model that does not make states of token ids.

    Args:
        config: Configuration of the model.
        name: What the message calls it.

    Raises:
        ValueError: If it is one of images or sounds, or has no base model.
    """
    if type(config) not in MODEL_MAPPING:
        raise ValueError(f"{name} ({config.model_type}) cannot be loaded by AutoModel.")
    kinds: Any = MODEL_MAPPING[type(config)]
    kind = kinds[0] if isinstance(kinds, (tuple, list)) else kinds
    if kind.main_input_name != "input_ids":
        raise ValueError(
            f"{name} ({config.model_type}) reads {kind.main_input_name} and no texts. Choose an "
            "encoder of texts, such as BERT, DistilBERT or CLIP."
        )


def make_encoder_config(fields: Mapping[str, Any]) -> PreTrainedConfig:
    """Return the configuration that a dictionary holds, without any code from elsewhere.

    Args:
        fields: What `to_dict` of the configuration of an encoder returned.

    Raises:
        ValueError: If the dictionary names no kind of encoder that transformers knows.
    """
    model_type = fields.get("model_type")
    if model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"text_encoder has model_type={model_type!r}, which transformers does not know. Give the "
            "configuration of one of its encoders, such as bert or distilbert."
        )
    kept = {key: value for key, value in fields.items() if key not in (*ORIGINS, "model_type")}
    config = CONFIG_MAPPING[model_type](**kept)
    if config.is_encoder_decoder:
        raise ValueError(f"text_encoder is an encoder-decoder ({model_type}). Choose an encoder.")
    check_reads_text(config, "text_encoder")
    return config


def frozen_fields(encoder: PreTrainedModel) -> dict[str, Any]:
    """Return the fields of a `GenGANConfig` whose text encoder this one is.

    Args:
        encoder: What `read_text_encoder` returned.
    """
    fields = encoder.config.to_diff_dict()
    kept = {key: value for key, value in fields.items() if key not in ORIGINS}
    return {
        "text_encoder": kept | {"model_type": encoder.config.model_type},
        "vocab_size": encoder.config.vocab_size,
    }


def copy_text_encoder(model: PreTrainedModel, encoder: PreTrainedModel) -> None:
    """Give a generator or discriminator the weights of its frozen encoder.

    Args:
        model: A generator or discriminator whose configuration was made of `frozen_fields`.
        encoder: What `read_text_encoder` returned.
    """
    model.get_submodule("condition.text.encoder").load_state_dict(encoder.state_dict())


__all__ = [
    "check_reads_text",
    "copy_text_encoder",
    "frozen_fields",
    "make_encoder_config",
    "read_text_encoder",
]
