"""What follows from the architecture, the resolution and the number of images, unless it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from hf_genmodels.config.gan import TrainGANConfig
from hf_genmodels.engine.gan_models import GANPair
from hf_genmodels.engine.muon import can_fuse

# Learning rate and Adam's decays: those of Radford et al. 2016, of Miyato et al. 2018, our own of
# `modern` (benchmarks/results/gan.md).
ADAM = {
    "mlp": (2e-4, 0.5, 0.999),
    "dcgan": (2e-4, 0.5, 0.999),
    "resnet": (2e-4, 0.0, 0.9),
    "modern": (2e-3, 0.0, 0.99),
}
R1_AT_32 = 0.125
FEW_IMAGES = 6000
MOST_OFTEN = 8  # times that few images make R1 stronger


@dataclass(frozen=True)
class Recipe:
    """The numbers of a run, all of them known.

    Attributes:
        generator_lr: Learning rate of the generator.
        discriminator_lr: Learning rate of the discriminator.
        beta1: Decay of Adam's mean of gradients.
        beta2: Decay of Adam's mean of squared gradients.
        r1: Weight of the penalty on real images.
        r2: Weight of the penalty on generated images.
    """

    generator_lr: float
    discriminator_lr: float
    beta1: float
    beta2: float
    r1: float
    r2: float

    def __str__(self) -> str:
        """Return the numbers as they are printed."""
        rates = f"{self.generator_lr:g}"
        if self.discriminator_lr != self.generator_lr:
            rates += f" (generator), {self.discriminator_lr:g} (discriminator)"
        penalty = f"R1 {self.r1:g}, R2 {self.r2:g}" if self.r1 or self.r2 else "no R1, no R2"
        return f"learning rate {rates}, Adam ({self.beta1:g}, {self.beta2:g}), {penalty}"


def recipe_of(config: TrainGANConfig, architecture: str, num_images: int = FEW_IMAGES) -> Recipe:
    """Fill in what the options leave open.

    The weight of R1 grows with the number of pixels, over which the gradient is summed (Karras et
    al. 2020, arXiv:1912.04958, appendix B), and where images are few, which a discriminator soon knows by
    heart. The learning rate of `modern` falls with the side of the image. Both were measured up to
    32 x 32 pixels only.

    Args:
        config: The run's options.
        architecture: That of the networks.
        num_images: Training images.
    """
    lr, beta1, beta2 = ADAM[architecture]
    optim, loss = config.optim, config.loss
    if architecture == "modern":
        lr *= min(1.0, 32 / config.image_size)
    lr = optim.lr or lr
    r1 = loss.r1
    if r1 is None and loss.adversarial == "relativistic":
        scarcity = min(max(FEW_IMAGES / num_images, 1.0), MOST_OFTEN)
        r1 = R1_AT_32 * (config.image_size / 32) ** 2 * scarcity
    r1 = r1 or 0.0
    r2 = loss.r2
    if r2 is None:
        r2 = r1 if loss.adversarial == "relativistic" else 0.0
    uses_r = loss.penalty == "zero_centered"
    return Recipe(
        generator_lr=optim.generator_lr or lr,
        discriminator_lr=optim.discriminator_lr or lr,
        beta1=beta1 if optim.beta1 is None else optim.beta1,
        beta2=beta2 if optim.beta2 is None else optim.beta2,
        r1=r1 if uses_r else 0.0,
        r2=r2 if uses_r else 0.0,
    )


def build_gan_optimizer(pair: GANPair, recipe: Recipe) -> torch.optim.Optimizer:
    """Return one Adam for both networks.

    A step changes only parameters that have a gradient: after the discriminator's backward pass those
    of the discriminator, after the generator's those of the generator.
    """
    groups: list[dict[str, Any]] = [
        {
            "params": [p for p in network.parameters() if p.requires_grad],
            "name": name,
            "lr": lr,
        }
        for name, network, lr in (
            ("generator", pair.generator, recipe.generator_lr),
            ("discriminator", pair.discriminator, recipe.discriminator_lr),
        )
    ]
    return torch.optim.Adam(
        groups,
        betas=(recipe.beta1, recipe.beta2),
        fused=all(can_fuse(group["params"]) for group in groups),
    )
