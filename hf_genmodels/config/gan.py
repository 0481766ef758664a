"""Options of `genmodels train gan`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hf_genmodels.config.images import ImageDataConfig
from hf_genmodels.config.judge import STEPS
from hf_genmodels.config.optim import ScheduleConfig
from hf_genmodels.config.parser import options_of
from hf_genmodels.config.run import ExampleBatchConfig, at_least, check_choice
from hf_genmodels.errors import UserError
from hf_genmodels.models.configuration_gan import GenGANConfig

# The data decide these, or the tokenizer or the losses do.
NOT_OPTIONS = (
    "image_size",
    "num_channels",
    "num_frames",
    "vocab_size",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "text_encoder",
    "text_agreement",
    "masked_tokens",
    "image_reconstruction",
)
GANOptions: Any = options_of(
    GenGANConfig, "GANOptions", without=NOT_OPTIONS, optional=("conditioning",)
)
EMA_HALF_LIFE = 10_000  # images
ADVERSARIAL_LOSSES = ("relativistic", "non_saturating", "least_squares", "hinge", "wasserstein")
GRADIENT_PENALTIES = ("zero_centered", "interpolated", "divergence", "none")
AUGMENTATIONS = ("color", "translation", "cutout")
TEXT_WEIGHTS = (
    "matching_penalty",
    "masked_token_weight",
    "agreement_weight",
    "reconstruction_weight",
    "paired_weight",
)


@dataclass
class GANLossConfig:
    """What generator and discriminator minimise."""

    adversarial: str = "relativistic"
    """relativistic (R3GAN, Huang et al. 2024), non_saturating (BCE), least_squares, hinge or wasserstein."""

    penalty: str = "zero_centered"
    """Penalty on the discriminator's gradient: zero_centered (R1 on real and R2 on generated images),
    interpolated (WGAN-GP), divergence (WGAN-div) or none."""

    r1: float | None = None
    """Weight of R1, with relativistic also of R2; by default it follows from the resolution and the
    number of images."""

    r2: float | None = None
    """Weight of R2; by default that of R1 with the relativistic loss, and 0 with the others."""

    penalty_every: int = 4
    """Steps from one zero-centred penalty to the next, which weighs as much more."""

    interpolated_weight: float = 10.0
    """Weight of the interpolated penalty (Gulrajani et al. 2017)."""

    clip_weights: float | None = None
    """Bound of the discriminator's weights, for wasserstein without a penalty (Arjovsky et al. 2017)."""

    classifier_weight: float = 1.0
    """Weight of the auxiliary classifier's loss, with discriminator_conditioning classifier."""

    consistency_weight: float = 0.0
    """Weight of balanced consistency: verdicts shall not change under --loss.augment (Zhao et al. 2021)."""

    augment: list[str] = field(default_factory=list)
    """Differentiable augmentation of all images that the discriminator sees: color, translation, cutout
    (Zhao et al. 2020). For small data."""

    mismatch_weight: float = 0.5
    """Texts: share, from 0 to 1, of real images beside texts of others in what the discriminator refuses
    (Reed et al. 2016)."""

    matching_penalty: float = 0.0
    """Texts: weight of the matching-aware gradient penalty of images and sentences (DF-GAN)."""

    masked_token_weight: float = 0.0
    """Texts: weight of guessing masked tokens, which trains the text encoder."""

    agreement_weight: float = 0.0
    """Texts: weight of the agreement between image and sentence embeddings, in both networks (XMC-GAN)."""

    reconstruction_weight: float = 0.0
    """Texts: weight of rebuilding real images from the discriminator's features."""

    frames_judged: int = 1
    """Clips: frames of each, drawn at random, that the discriminator judges by themselves beside the whole clip."""

    paired_weight: float = 0.0
    """Texts: weight of the mean distance of each pixel from the real image of the same text (Isola et al.
    2017). For data where a text says which image it is."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UserError: If a value cannot work.
        """
        check_choice("loss.adversarial", self.adversarial, ADVERSARIAL_LOSSES)
        check_choice("loss.penalty", self.penalty, GRADIENT_PENALTIES)
        for policy in self.augment:
            check_choice("loss.augment", policy, AUGMENTATIONS)
        at_least("loss.penalty_every", self.penalty_every, 1)
        at_least("loss.frames_judged", self.frames_judged, 1)
        for name in (
            "r1",
            "r2",
            "interpolated_weight",
            "classifier_weight",
            "consistency_weight",
            "mismatch_weight",
            *TEXT_WEIGHTS,
        ):
            if getattr(self, name) is not None:
                at_least(f"loss.{name}", getattr(self, name), 0)
        if self.mismatch_weight > 1:
            raise UserError(
                f"--loss.mismatch_weight is {self.mismatch_weight}. It is a share, from 0 to 1."
            )
        if self.clip_weights is not None and self.clip_weights <= 0:
            raise UserError(f"--loss.clip_weights is {self.clip_weights}. It must be positive.")
        if self.consistency_weight and not self.augment:
            raise UserError(
                "--loss.consistency_weight compares verdicts before and after an augmentation: give "
                f"--loss.augment too, some of {', '.join(AUGMENTATIONS)}."
            )


