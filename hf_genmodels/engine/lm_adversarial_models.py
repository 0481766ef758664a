"""Generator, discriminator and the frozen start that adversarial training of a language model begins with."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hf_genmodels.config.lm_adversarial import AdversarialOptimConfig, TrainLMAdversarialConfig
from hf_genmodels.engine.checkpoint import MODEL_CONFIG
from hf_genmodels.engine.muon import can_fuse
from hf_genmodels.engine.optim import parameter_groups
from hf_genmodels.errors import UserError
from hf_genmodels.hub.loading import load_model, load_tokenizer
from hf_genmodels.models.configuration_gpt import GenGPTConfig
from hf_genmodels.models.modeling_gpt import GenGPTForCausalLM
from hf_genmodels.models.modeling_text_discriminator import GenTextDiscriminator
from hf_genmodels.tokenization.saving import load_tokenizer as load_local_tokenizer
from hf_genmodels.tokenization.saving import save_tokenizer

DISCRIMINATOR = "discriminator"
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


class AdversarialNetworks(nn.Module):
    """All networks of a run, which are saved and moved together.

    Args:
        generator: Writes texts.
        discriminator: Judges them.
    """

    def __init__(self, generator: PreTrainedModel, discriminator: GenTextDiscriminator):
        super().__init__()
        self.generator = generator
        self.discriminator = discriminator
        # Saved with the others: a run goes on also where its starting checkpoint is gone.
        self.reference = copy.deepcopy(generator).eval().requires_grad_(False)

    @property
    def config(self) -> Any:
        """The generator's configuration."""
        return self.generator.config

    def train(self, mode: bool = True) -> AdversarialNetworks:
        """Set the mode; the frozen start stays as it is."""
        super().train(mode)
        self.reference.eval()
        return self


def own_tokenizer(config: TrainLMAdversarialConfig, output_dir: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer of the starting checkpoint, and keep it in the output folder.

    Raises:
        UserError: If there is none.
    """
    if (output_dir / "tokenizer.json").is_file():
        return load_local_tokenizer(output_dir)
    tokenizer = load_tokenizer(str(config.model_name_or_path))
    save_tokenizer(tokenizer, output_dir)
    return tokenizer


def build_networks(
    config: TrainLMAdversarialConfig, checkpoint: Path | None
) -> AdversarialNetworks:
    """Load the generator and make a new discriminator.

    Args:
        config: The run's options.
        checkpoint: Checkpoint whose weights will replace these.

    Raises:
        UserError: If the model is not one to go on with, or the windows do not fit it.
    """
    if checkpoint is not None:
        model_config = GenGPTConfig.from_json_file(checkpoint / MODEL_CONFIG)
        generator: PreTrainedModel = GenGPTForCausalLM(model_config)
    else:
        generator = _load_generator(str(config.model_name_or_path))
    if config.block_size > generator.config.max_position_embeddings:
        raise UserError(
            f"--block_size {config.block_size} is longer than the model's context of "
            f"{generator.config.max_position_embeddings} tokens."
        )
    ids = {name: getattr(generator.config, name) for name in TOKEN_IDS}
    sizes = config.discriminator_config(generator.config.vocab_size, **ids)
    return AdversarialNetworks(generator, GenTextDiscriminator(sizes))


def build_optimizer(
    networks: AdversarialNetworks, config: AdversarialOptimConfig
) -> torch.optim.Optimizer:
    """Return one AdamW for both networks.

    A step changes only parameters that have a gradient: after the discriminator's backward pass those
    of the discriminator, after the generator's those of the generator.
    """
    rates = {"generator": config.generator_lr, DISCRIMINATOR: config.discriminator_lr}
    groups: list[dict[str, Any]] = [
        {
            "params": [parameter for _, parameter in members],
            "name": f"{network}.{kind}",
            "lr": lr,
            "weight_decay": config.weight_decay if kind in ("hidden", "head") else 0.0,
        }
        for network, lr in rates.items()
        for kind, members in parameter_groups(networks.get_submodule(network)).items()
    ]
    fused = all(can_fuse(group["params"]) for group in groups)
    optimizer = torch.optim.AdamW(groups, betas=(config.beta1, config.beta2), fused=fused)
    # A run may stop before the generator is updated, and what is saved must be complete.
    for group in groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                "step": torch.zeros((), device=parameter.device if fused else "cpu"),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
    return optimizer


def _load_generator(name: str) -> PreTrainedModel:
    model = load_model(name)
    if model.config.model_type != GenGPTConfig.model_type:
        raise UserError(
            f"--model_name_or_path {name} is a {model.config.model_type!r} model. Adversarial training "
            f"goes on with {GenGPTConfig.model_type!r} models, which genmodels train lm makes."
        )
    if model.config.draws_pictures:
        raise UserError(
            f"--model_name_or_path {name} is a language model that draws, and its discriminator reads "
            "texts. Give a model that genmodels train lm trained on texts."
        )
    return model
