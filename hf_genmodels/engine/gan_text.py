"""What a text-conditional GAN minimises beside the losses of every GAN, on one micro-batch.

Letters: B images of the micro-batch, T tokens, C size of an embedding.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from hf_genmodels.config.gan import TEXT_WEIGHTS, GANLossConfig, TrainGANConfig
from hf_genmodels.errors import UserError
from hf_genmodels.losses.gradient_penalty import matching_aware
from hf_genmodels.losses.text_image import (
    agreement_loss,
    choose_masked,
    derangement,
    masked_token_loss,
    reconstruction_loss,
)
from hf_genmodels.models.configuration_gan import GenGANConfig
from hf_genmodels.models.frozen_text import read_text_encoder
from hf_genmodels.models.modeling_gan import GenGANDiscriminator, chosen_frames

MASKED_SHARE = 0.3  # captions are short: half of those with two words have a masked one
# Weight in the configuration of losses -> what the discriminator must have for it.
HEADS = {
    "agreement_weight": "text_agreement",
    "masked_token_weight": "masked_tokens",
    "reconstruction_weight": "image_reconstruction",
}
Losses = dict[str, torch.Tensor]


def heads_for(loss: GANLossConfig) -> dict[str, bool]:
    """Return the fields of a `GenGANConfig` with which a discriminator can have these losses."""
    return {head: getattr(loss, weight) > 0 for weight, head in HEADS.items()}


def check_text_losses(config: TrainGANConfig, model: GenGANConfig) -> None:
    """Check that the losses of texts have texts, and a discriminator that can have them.

    Raises:
        UserError: With the option, and what it needs.
    """
    given = [name for name in TEXT_WEIGHTS if getattr(config.loss, name)]
    if model.conditioning != "text":
        if given:
            raise UserError(
                f"--loss.{given[0]} belongs to texts, and the images are drawn for "
                f"{model.conditioning}. Leave it out, or give captions by --text_column."
            )
        return
    for name in given:
        if name in HEADS and not getattr(model, HEADS[name]):
            raise UserError(
                f"--loss.{name} needs a discriminator with {HEADS[name]}, which {config.model_name_or_path} "
                "was not trained with. Set it to 0."
            )
    needs_others = config.loss.mismatch_weight or config.loss.agreement_weight
    if needs_others and config.per_device_train_batch_size < 2:
        raise UserError(
            "--per_device_train_batch_size 1 leaves no text of another image to compare with. Give at "
            "least 2, or set --loss.mismatch_weight and --loss.agreement_weight to 0."
        )


def frozen_encoder(config: TrainGANConfig, conditioning: str) -> PreTrainedModel | None:
    """Return the frozen text encoder that was asked for.

    Args:
        config: The run's options.
        conditioning: What images are drawn for.

    Raises:
        UserError: If there is no such encoder, or nothing to read for it.
    """
    name = config.text_encoder_name
    if not name:
        return None
    if conditioning != "text":
        raise UserError(
            f"--text_encoder_name reads captions, and the images are drawn for {conditioning}. Leave it "
            "out, or give captions by --text_column."
        )
    try:
        return read_text_encoder(name)
    except (OSError, ValueError) as error:
        raise UserError(f"--text_encoder_name {name}: {error}") from None


class TextLosses:
    """The losses of both networks that look at texts.

    Args:
        loss: Their weights.
        discriminator: Where the words and images are embedded.
    """

    def __init__(self, loss: GANLossConfig, discriminator: GenGANDiscriminator):
        self.loss = loss
        self.discriminator: Any = discriminator

    def questions(
        self, condition: dict[str, torch.Tensor], random: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """Return what else to ask the discriminator about a batch, as keywords of its `forward`.

        Args:
            condition: Tokens and mask of the texts, (B, T).
            random: Source of the random numbers.
        """
        mask, asked = condition["attention_mask"], {}
        if self.loss.mismatch_weight:
            asked["mismatched"] = derangement(len(mask), random).to(mask.device)
        if self.loss.masked_token_weight:
            asked["masked"] = choose_masked(mask, MASKED_SHARE, random)
            asked |= condition
        return asked

    def of_discriminator(
        self,
        real: torch.Tensor,
        condition: dict[str, torch.Tensor],
        asked: dict[str, torch.Tensor],
        output: Any,
        frames: torch.Tensor | None = None,
    ) -> tuple[Losses, torch.Tensor | float]:
        """Return the losses by name, and their weighted sum.

        Args:
            real: Images as the discriminator saw them, (B, channels, S, S).
            condition: Tokens and mask of their texts.
            asked: What `questions` returned.
            output: What the discriminator says about the real images.
            frames: Which frames of clips it judged by themselves, (B, K).
        """
        loss, found = self.loss, {}
        if loss.agreement_weight:
            found["agreement"] = agreement_loss(output.image_embeds, output.condition_embeds)
        if loss.masked_token_weight:
            found["masked_token"] = masked_token_loss(
                output.token_logits, condition["input_ids"], asked["masked"]
            )
        if loss.reconstruction_weight:
            seen = real if frames is None else chosen_frames(real, frames).flatten(0, 1)
            found["reconstruction"] = reconstruction_loss(output.reconstruction, seen.detach())
        total: Any = sum(getattr(loss, f"{name}_weight") * value for name, value in found.items())
        if loss.matching_penalty:
            found["matching_penalty"] = self._matching_penalty(real, condition, frames)
            total = total + loss.matching_penalty * found["matching_penalty"]
        return found, total

    def of_generator(
        self,
        real: torch.Tensor,
        fake: torch.Tensor,
        real_embeds: torch.Tensor | None,
        output: Any,
    ) -> tuple[Losses, torch.Tensor | float]:
        """Return the losses by name, and their weighted sum.

        A drawn image agrees with its text, and with the real image of that text (Zhang et al. 2021).

        Args:
            real: Real images, (B, channels, S, S).
            fake: Those drawn for the same texts.
            real_embeds: Vectors of the real images, (B, C), without gradients.
            output: What the discriminator says about the drawn images.
        """
        loss, found = self.loss, {}
        if loss.agreement_weight and real_embeds is not None:
            embeds = output.image_embeds
            with_text = agreement_loss(embeds, output.condition_embeds)
            found["agreement"] = with_text + agreement_loss(embeds, real_embeds)
        if loss.paired_weight:
            found["paired"] = F.l1_loss(fake, real)
        total: Any = sum(getattr(loss, f"{name}_weight") * value for name, value in found.items())
        return found, total

    def _matching_penalty(
        self,
        real: torch.Tensor,
        condition: dict[str, torch.Tensor],
        frames: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return the penalty on the gradient by real images and their texts."""
        images = real.detach().requires_grad_()
        sentences = self.discriminator.embed_condition(**condition)
        looks = {} if frames is None else {"frames": frames}
        logits = self.discriminator(images, condition_embeds=sentences, **looks).logits
        return matching_aware(logits, images, sentences, weight=1)