@dataclass
class GANOptimConfig:
    """How both networks are updated, with Adam (Kingma and Ba 2015)."""

    lr: float | None = None
    """Learning rate of both; by default it follows from architecture and resolution."""

    generator_lr: float | None = None
    """Learning rate of the generator; lr by default."""

    discriminator_lr: float | None = None
    """Learning rate of the discriminator; lr by default."""

    beta1: float | None = None
    """Decay of the running mean of gradients; by default it follows from the architecture."""

    beta2: float | None = None
    """Decay of the running mean of squared gradients; by default it follows from the architecture."""

    discriminator_steps: int = 1
    """Updates of the discriminator, each on images of its own, for one of the generator."""

    max_grad_norm: float = 0.0
    """Gradients of each network are clipped to this norm; 0 turns clipping off."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UserError: If a value cannot work.
        """
        for name in ("lr", "generator_lr", "discriminator_lr"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise UserError(f"--optim.{name} is {value}. It must lie in (0, 1].")
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise UserError(f"--optim.{name} is {value}. It must lie in [0, 1).")
        at_least("optim.discriminator_steps", self.discriminator_steps, 1)
        at_least("optim.max_grad_norm", self.max_grad_norm, 0)


@dataclass
class GANJudgeConfig:
    """Who measures the generated images while training, and how many of them."""

    features: str = "auto"
    """auto (a small judge is trained on the real images first), none, the folder of a judge that
    `genmodels train judge` made, any vision model of transformers, or a file of Inception's weights."""

    num_samples: int = 2000
    """Images that are drawn for each measurement."""

    max_steps: int = STEPS
    """Training steps of an automatic judge."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UserError: If a value cannot work.
        """
        at_least("judge.num_samples", self.num_samples, 16)
        at_least("judge.max_steps", self.max_steps, 1)


@dataclass
class GridConfig:
    """The pictures that show progress: always the same noise, rows are classes or prompts."""

    columns: int = 8
    """Images in a row; 0 turns pictures off."""

    rows: int = 10
    """Most rows: classes, prompts or attributes."""

    prompts: list[str] = field(default_factory=list)
    """Texts of the rows; some of the validation captions by default."""

    truncation: float = 1.0
    """Scales the noise, in (0, 1]."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UserError: If a value cannot work.
        """
        at_least("grid.columns", self.columns, 0)
        at_least("grid.rows", self.rows, 1)
        if not 0 < self.truncation <= 1:
            raise UserError(f"--grid.truncation is {self.truncation}. It must lie in (0, 1].")


@dataclass
class TrainGANConfig(ImageDataConfig, ExampleBatchConfig):
    """Train a conditional GAN from scratch, or go on from a trained one."""

    per_device_train_batch_size: int = 0
    """Images in one forward pass on one process; 0: 32 up to 32 x 32 pixels, 64 above, 16 clips."""

    model_name_or_path: str | None = None
    """Folder or hub id of a trained gen_gan model to go on from, with its discriminator/ folder."""

    tokenizer_name: str | None = None
    """Texts: folder or hub id of a tokenizer; by default one is trained on the captions."""

    tokenizer_vocab_size: int = 2048
    """Texts: vocabulary of a tokenizer that is trained here."""

    text_encoder_name: str | None = None
    """Texts: folder or hub id of a text encoder of transformers that reads the captions, frozen."""

    model: GANOptions = field(default_factory=GANOptions)
    """The new networks; see GenGANConfig. Without conditioning, it follows from the data."""

    loss: GANLossConfig = field(default_factory=GANLossConfig)
    """What both networks minimise."""

    optim: GANOptimConfig = field(default_factory=GANOptimConfig)
    """The optimiser of both networks."""

    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """The learning rate over the run."""

    judge: GANJudgeConfig = field(default_factory=GANJudgeConfig)
    """Who measures the images."""

    grid: GridConfig = field(default_factory=GridConfig)
    """Pictures of the progress."""

    def __post_init__(self) -> None:
        """Check everything that can be checked without looking at data.

        Raises:
            UserError: If a value cannot work.
        """
        if not self.per_device_train_batch_size:
            images = 32 if self.image_size <= 32 else 64
            self.per_device_train_batch_size = images if self.num_frames == 1 else 16
        ExampleBatchConfig.__post_init__(self)
        ImageDataConfig.__post_init__(self)
        if self.ema_decay is None:
            self.ema_decay = 0.5 ** (self.global_batch_size / EMA_HALF_LIFE)
        if self.mixed_precision == "fp16":
            raise UserError(
                "--mixed_precision fp16 has no room for the penalties on gradients, which are squared. "
                "Choose bf16, no or auto."
            )
        if self.compile:
            raise UserError(
                "--compile does not serve a GAN: gradients of gradients cannot be compiled."
            )
        if self.gradient_checkpointing:
            raise UserError("--gradient_checkpointing: the networks of a GAN have no use for it.")
        if self.model.conditioning is not None:
            self._check_conditioning()

    def _check_conditioning(self) -> None:
        """Check that the data can have what the model is to be conditioned on."""
        kind = self.model.conditioning
        check_choice("model.conditioning", kind, ("none", "class", "attributes", "text"))
        sources = {
            "label_column": "class",
            "attribute_columns": "attributes",
            "text_column": "text",
        }
        for name, wanted in sources.items():
            if getattr(self, name) and kind not in (wanted, "none") and not self.sprite_size:
                raise UserError(
                    f"--model.conditioning is {kind!r}, but --{name} gives {wanted}. Leave one out."
                )

    @property
    def unit(self) -> str:
        """What the run counts."""
        return "images" if self.num_frames == 1 else "clips"

    @property
    def best_metric(self) -> str:
        """Name of the validation result that decides which weights are best."""
        return "Fréchet distance"

    @property
    def examples_per_step(self) -> int:
        """Real images in one step of both networks, over all processes."""
        return self.global_batch_size * self.optim.discriminator_steps
