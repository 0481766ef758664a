"""Configuration of the conditional GAN."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .config_checks import check_choices, check_heads, check_shares, check_sizes

ARCHITECTURES = ("modern", "dcgan", "resnet", "mlp")
CONDITIONINGS = ("none", "class", "attributes", "text")
GENERATOR_CONDITIONINGS = ("concat", "norm")
DISCRIMINATOR_CONDITIONINGS = ("projection", "classifier", "concat")
NUM_CHANNELS = (1, 3, 4)
SMALLEST_BASE, LARGEST_BASE = 4, 7
LARGEST_IMAGE = 256
# Fields without a meaning where images do not move.
CLIP_FIELDS = (
    "num_frames",
    "motion_dim",
    "motion_hidden_size",
    "video_discriminator_width",
    "video_downsampling",
    "video_frame_step",
)
LARGEST_CLIP = 1024  # frames
SMALLEST_CLIP = 8  # side of the frames that a video discriminator sees


@strict
class GenGANConfig(PreTrainedConfig):
    """Configuration of [`GenGANGenerator`] and [`GenGANDiscriminator`].

    Classes or attributes have their names in the library's own `id2label`.

    Args:
        architecture: `modern` (no normalisation, plain convolutions, after Huang et al. 2024, R3GAN,
            arXiv:2501.05441), `dcgan` (Radford et al. 2016, arXiv:1511.06434), `resnet` (residual
            blocks, Miyato et al. 2018, arXiv:1802.05957; Brock et al. 2019, arXiv:1809.11096) or
            `mlp` (Goodfellow et al. 2014, arXiv:1406.2661).
        image_size: Height and width in pixels. `dcgan` and `resnet` take powers of two from 8 to 256,
            `modern` also 5, 6 or 7 times a power of two, `mlp` any size.
        num_channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        num_frames: Frames of a clip; 1 draws still images.
        latent_dim: Length of the noise vector; of a clip, the noise of what stays the same in all frames
            (content and motion apart: Tulyakov et al. 2018, MoCoGAN, arXiv:1707.04993).
        motion_dim: Length of the noise of each frame of a clip.
        motion_hidden_size: Width of the recurrent network that makes motion of that noise and of the
            condition.
        conditioning: What an image is drawn for: `none`, `class`, `attributes` (each there or not) or
            `text`.
        generator_conditioning: `concat`: the condition stands beside the noise; `norm`: it also scales
            and shifts the channels of every block (conditional BatchNorm, Dumoulin et al. 2017,
            arXiv:1610.07629; without normalisation a plain modulation).
        discriminator_conditioning: `projection` (Miyato and Koyama 2018, arXiv:1802.05637), `classifier`
            (an auxiliary output, Odena et al. 2017, arXiv:1610.09585) or `concat` (beside the last
            feature map, with an `mlp` beside the image).
        generator_width: Channels at the largest resolution; each halving doubles them, up to 8 times.
        discriminator_width: The same of the discriminator.
        video_discriminator_width: Channels of the first map of the discriminator of clips, which stands
            beside that of their frames.
        video_downsampling: How often smaller than the frames those are that it sees, a power of two.
        video_frame_step: Every how many-th frame it sees. Training draws no others, from a first one at
            random (Saito et al. 2020, TGANv2, arXiv:1811.09245).
        condition_dim: Length of the vector that a condition becomes.
        spectral_norm: Divide the discriminator's weights by their largest singular value (Miyato et al.
            2018).
        dropout: Dropout of the `mlp` discriminator.
        vocab_size: Number of tokens of the text encoder.
        max_position_embeddings: Longest text in tokens.
        hidden_size: Width of the text encoder.
        num_hidden_layers: Number of its blocks.
        num_attention_heads: Number of its heads, and of those that look at words.
        text_dropout: Dropout in the text encoder.
        text_agreement: Whether the discriminator also makes a vector of an image that is to be close to
            that of its text (Zhang et al. 2021, XMC-GAN, arXiv:2101.04702).
        masked_tokens: Whether the discriminator's text encoder also predicts masked words (Devlin et
            al. 2019, arXiv:1810.04805).
        image_reconstruction: Whether the discriminator also rebuilds its image, at a reduced size, from
            its last feature map (Liu et al. 2021, FastGAN, arXiv:2101.04775).
        text_encoder: Configuration of a frozen encoder of transformers that reads the text instead, as a
            dictionary with its `model_type`. Its weights are part of the checkpoint.
        initializer_range: Standard deviation of the initial weights of `dcgan` and `mlp` and of the text
            encoder; `modern` and `resnet` are initialised by the number of inputs of each layer.
        bos_token_id: Id of the token that begins a text.
        eos_token_id: Id of the token that ends a text.
        pad_token_id: Id of the token that pads a batch.
    """

    model_type = "gen_gan"

    architecture: str = "modern"
    image_size: int = 32
    num_channels: int = 1
    num_frames: int = 1
    latent_dim: int = 64
    motion_dim: int = 16
    motion_hidden_size: int = 64
    conditioning: str = "none"
    generator_conditioning: str = "norm"
    discriminator_conditioning: str = "projection"
    generator_width: int = 32
    discriminator_width: int = 32
    video_discriminator_width: int = 32
    video_downsampling: int = 2
    video_frame_step: int = 1
    condition_dim: int = 64
    spectral_norm: bool = False
    dropout: float | int = 0.3
    vocab_size: int = 8192
    max_position_embeddings: int = 32
    hidden_size: int = 128
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    text_dropout: float | int = 0.1
    text_agreement: bool = False
    masked_tokens: bool = False
    image_reconstruction: bool = False
    text_encoder: dict[str, Any] | None = None
    initializer_range: float = 0.02
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Derive ids from names, and say which of the two networks is meant if nobody did."""
        super().__post_init__(**kwargs)
        if self.id2label is not None:
            self.label2id = {str(name): int(index) for index, name in self.id2label.items()}
        # By this the Auto classes tell the networks apart.
        self.architectures = self.architectures or ["GenGANGenerator"]

    @property
    def base_size(self) -> int:
        """Height and width of the smallest feature map."""
        size = self.image_size
        while size > LARGEST_BASE and size % 2 == 0:
            size //= 2
        return size

    @property
    def num_stages(self) -> int:
        """How often the image is halved down to the smallest feature map."""
        return (self.image_size // self.base_size).bit_length() - 1

    @property
    def is_video(self) -> bool:
        """Whether it draws clips."""
        return self.num_frames > 1

    @property
    def noise_dim(self) -> int:
        """Numbers of noise behind one image; behind a clip, the content's first, then those of each frame."""
        if not self.is_video:
            return self.latent_dim
        return self.latent_dim + self.num_frames * self.motion_dim

    @property
    def seen_frames(self) -> int:
        """Frames of a clip that the video discriminator sees."""
        return self.num_frames // self.video_frame_step

    def channels_at(self, stage: int, width: int) -> int:
        """Return the channels of the feature map that is `image_size / 2**stage` large.

        Args:
            stage: From 1, half the image, to `num_stages`, the smallest map.
            width: `generator_width` or `discriminator_width`.
        """
        return width * min(2 ** (stage - 1), 8)

    def validate_sizes(self) -> None:
        """Check that every size is positive and that the architecture can draw the image size.

        Raises:
            ValueError: With the field, its value and what would be allowed.
        """
        check_sizes(
            self,
            (
                "image_size",
                "num_frames",
                "latent_dim",
                "motion_dim",
                "motion_hidden_size",
                "generator_width",
                "discriminator_width",
                "video_discriminator_width",
                "video_downsampling",
                "video_frame_step",
                "condition_dim",
                "vocab_size",
                "max_position_embeddings",
                "hidden_size",
                "num_hidden_layers",
                "num_attention_heads",
            ),
        )
        check_heads(self)
        check_choices(self, {"architecture": ARCHITECTURES})
        if self.architecture == "mlp":
            return
        bases = range(SMALLEST_BASE, LARGEST_BASE + 1) if self.architecture == "modern" else (4,)
        allowed = sorted(base * 2**power for base in bases for power in range(1, 7))
        allowed = [size for size in allowed if size <= LARGEST_IMAGE]
        if self.image_size not in allowed:
            nearest = min(allowed, key=lambda size: abs(size - self.image_size))
            raise ValueError(
                f"architecture={self.architecture} cannot draw image_size={self.image_size}. The "
                f"nearest size is {nearest}; allowed are {', '.join(map(str, allowed))}."
            )

    def validate_frames(self) -> None:
        """Check that a clip can be drawn and judged.

        Raises:
            ValueError: With the field, its value and what would be allowed.
        """
        if self.num_frames > LARGEST_CLIP:
            raise ValueError(f"num_frames={self.num_frames} must be at most {LARGEST_CLIP}.")
        if not self.is_video:
            return
        if self.architecture == "mlp":
            raise ValueError(
                f"architecture=mlp draws single images, and num_frames={self.num_frames}. Choose from: "
                "modern, dcgan, resnet."
            )
        most = self.image_size // max(self.base_size, SMALLEST_CLIP)
        allowed = [2**power for power in range(most.bit_length()) if 2**power <= most]
        if self.video_downsampling not in allowed:
            raise ValueError(
                f"video_downsampling={self.video_downsampling} does not fit image_size="
                f"{self.image_size}. Choose from: {', '.join(map(str, allowed))}."
            )
        steps = [n for n in range(1, self.num_frames) if self.num_frames % n == 0]
        if self.video_frame_step not in steps:
            raise ValueError(
                f"video_frame_step={self.video_frame_step} does not fit num_frames="
                f"{self.num_frames}. Choose from: {', '.join(map(str, steps))}."
            )

    def validate_choices(self) -> None:
        """Check the switches, and that they go together.

        Raises:
            ValueError: With the field, its value and what would be allowed.
        """
        check_choices(
            self,
            {
                "conditioning": CONDITIONINGS,
                "generator_conditioning": GENERATOR_CONDITIONINGS,
                "discriminator_conditioning": DISCRIMINATOR_CONDITIONINGS,
                "num_channels": NUM_CHANNELS,
            },
        )
        check_shares(self, ("dropout", "text_dropout"))
        if self.conditioning == "text" and self.architecture == "mlp":
            raise ValueError(
                "architecture=mlp has no feature maps that could look at words. With "
                "conditioning=text choose from: modern, dcgan, resnet."
            )
        if self.conditioning in ("none", "text") and (
            self.discriminator_conditioning == "classifier"
        ):
            raise ValueError(
                "discriminator_conditioning=classifier tells classes or attributes apart, and "
                f"conditioning={self.conditioning} has none. Choose projection or concat."
            )

    def validate_heads(self) -> None:
        """Check that what the discriminator is to do beside its verdict can be done.

        Raises:
            ValueError: With the field, and what it needs.
        """
        for name in ("text_agreement", "masked_tokens"):
            if getattr(self, name) and self.conditioning != "text":
                raise ValueError(
                    f"{name}=True needs texts, and conditioning={self.conditioning} has none. Leave "
                    "it out, or set conditioning=text."
                )
        if self.masked_tokens and self.text_encoder is not None:
            raise ValueError(
                "masked_tokens=True trains the text encoder, and text_encoder is a frozen one. Leave "
                "one of them out."
            )
        if self.image_reconstruction and self.architecture == "mlp":
            raise ValueError(
                "architecture=mlp has no feature map to rebuild an image from. With "
                "image_reconstruction=True choose from: modern, dcgan, resnet."
            )

    @property
    def num_key_value_heads(self) -> int:
        """Heads of keys and values: as many as of queries."""
        return self.num_attention_heads

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads


@strict
class GenGANDiscriminatorConfig(GenGANConfig):
    """The same configuration under a name by which the Auto classes know the discriminator.

    They remember one model class for each configuration class that they have met.
    """


__all__ = ["GenGANConfig", "GenGANDiscriminatorConfig"]
