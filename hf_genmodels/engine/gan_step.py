"""What generator and discriminator minimise in one step, on one micro-batch.

Letters: B images of the micro-batch, C channels, S height and width, T frames of a clip, K of which are
judged by themselves. Images are clips, (B, T, C, S, S), where the networks are made for clips, and T then
the frames of them that the discriminator sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn

from hf_genmodels.config.gan import TrainGANConfig
from hf_genmodels.data.seeding import mix_seed
from hf_genmodels.engine.gan_models import GANPair
from hf_genmodels.engine.gan_recipe import Recipe
from hf_genmodels.engine.gan_text import TextLosses
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
from hf_genmodels.losses.text_image import matching_aware_loss
from hf_genmodels.models.modeling_gan import (
    CHANNELS_LAST,
    GenGANDiscriminatorOutput,
    chosen_frames,
)

CONDITIONS = ("class_labels", "input_ids", "attention_mask")
Verdicts: TypeAlias = Any  # a GenGANDiscriminatorOutput, in which what was asked for is not None
_NOISE_STREAM = 21


@dataclass
class Drawn:
    """Real and generated images of one micro-batch, and what both networks found about them.

    Attributes:
        real: (B, C, S, S) in [-1, 1].
        fake: As many, drawn for the same conditions; the generator's graph hangs on them.
        condition: Keywords of the networks.
        random: Source of this micro-batch's random numbers.
        frames: Which frames of each clip are judged by themselves, (B, K).
        real_logits: Verdicts on the real images, (B,), without gradients, once they are known; of clips
            (B, 1 + K).
        real_embeds: Vectors of the real images, (B, condition_dim), likewise, if there are any.
    """

    real: torch.Tensor
    fake: torch.Tensor
    condition: dict[str, torch.Tensor]
    random: torch.Generator
    frames: torch.Tensor | None = None
    real_logits: torch.Tensor | None = None
    real_embeds: torch.Tensor | None = None


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
        self.generator = pair.generator
        self.discriminator: Any = pair.discriminator
        self.rank, self.world_size = run.accelerator.process_index, config.num_processes
        is_channels_last = pair.config.architecture in CHANNELS_LAST
        self.memory_format = torch.channels_last if is_channels_last else torch.contiguous_format
        reads_texts = pair.config.conditioning == "text"
        self.text = TextLosses(config.loss, pair.discriminator) if reads_texts else None
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
        real, model = batch["images"], self.generator.config
        size = (len(real), model.noise_dim)
        latents = torch.randn(size, generator=random).to(real.device)
        uses_condition = model.conditioning != "none"
        condition = {name: batch[name] for name in CONDITIONS if uses_condition and name in batch}
        frames = None
        if not model.is_video:
            fake = self.generator(latents, **condition).images
        else:
            shown, frames = (numbers.to(real.device) for numbers in self._frames(len(real), random))
            real = chosen_frames(real, shown)
            fake = self.generator(latents, **condition, frames=shown).images
        return Drawn(self._laid_out(real), self._laid_out(fake), condition, random, frames)

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
        asked = self.text.questions(drawn.condition, drawn.random) if self.text else {}
        on_real, on_fake = self._judge(images, drawn, asked)
        losses = {"adversarial": self._adversarial(on_real, on_fake)}
        total = losses["adversarial"]
        if with_penalty:
            logits = torch.cat((on_real.logits, on_fake.logits))
            losses["penalty"] = self._zero_centered(logits, images)
            total = total + losses["penalty"] * loss.penalty_every
        if loss.penalty in ("interpolated", "divergence"):
            losses["penalty"] = self._between(drawn)
            total = total + losses["penalty"]
        if on_real.class_logits is not None:
            labels = drawn.condition["class_labels"]
            losses["classifier"] = classification_loss(on_real.class_logits, labels)
            total = total + loss.classifier_weight * losses["classifier"]
        if loss.consistency_weight:
            losses["consistency"] = self._consistency(drawn, on_real, on_fake)
            total = total + loss.consistency_weight * losses["consistency"]
        if self.text:
            real = images.chunk(2)[0]
            found, weighted = self.text.of_discriminator(
                real, drawn.condition, asked, on_real, drawn.frames
            )
            losses, total = losses | found, total + weighted
            if on_real.image_embeds is not None:
                drawn.real_embeds = on_real.image_embeds.detach()
        drawn.real_logits = on_real.logits.detach()
        return {
            "d_loss": total,
            **{f"d_{name}": value for name, value in losses.items()},
            "real_score": on_real.logits.mean(),
            "fake_score": on_fake.logits.mean(),
            "d_accuracy": (on_real.logits > on_fake.logits).float().mean(),
        }

    def generator_losses(self, drawn: Drawn) -> dict[str, torch.Tensor]:
        """Return what the generator minimises, `g_loss` their weighted sum.

        The real images were judged in the discriminator's turn, just before its update: the relativistic
        loss takes those verdicts and saves a pass.
        """
        images = self._augmented(drawn.fake, drawn)
        output = self.discriminator(images, **drawn.condition, **looks(drawn.frames))
        total = generator_loss(self.loss.adversarial, output.logits, drawn.real_logits)
        losses = {"adversarial": total}
        if output.class_logits is not None:
            labels = drawn.condition["class_labels"]
            losses["classifier"] = classification_loss(output.class_logits, labels)
            total = total + self.loss.classifier_weight * losses["classifier"]
        if self.text:
            found, weighted = self.text.of_generator(
                drawn.real, drawn.fake, drawn.real_embeds, output
            )
            losses, total = losses | found, total + weighted
        return {"g_loss": total, **{f"g_{name}": value for name, value in losses.items()}}

    def after_update(self) -> None:
        """Clip the discriminator's weights, if that is asked for."""
        if self.loss.clip_weights is not None:
            clip_weights(self.discriminator, self.loss.clip_weights)

    def _adversarial(self, on_real: Verdicts, on_fake: Verdicts) -> torch.Tensor:
        """Return the adversarial loss of the discriminator, with mismatched texts if there are any."""
        kind, mismatched = self.loss.adversarial, on_real.mismatched_logits
        if mismatched is None:
            return discriminator_loss(kind, on_real.logits, on_fake.logits)
        share = self.loss.mismatch_weight
        return matching_aware_loss(kind, on_real.logits, on_fake.logits, mismatched, share)

    def _judge(
        self,
        images: torch.Tensor,
        drawn: Drawn,
        asked: dict[str, torch.Tensor] | None = None,
    ) -> tuple[Verdicts, Verdicts]:
        """Return what is said about real images, and about as many generated ones behind them.

        Args:
            images: (2 B, C, S, S).
            drawn: Conditions of the real images, and of the generated ones as well.
            asked: What else to ask about the real images.
        """
        asked, condition, frames = asked or {}, drawn.condition, drawn.frames
        if self.judges_apart:
            real, fake = images.chunk(2)
            on_real = self.discriminator(real, **(condition | asked), **looks(frames))
            return on_real, self.discriminator(fake, **condition, **looks(frames))
        embeds = self.discriminator.embed_condition(**condition)
        if embeds is not None:
            embeds = torch.cat((embeds, embeds))
        if frames is not None:
            frames = torch.cat((frames, frames))
        output = self.discriminator(images, condition_embeds=embeds, **asked, **looks(frames))
        return halves(output)

    def _laid_out(self, images: torch.Tensor) -> torch.Tensor:
        """Return images with their numbers in the order in memory in which convolutions are fastest."""
        if images.ndim == 5:
            frames = images.flatten(0, 1).contiguous(memory_format=self.memory_format)
            return frames.unflatten(0, images.shape[:2])
        return images.contiguous(memory_format=self.memory_format)

    def _frames(self, number: int, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw which frames of clips are shown, (number, T), and which of these are judged, (number, K)."""
        model = self.generator.config
        step, seen = model.video_frame_step, model.seen_frames
        first = torch.randint(step, (number, 1), generator=random)
        order = torch.rand((number, seen), generator=random).argsort(dim=1)
        return first + step * torch.arange(seen), order[:, : self.loss.frames_judged]

    def _augmented(self, images: torch.Tensor, drawn: Drawn) -> torch.Tensor:
        """Return images transformed by this micro-batch's numbers, if that is asked for."""
        if not self.loss.augment:
            return images
        numbers = draws(len(images), drawn.random).to(images.device)
        return transform(images, self.loss.augment, numbers)

    def _zero_centered(self, logits: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Return r1 / 2 E|g|^2 over real and r2 / 2 E|g|^2 over generated images, the mean of all verdicts."""
        half = len(logits) // 2
        weights = logits.new_tensor([self.recipe.r1, self.recipe.r2]).repeat_interleave(half)
        # A factor of a logit is one of its gradient; the mean is over 2 B images.
        verdicts = logits.view(len(logits), -1).unbind(dim=1)
        penalties = [zero_centered(verdict * weights.sqrt(), images) for verdict in verdicts]
        return torch.stack(penalties).mean()

    def _between(self, drawn: Drawn) -> torch.Tensor:
        """Return a penalty at points between real and generated images."""

        def critic(images: torch.Tensor) -> torch.Tensor:
            return self.discriminator(images, **drawn.condition, **looks(drawn.frames)).logits

        shape = (len(drawn.real), *[1] * (drawn.real.ndim - 1))
        mix = torch.rand(shape, generator=drawn.random)
        points: Any = (critic, drawn.real, drawn.fake.detach(), mix.to(drawn.real.device))
        if self.loss.penalty == "divergence":
            return wasserstein_divergence(*points)
        return self.loss.interpolated_weight * interpolated(*points)

    def _consistency(
        self,
        drawn: Drawn,
        on_real: Verdicts,
        on_fake: Verdicts,
    ) -> torch.Tensor:
        """Return how much another augmentation changes the verdicts."""
        images = self._augmented(torch.cat((drawn.real, drawn.fake.detach())), drawn)
        real_again, fake_again = self._judge(images, drawn)
        return balanced_consistency(
            on_real.logits,
            real_again.logits,
            on_fake.logits,
            fake_again.logits,
            real_weight=1,
            fake_weight=1,
        )


def looks(frames: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """Return keywords of a discriminator: which frames of clips it looks at by themselves."""
    return {} if frames is None else {"frames": frames}


def halves(
    output: Verdicts,
) -> tuple[Verdicts, Verdicts]:
    """Part what was said about all images; what was asked about the first half stays with it."""
    on_real: Verdicts = GenGANDiscriminatorOutput()
    on_fake: Verdicts = GenGANDiscriminatorOutput()
    for name, values in output.items():
        if name in ("mismatched_logits", "token_logits"):
            on_real[name] = values
        else:
            on_real[name], on_fake[name] = values.chunk(2)
    return on_real, on_fake
