"""A conditional generative adversarial network, each half a first-class transformers model.

Goodfellow et al. 2014 (arXiv:1406.2661), Mirza and Osindero 2014 (arXiv:1411.1784), with the networks
and ways of conditioning of [`GenGANConfig`]. With `num_frames` it draws clips (Tulyakov et al. 2018,
arXiv:1707.04993). Read from top to bottom: outputs, what a condition becomes, base class, generator,
discriminator.

Shapes are written with these letters: B batch, N images, S height and width, C condition_dim, T tokens,
M masked tokens, L noise_dim, K frames. The images (B, channels, S, S) of a model with more than one
frame are clips, (B, num_frames, channels, S, S).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from .configuration_gan import GenGANConfig, GenGANDiscriminatorConfig
from .gan_layers import init_gan_weights, linear, verdict
from .gan_networks import ImageDecoder, build_discriminator, build_generator
from .gan_text import TextEncoder, TokenHead, Words
from .gan_video import Motion, VideoCritic

# Their transposed convolutions are faster with the channels side by side in memory.
CHANNELS_LAST = ("modern", "dcgan", "resnet")
RANDOM_GROUP = (
    16  # a CPU's random numbers are made in groups of as many, which do not depend on others
)


@dataclass
class GenGANGeneratorOutput(ModelOutput):
    """What a generator draws.

    Attributes:
        images: (B, channels, S, S), in [-1, 1].
    """

    images: torch.FloatTensor | None = None


@dataclass
class GenGANDiscriminatorOutput(ModelOutput):
    """What a discriminator says.

    Attributes:
        logits: How real each image looks for its condition, (B,). Of clips: how real each looks as a
            whole, and each frame that was judged, (B, 1 + K).
        class_logits: Scores of the classes or attributes, (B, num_labels), of an auxiliary classifier.
        mismatched_logits: How real the first images look for the texts of others, as the logits.
        image_embeds: Vectors of the images, (B, C), for their agreement with those of their texts.
        condition_embeds: Vectors of the conditions, (B, C).
        token_logits: Scores of the masked tokens, (M, vocab_size), row by row.
        reconstruction: The images rebuilt from the last feature map, (B, channels, S', S') in [-1, 1]; of
            clips, the frames that were judged, (B * K, channels, S', S').
    """

    logits: torch.FloatTensor | None = None
    class_logits: torch.FloatTensor | None = None
    mismatched_logits: torch.FloatTensor | None = None
    image_embeds: torch.FloatTensor | None = None
    condition_embeds: torch.FloatTensor | None = None
    token_logits: torch.FloatTensor | None = None
    reconstruction: torch.FloatTensor | None = None


class ConditionEncoder(nn.Module):
    """Makes one vector of a class, of attributes or of a text.

    Args:
        config: Configuration of the model.
    """

    def __init__(self, config: GenGANConfig):
        super().__init__()
        self.config = config
        if config.conditioning == "class":
            self.embedding = nn.Embedding(config.num_labels, config.condition_dim)
        elif config.conditioning == "attributes":
            self.embedding = nn.Linear(config.num_labels, config.condition_dim)
        elif config.conditioning == "text":
            self.text = TextEncoder(config)

    def forward(
        self,
        class_labels: torch.Tensor | None,
        input_ids: torch.LongTensor | None,
        attention_mask: torch.Tensor | None,
    ) -> tuple[torch.Tensor | None, Words | None]:
        """Encode what the configuration names, and refuse what it does not.

        Args:
            class_labels: Ids (B,), or attributes (B, num_labels).
            input_ids: Tokens of texts, (B, T).
            attention_mask: 1 for tokens and 0 for padding, (B, T).

        Returns:
            The vectors (B, C), and the words of the texts.

        Raises:
            ValueError: If the condition is missing, of another kind or out of range.
        """
        kind = self.config.conditioning
        self._check(kind, class_labels, input_ids)
        if kind == "none":
            return None, None
        if kind == "text":
            return self.text(input_ids, attention_mask)
        if kind == "attributes":
            class_labels = class_labels.to(self.embedding.weight.dtype)
        return self.embedding(class_labels), None

    def _check(
        self, kind: str, class_labels: torch.Tensor | None, input_ids: torch.Tensor | None
    ) -> None:
        wanted = {"class": "class_labels", "attributes": "class_labels", "text": "input_ids"}.get(
            kind
        )
        given = {"class_labels": class_labels is not None, "input_ids": input_ids is not None}
        for name, is_given in given.items():
            if is_given and name != wanted:
                needs = f"It needs {wanted}." if wanted else "It takes no condition."
                raise ValueError(f"This model has conditioning={kind!r} and no {name}. {needs}")
            if name == wanted and not is_given:
                raise ValueError(f"This model has conditioning={kind!r}: give {name}.")
        if kind == "class" and (class_labels.ndim != 1 or class_labels.is_floating_point()):
            raise ValueError(
                f"class_labels must be ids of shape (batch,), not {class_labels.dtype} of shape "
                f"{tuple(class_labels.shape)}."
            )
        if kind == "attributes" and (
            class_labels.ndim != 2 or class_labels.shape[1] != self.config.num_labels
        ):
            raise ValueError(
                f"class_labels must hold a number for each of the {self.config.num_labels} attributes, "
                f"(batch, {self.config.num_labels}), not {tuple(class_labels.shape)}."
            )


class GenGANPreTrainedModel(PreTrainedModel):
    """What both networks share: configuration and initialisation."""

    config: GenGANConfig
    base_model_prefix = "gan"
    main_input_name = "latents"
    input_modalities = ("image",)
    _no_split_modules = ["ConvGenerator", "ConvDiscriminator", "MLPGenerator", "MLPDiscriminator"]
    _supports_sdpa = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise one module."""
        super()._init_weights(module)
        init_gan_weights(self.config, module)


