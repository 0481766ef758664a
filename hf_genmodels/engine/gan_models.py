"""Generator and discriminator that training begins with: new, or trained before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from hf_genmodels.config.gan import TrainGANConfig
from hf_genmodels.config.parser import model_config_of
from hf_genmodels.data.images import ImageData
from hf_genmodels.engine.checkpoint import MODEL_CONFIG
from hf_genmodels.engine.gan_text import check_text_losses, frozen_encoder, heads_for
from hf_genmodels.errors import UserError
from hf_genmodels.hub.loading import load_companion, load_model
from hf_genmodels.models.configuration_gan import GenGANConfig
from hf_genmodels.models.frozen_text import copy_text_encoder, frozen_fields
from hf_genmodels.models.modeling_gan import (
    CHANNELS_LAST,
    GenGANDiscriminator,
    GenGANGenerator,
)

DISCRIMINATOR = "discriminator"


class GANPair(nn.Module):
    """Both networks, which are saved, moved and counted together.

    Args:
        generator: Draws images.
        discriminator: Judges them.
    """

    def __init__(self, generator: GenGANGenerator, discriminator: GenGANDiscriminator):
        super().__init__()
        self.generator = generator
        self.discriminator = discriminator

    @property
    def config(self) -> GenGANConfig:
        """The configuration that both share."""
        return self.generator.config


def build_pair(
    config: TrainGANConfig,
    data: ImageData,
    tokenizer: PreTrainedTokenizerFast | None,
    checkpoint: Path | None,
) -> GANPair:
    """Make two new networks, or load those to go on from.

    Args:
        config: The run's options.
        data: The images, which a new model is made for.
        tokenizer: Tokenizer of the captions, if the model reads them.
        checkpoint: Checkpoint whose weights will replace those of trained networks, which then need
            not be there any more.

    Raises:
        UserError: If model and images do not fit together.
    """
    is_pretrained = bool(config.model_name_or_path or config.text_encoder_name)
    if checkpoint is not None and is_pretrained:
        model_config = GenGANConfig.from_json_file(checkpoint / MODEL_CONFIG)
        pair = GANPair(GenGANGenerator(model_config), GenGANDiscriminator(model_config))
    elif config.model_name_or_path:
        pair = _load_pair(config.model_name_or_path)
        _check_fit(config.model_name_or_path, pair.config, data, config)
    else:
        pair = new_pair(config, data, tokenizer)
    check_text_losses(config, pair.config)
    if pair.config.architecture in CHANNELS_LAST:
        moved: Any = pair  # the type of `to` does not know this argument
        moved.to(memory_format=torch.channels_last)
    return pair


def new_pair(
    config: TrainGANConfig, data: ImageData, tokenizer: PreTrainedTokenizerFast | None
) -> GANPair:
    """Return two new networks for these images."""
    conditioning = config.model.conditioning or data.kind
    fields: dict[str, Any] = {
        "image_size": config.image_size,
        "num_channels": data.num_channels,
        "num_frames": config.num_frames,
        "conditioning": conditioning,
    }
    if conditioning in ("class", "attributes"):
        fields["id2label"] = dict(enumerate(data.label_names))
        fields["label2id"] = {name: index for index, name in enumerate(data.label_names)}
    if tokenizer is not None:
        fields |= {
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        fields |= heads_for(config.loss)
    encoder = frozen_encoder(config, conditioning)
    if encoder is not None:
        fields |= frozen_fields(encoder)
    model_config = model_config_of(GenGANConfig, config.model, "model", **fields)
    pair = GANPair(GenGANGenerator(model_config), GenGANDiscriminator(model_config))
    if encoder is not None:
        copy_text_encoder(pair.generator, encoder)
        copy_text_encoder(pair.discriminator, encoder)
    return pair


def _load_pair(name: str) -> GANPair:
    generator: Any = load_model(name)
    if not isinstance(generator, GenGANGenerator):
        raise UserError(
            f"--model_name_or_path {name} is a {generator.config.model_type}, not a GAN (gen_gan)."
        )
    discriminator: Any = load_companion(name, DISCRIMINATOR)
    if discriminator is None:
        raise UserError(
            f"--model_name_or_path {name} has no {DISCRIMINATOR}/ folder, without which training "
            "cannot go on."
        )
    return GANPair(generator, discriminator)


def _check_fit(name: str, model: GenGANConfig, data: ImageData, config: TrainGANConfig) -> None:
    """Check that a trained model draws images like these, of these classes."""
    size = (config.image_size, data.num_channels)
    if size != (model.image_size, model.num_channels):
        raise UserError(
            f"{name} draws {model.image_size} x {model.image_size} pixels of {model.num_channels} "
            f"channels, the images are made {size[0]} x {size[0]} of {size[1]}. Give --image_size "
            f"{model.image_size} --num_channels {model.num_channels}."
        )
    if config.num_frames != model.num_frames:
        raise UserError(
            f"{name} draws {model.num_frames} frames, and --num_frames is {config.num_frames}. Give "
            f"--num_frames {model.num_frames}."
        )
    if model.conditioning not in ("none", data.kind):
        raise UserError(
            f"{name} was conditioned on {model.conditioning}; these images have {data.kind}."
        )
    if model.conditioning in ("class", "attributes"):
        known = list((model.id2label or {}).values())
        if known != data.label_names:
            raise UserError(
                f"{name} knows {', '.join(known[:12])}; these images have "
                f"{', '.join(data.label_names[:12])}. Both must be the same, in the same order."
            )
