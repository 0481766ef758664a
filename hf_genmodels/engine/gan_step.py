"""What generator and discriminator minimise in one step, on one micro-batch.

Letters: B images of the micro-batch, C channels, S height and width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hf_genmodels.config.gan import TrainGANConfig
from hf_genmodels.data.seeding import mix_seed
from hf_genmodels.engine.gan_models import CHANNELS_LAST, GANPair
from hf_genmodels.engine.gan_recipe import Recipe
from hf_genmodels.engine.run import Run
from hf_genmodels.losses.adversarial import (
    classification_loss,
    discriminator_loss,
    generator_loss,
)
from hf_genmodels.losses.augmentation import draws, transform
from hf_genmodels.losses.consistency import balanced_consistency
from hf_genmodels.losses.gradient_penalty import (
    clip_weights,
    interpolated,
    wasserstein_divergence,
    zero_centered,
)

CONDITIONS = ("class_labels", "input_ids", "attention_mask")
_NOISE_STREAM = 21


@dataclass
class Drawn:
    """Real and generated images of one micro-batch, and what both networks found about them.

    Attributes:
        real: (B, C, S, S) in [-1, 1].
        fake: As many, drawn for the same conditions; the generator's graph hangs on them.
        condition: Keywords of the networks.
        random: Source of this micro-batch's random numbers.
        real_logits: Verdicts on the real images, (B,), without gradients, once they are known.
    """

    real: torch.Tensor
    fake: torch.Tensor
    condition: dict[str, torch.Tensor]
    random: torch.Generator
    real_logits: torch.Tensor | None = None


class GANObjective:
    """The losses of both networks.

    All noise is a pure function of the seed, the step and the place of the micro-batch among those of
    all processes, so that 1 x 4, 2 x 2 and 4 x 1 processes x micro-batches see the same.

    Args:
        config: The run's options.
        pair: Both networks.
        recipe: Weights of the penalties.
        run: The run, for the number of this process.
    """

    def __init__(self, config: TrainGANConfig, pair: GANPair, recipe: Recipe, run: Run):
        self.config, self.recipe = config, recipe
        self.loss: Any = config.loss  # its choices were checked
        self.generator, self.discriminator = pair.generator, pair.discriminator
        self.rank, self.world_size = run.accelerator.process_index, config.num_processes
        is_channels_last = pair.config.architecture in CHANNELS_LAST
        self.memory_format = torch.channels_last if is_channels_last else torch.contiguous_format
        # Its statistics would mix real and generated images.
        self.judges_apart = any(
            isinstance(module, nn.modules.batchnorm._BatchNorm)
            for module in pair.discriminator.modules()
        )

    def place(self, step: int, turn: int, number: int) -> int:
        """Return the number of this process's micro-batch among those of all processes and steps.

        Args:
            step: Steps done.
            turn: Number of the discriminator's update in this step.
            number: Number of this process's micro-batch in this update.
        """
        updates = step * self.config.optim.discriminator_steps + turn
        in_update = number * self.world_size + self.rank
        return updates * self.config.batches_per_step + in_update

    def draw(self, batch: Mapping[str, torch.Tensor], place: int) -> Drawn:
        """Generate an image for each real one.

        Args:
            batch: What `ImageBatches` gives.
            place: Number of the micro-batch, from which its random numbers follow.
        """
        seed = mix_seed(self.config.seed, _NOISE_STREAM, place) >> 1
        random = torch.Generator().manual_seed(seed)
        real = batch["images"].contiguous(memory_format=self.memory_format)
        size = (len(real), self.generator.config.latent_dim)
        latents = torch.randn(size, generator=random).to(real.device)
        uses_condition = self.generator.config.conditioning != "none"
        condition = {name: batch[name] for name in CONDITIONS if uses_condition and name in batch}
        fake = self.generator(latents, **condition).images
        return Drawn(real, fake.contiguous(memory_format=self.memory_format), condition, random)

    def discriminator_losses(self, drawn: Drawn, step: int) -> dict[str, torch.Tensor]:
        """Return what the discriminator minimises, `d_loss` their weighted sum, and the scores.

        Args:
            drawn: The images; learns the verdicts on the real ones.
            step: Number of the generator's update, which says whether a lazy penalty is due.
        """
        loss, fake = self.loss, drawn.fake.detach()
        with_penalty = loss.penalty == "zero_centered" and step % loss.penalty_every == 0
        with_penalty = with_penalty and bool(self.recipe.r1 or self.recipe.r2)
        images = self._augmented(torch.cat((drawn.real, fake)), drawn)
        if with_penalty:
            images = images.detach().requires_grad_()
        logits, classes = self._judge(images, drawn.condition)
        real_logits, fake_logits = logits.chunk(2)
        losses = {"adversarial": discriminator_loss(loss.adversarial, real_logits, fake_logits)}
        total = losses["adversarial"]
        if with_penalty:
            losses["penalty"] = self._zero_centered(logits, images)
            total = total + losses["penalty"] * loss.penalty_every
        if loss.penalty in ("interpolated", "divergence"):
            losses["penalty"] = self._between(drawn)
            total = total + losses["penalty"]
        if classes is not None:
            labels = drawn.condition["class_labels"]
            losses["classifier"] = classification_loss(classes.chunk(2)[0], labels)
            total = total + loss.classifier_weight * losses["classifier"]
        if loss.consistency_weight:
            losses["consistency"] = self._consistency(drawn, fake, logits)
            total = total + loss.consistency_weight * losses["consistency"]
        drawn.real_logits = real_logits.detach()
        return {
            "d_loss": total,
            **{f"d_{name}": value for name, value in losses.items()},
            "real_score": real_logits.mean(),
            "fake_score": fake_logits.mean(),
            "d_accuracy": (real_logits > fake_logits).float().mean(),
        }

    def generator_losses(self, drawn: Drawn) -> dict[str, torch.Tensor]:
        """Return what the generator minimises, `g_loss` their weighted sum.

        The real images were judged in the discriminator's turn, just before its update: the relativistic
        loss takes those verdicts and saves a pass.
        """
        images = self._augmented(drawn.fake, drawn)
        output = self.discriminator(images, **drawn.condition)
        total = generator_loss(self.loss.adversarial, output.logits, drawn.real_logits)
        losses = {"g_adversarial": total}
        if output.class_logits is not None:
            labels = drawn.condition["class_labels"]
            losses["g_classifier"] = classification_loss(output.class_logits, labels)
            total = total + self.loss.classifier_weight * losses["g_classifier"]
        return {"g_loss": total, **losses}

    def after_update(self) -> None:
        """Clip the discriminator's weights, if that is asked for."""
        if self.loss.clip_weights is not None:
            clip_weights(self.discriminator, self.loss.clip_weights)

    def _judge(
        self, images: torch.Tensor, condition: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return logits (2 B,) and class logits of real images and then as many generated ones."""
        if not self.judges_apart:
            doubled = {name: torch.cat((value, value)) for name, value in condition.items()}
            output = self.discriminator(images, **doubled)
            return output.logits, output.class_logits
        outputs = [self.discriminator(half, **condition) for half in images.chunk(2)]
        classes = [output.class_logits for output in outputs]
        return (
            torch.cat([output.logits for output in outputs]),
            None if classes[0] is None else torch.cat(classes),
        )

    def _augmented(self, images: torch.Tensor, drawn: Drawn) -> torch.Tensor:
        """Return images transformed by this micro-batch's numbers, if that is asked for."""
        if not self.loss.augment:
            return images
        numbers = draws(len(images), drawn.random).to(images.device)
        return transform(images, self.loss.augment, numbers)

    def _zero_centered(self, logits: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Return r1 / 2 E|g|^2 over real and r2 / 2 E|g|^2 over generated images."""
        half = len(logits) // 2
        weights = logits.new_tensor([self.recipe.r1, self.recipe.r2]).repeat_interleave(half)
        # A factor of a logit is one of its gradient; the mean is over 2 B images.
        return zero_centered(logits * weights.sqrt(), images)

    def _between(self, drawn: Drawn) -> torch.Tensor:
        """Return a penalty at points between real and generated images."""

        def critic(images: torch.Tensor) -> torch.Tensor:
            return self.discriminator(images, **drawn.condition).logits

        mix = torch.rand((len(drawn.real), 1, 1, 1), generator=drawn.random)
        points: Any = (critic, drawn.real, drawn.fake.detach(), mix.to(drawn.real.device))
        if self.loss.penalty == "divergence":
            return wasserstein_divergence(*points)
        return self.loss.interpolated_weight * interpolated(*points)

    def _consistency(self, drawn: Drawn, fake: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Return how much another augmentation changes the verdicts."""
        images = self._augmented(torch.cat((drawn.real, fake)), drawn)
        real_logits, fake_logits = logits.chunk(2)
        real_again, fake_again = self._judge(images, drawn.condition)[0].chunk(2)
        return balanced_consistency(
            real_logits, real_again, fake_logits, fake_again, real_weight=1, fake_weight=1
        )


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Let gradients flow through a network without reaching its weights."""
    trained = [p for p in network.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def update(run: Run, network: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    """Change the weights of one network by its gradients, averaged over all ranks.

    Returns:
        The norm of the gradients.

    Raises:
        TrainingDivergedError: If it is not finite; the weights are then as they were.
    """
    config: Any = run.config
    run.average_gradients(network)
    norm = run.clip_gradients(network, config.optim.max_grad_norm)
    run.check_finite(norm, norm, num_examples=config.images_per_step)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def mean_over_ranks(run: Run, sums: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Return the means of what was summed over micro-batches; ranks agree here whether to stop."""
    count = run.config.batches_per_step
    return run.agree({name: value / count for name, value in sums.items()})