class GenGANGenerator(GenGANPreTrainedModel):
    """Draws images from noise, for a class, attributes, a text or nothing.

    Args:
        config: Configuration of the model.
    """

    def __init__(self, config: GenGANConfig):
        super().__init__(config)
        self.condition = ConditionEncoder(config)
        has_condition = config.conditioning != "none"
        condition_dim = has_condition * config.condition_dim
        input_dim = config.latent_dim + condition_dim
        if config.is_video:
            self.motion = Motion(config, condition_dim)
            input_dim += config.motion_hidden_size
        self.network = build_generator(config, input_dim)
        self.post_init()

    def forward(
        self,
        latents: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        frames: torch.LongTensor | None = None,
    ) -> GenGANGeneratorOutput:
        """Draw one image for each row of noise, differentiably.

        Args:
            latents: Standard normal numbers, (B, L): of a clip, `latent_dim` of its content, then
                `motion_dim` of each frame.
            class_labels: Ids of classes (B,), or attributes (B, num_labels).
            input_ids: Tokens of texts, (B, T).
            attention_mask: 1 for tokens and 0 for padding, (B, T).
            frames: Draw these frames of each clip only, (B, K).

        Returns:
            The images.

        Raises:
            ValueError: If the condition is not what the model was made for.
        """
        vector, words = self.condition(class_labels, input_ids, attention_mask)
        return GenGANGeneratorOutput(images=self.draw(latents, vector, words, frames))

    def draw(
        self,
        latents: torch.Tensor,
        vector: torch.Tensor | None,
        words: Words | None,
        frames: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Draw images (B, channels, S, S) for conditions that are encoded already, or mixed.

        Args:
            latents: Standard normal numbers, (B, L).
            vector: Encoded conditions, (B, C), of a model that has some.
            words: Encoded words of texts, of a model that reads them.
            frames: Draw these frames of each clip only, (B, K).
        """
        clips = len(latents)
        if self.config.is_video:
            latents, vector = self._for_frames(latents, vector, frames)
        if vector is not None:
            latents = torch.cat((latents, vector.to(latents.dtype)), dim=1)
        # fp32 also under autocast: bf16 has too few steps near white and black.
        images = torch.tanh(self.network(latents, words).float())
        return images.unflatten(0, (clips, -1)) if self.config.is_video else images

    def _for_frames(
        self,
        latents: torch.Tensor,
        vector: torch.Tensor | None,
        frames: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return noise and conditions of each frame of the clips: the same content, another motion."""
        content, noise = latents.tensor_split((self.config.latent_dim,), dim=1)
        motion = self.motion(noise.unflatten(1, (self.config.num_frames, -1)), vector)
        motion = chosen_frames(motion, frames)
        number = motion.shape[1]
        content = content.repeat_interleave(number, dim=0)
        latents = torch.cat((content, motion.flatten(0, 1).to(content.dtype)), dim=1)
        if vector is not None:
            vector = vector.repeat_interleave(number, dim=0)
        return latents, vector

    @torch.no_grad()
    def sample(
        self,
        num_images: int = 1,
        class_labels: torch.Tensor | None = None,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        latents: torch.Tensor | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        truncation: float = 1.0,
    ) -> torch.Tensor:
        """Draw images as a user wants them: without gradients, in eval mode whatever the mode was.

        An image does not depend on the others that are drawn with it.

        Args:
            num_images: How many, N.
            class_labels: One condition for all (1 row), or one for each image (N rows).
            input_ids: Tokens of one text for all, or of one for each image.
            attention_mask: 1 for tokens and 0 for padding.
            latents: Noise (N, L) instead of a random one.
            generator: Source of the noise; or one for each image, so that each has a seed of its own.
            truncation: In (0, 1]: scales the noise. Smaller is more typical and less diverse.

        Returns:
            Images (N, channels, S, S) in [-1, 1].

        Raises:
            ValueError: If a number is out of range or numbers of rows differ.
        """
        if num_images < 1:
            raise ValueError(f"num_images={num_images} must be at least 1.")
        if not 0 < truncation <= 1:
            raise ValueError(f"truncation={truncation} must lie in (0, 1].")
        if latents is None:
            latents = self.draw_latents(num_images, generator)
        expected = (num_images, self.config.noise_dim)
        if tuple(latents.shape) != expected:
            raise ValueError(f"latents must have shape {expected}, not {tuple(latents.shape)}.")
        self._check_range(class_labels)
        self._lay_out()
        weight = next(self.network.parameters())
        condition = {
            "class_labels": class_labels,
            "input_ids": input_ids,
            "attention_mask": attention_mask,
        }
        rows = {
            name: None if value is None else _repeated(name, value, num_images).to(weight.device)
            for name, value in condition.items()
        }
        was_training = self.training
        if was_training:
            self.eval()
        try:
            vector, words = self.condition(**rows)
            return self.draw(latents.to(weight) * truncation, vector, words)
        finally:
            if was_training:
                self.train()

    def draw_latents(
        self, num_images: int, generator: torch.Generator | Sequence[torch.Generator] | None = None
    ) -> torch.Tensor:
        """Return noise (num_images, L); the first rows are the same for any number.

        Args:
            num_images: How many rows.
            generator: Source of the noise, or one for each row.

        Raises:
            ValueError: If there are not as many sources as rows.
        """
        one_each = isinstance(generator, Sequence)
        if one_each and len(generator) != num_images:
            raise ValueError(f"{len(generator)} generators cannot serve {num_images} images.")
        width = self.config.noise_dim
        is_cpu = generator is None or (not one_each and generator.device.type == "cpu")
        if is_cpu and width % RANDOM_GROUP == 0:
            return torch.randn(num_images, width, generator=generator, device="cpu")
        sources = generator if one_each else [generator] * num_images
        # Row by row: torch fills a large tensor in another order than a small one.
        rows = [
            torch.randn(width, generator=source, device=None if source is None else source.device)
            for source in sources
        ]
        return torch.stack(rows)

    def to_pil(self, images: torch.Tensor) -> list[Image.Image]:
        """Return pictures: grey, RGB or RGBA.

        Args:
            images: Images, or the frames of a clip, (N, channels, S, S) in [-1, 1].
        """
        levels = ((images.detach().float() + 1) * 127.5).round().clamp(0, 255)
        pixels = levels.to(device="cpu", dtype=torch.uint8).permute(0, 2, 3, 1)
        return [Image.fromarray(one.squeeze(-1).contiguous().numpy()) for one in pixels]

    def _check_range(self, class_labels: torch.Tensor | None) -> None:
        """Check that classes exist; training does not wait for the device to say so."""
        is_classes = self.config.conditioning == "class" and class_labels is not None
        known = class_labels.flatten().tolist() if is_classes else []
        if known and not 0 <= min(known) <= max(known) < self.config.num_labels:
            raise ValueError(
                f"class_labels must lie between 0 and {self.config.num_labels - 1}, not "
                f"{sorted(set(known))}."
            )

    def _lay_out(self) -> None:
        """Put the channels of the weights side by side in memory, where that is faster."""
        if self.config.architecture in CHANNELS_LAST:
            weight = next(p for p in self.network.blocks.parameters() if p.ndim == 4)
            if not weight.is_contiguous(memory_format=torch.channels_last):
                with torch.inference_mode(False):  # of a caller, who may train afterwards
                    moved: Any = self  # the type of `to` does not know this argument
                    moved.to(memory_format=torch.channels_last)


def _repeated(name: str, value: torch.Tensor, num_images: int) -> torch.Tensor:
    """Repeat a condition of one row for all images."""
    if len(value) not in (1, num_images):
        raise ValueError(
            f"{name} has {len(value)} rows; give 1, or {num_images}, one for each image."
        )
    return value.expand(num_images, *value.shape[1:])


class Seen(NamedTuple):
    """What a discriminator sees in images.

    Attributes:
        features: Features of the images, or of K frames of each clip, (B * K, F).
        last_map: Their last feature map, (B * K, F', S', S').
        clips: Features of the clips, (B, F''), or `None`.
    """

    features: torch.Tensor
    last_map: torch.Tensor
    clips: torch.Tensor | None

    @property
    def whole(self) -> torch.Tensor:
        """Features of the images, or of the clips as a whole."""
        return self.features if self.clips is None else self.clips

    def first(self, number: int) -> "Seen":
        """Return what was seen in the first images or clips."""
        share = len(self.features) // len(self.whole)
        clips = None if self.clips is None else self.clips[:number]
        return Seen(self.features[: number * share], self.last_map[: number * share], clips)


class GenGANDiscriminator(GenGANPreTrainedModel):
    """Tells how real images look for their condition.

    Args:
        config: Configuration of the model.
    """

    config: GenGANDiscriminatorConfig  # a `GenGANConfig` does as well
    main_input_name = "images"

    def __init__(self, config: GenGANConfig):
        super().__init__(config)
        kind = config.discriminator_conditioning
        has_condition = config.conditioning != "none"
        self.is_concat = has_condition and kind == "concat"
        self.is_projection = has_condition and kind == "projection"
        if self.is_concat or self.is_projection:
            self.condition = ConditionEncoder(config)
        self.network = build_discriminator(config, config.condition_dim if self.is_concat else 0)
        num_features = self.network.num_features
        self.head = linear(config, num_features, 1)
        self.projection = None
        if self.is_projection:
            self.projection = nn.Linear(config.condition_dim, num_features, bias=False)
        self.video = None
        if config.is_video:
            width = config.condition_dim if self.is_concat else 0
            self.video = VideoCritic(config, width, self.is_projection)
            num_features = self.video.num_features
        if kind == "classifier" and has_condition:
            self.classifier = linear(config, num_features, config.num_labels)
        if config.text_agreement:
            self.agreement = linear(config, num_features, config.condition_dim)
        if config.masked_tokens:
            self.token_head = TokenHead(config)
        if config.image_reconstruction:
            self.decoder = ImageDecoder(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise one module; logits begin at the size of one, whatever the number of features."""
        super()._init_weights(module)
        verdicts = [self.head, self.projection]
        if self.video is not None:
            verdicts += [self.video.head, self.video.projection]
        if any(module is layer for layer in verdicts):
            init.normal_(module.weight, std=(module.in_features * module.out_features) ** -0.5)

    def embed_condition(
        self,
        class_labels: torch.Tensor | None = None,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor | None:
        """Return the vectors (B, C) of conditions, `None` if this network does not look at them."""
        if not (self.is_concat or self.is_projection):
            return None
        return self.condition(class_labels, input_ids, attention_mask)[0]

    def forward(
        self,
        images: torch.Tensor,
        class_labels: torch.Tensor | None = None,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        condition_embeds: torch.Tensor | None = None,
        mismatched: torch.LongTensor | None = None,
        masked: torch.Tensor | None = None,
        frames: torch.LongTensor | None = None,
    ) -> GenGANDiscriminatorOutput:
        """Judge images.

        Args:
            images: (B, channels, S, S), in [-1, 1].
            class_labels: Ids of classes (B,), or attributes (B, num_labels).
            input_ids: Tokens of texts, (B, T).
            attention_mask: 1 for tokens and 0 for padding, (B, T).
            condition_embeds: What `embed_condition` returned, instead of the condition itself.
            mismatched: Judge the first K images for the condition of this row as well, (K,).
            masked: Predict these tokens of `input_ids` from the others, bool (B, T).
            frames: Which frames of each clip to judge by themselves, (B, K); by default all. Clips may
                consist of the frames alone that are seen as a whole, of which these are numbers then.

        Returns:
            The verdicts, in fp32.

        Raises:
            ValueError: If the condition is not what the model was made for, or has no words to mask.
        """
        if condition_embeds is None:
            condition_embeds = self.embed_condition(class_labels, input_ids, attention_mask)
        seen = self._look(images, condition_embeds, frames)
        output = GenGANDiscriminatorOutput(
            logits=self._verdict(seen, condition_embeds), condition_embeds=condition_embeds
        )
        if mismatched is not None:
            number = len(mismatched)
            others = condition_embeds[mismatched]
            again = seen.first(number)
            if self.is_concat:
                again = self._look(
                    images[:number], others, None if frames is None else frames[:number]
                )
            output.mismatched_logits = self._verdict(again, others)
        if masked is not None:
            output.token_logits = self._predict_tokens(input_ids, attention_mask, masked)
        if hasattr(self, "classifier"):
            output.class_logits = self.classifier(seen.whole).float()
        if self.config.text_agreement:
            output.image_embeds = self.agreement(seen.whole).float()
        if self.config.image_reconstruction:
            output.reconstruction = self.decoder(seen.last_map).float()
        return output

    def _look(
        self, images: torch.Tensor, embeds: torch.Tensor | None, frames: torch.Tensor | None
    ) -> Seen:
        """Return what is seen in images, or in clips and some of their frames."""
        beside = embeds if self.is_concat else None
        if self.video is None:
            features, last_map = self.network(images, beside)
            return Seen(features, last_map, None)
        stills = chosen_frames(images, frames)
        rows = None if beside is None else beside.repeat_interleave(stills.shape[1], dim=0)
        features, last_map = self.network(stills.flatten(0, 1), rows)
        is_whole = images.shape[1] == self.config.num_frames
        seen = images[:, :: self.config.video_frame_step] if is_whole else images
        return Seen(features, last_map, self.video.network(seen, beside))

    def _verdict(self, seen: Seen, embeds: torch.Tensor | None) -> torch.Tensor:
        """Return logits (B,) of what is seen for conditions, or (B, 1 + K) of clips and frames."""
        rows = embeds
        if self.is_projection:
            rows = embeds.repeat_interleave(len(seen.features) // len(embeds), dim=0)
        logits = verdict(self.head, self.projection, seen.features, rows)
        if self.video is None:
            return logits
        clips = self.video.logits(seen.clips, embeds)[:, None]
        return torch.cat((clips, logits.view(len(clips), -1)), dim=1)

    def _predict_tokens(
        self,
        input_ids: torch.LongTensor | None,
        attention_mask: torch.Tensor | None,
        masked: torch.Tensor,
    ) -> torch.Tensor:
        if not self.config.masked_tokens or input_ids is None:
            raise ValueError(
                "Masked words are predicted of input_ids, by a discriminator with masked_tokens=True."
            )
        return self.token_head(self.condition.text, input_ids, attention_mask, masked).float()


def chosen_frames(clips: torch.Tensor, frames: torch.Tensor | None) -> torch.Tensor:
    """Return some frames of each clip, (B, K, ...).

    Args:
        clips: (B, num_frames, ...).
        frames: Their numbers, (B, K); all if `None`.
    """
    if frames is None:
        return clips
    return clips[torch.arange(len(clips), device=clips.device)[:, None], frames]


__all__ = ["GenGANDiscriminator", "GenGANGenerator", "GenGANPreTrainedModel"]
