"""Configuration of the judge: a small network that looks at images or clips to measure a generator."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .config_checks import check_choices, check_shares, check_sizes

BACKBONES = ("lenet", "resnet", "r2plus1d")
TASKS = ("class", "attributes", "rotation", "matching", "factors")
ROTATIONS = ("upright", "turned by 90 degrees", "turned by 180 degrees", "turned by 270 degrees")
LARGEST_LENET = 32
SMALLEST_IMAGE = 8


@strict
class GenJudgeConfig(PreTrainedConfig):
    """Configuration of [`GenJudgeForImageClassification`].

    Classes, or the names of the attributes, are the library's own `num_labels`, `id2label` and
    `label2id`.

    Args:
        backbone: `lenet`, shaped as LeNet-5 (LeCun et al. 1998, "Gradient-Based Learning Applied to
            Document Recognition"), for images up to 32 x 32; or `resnet`, a small residual network
            (He et al. 2016, arXiv:1512.03385). `r2plus1d` is for clips: convolutions over space and over
            time in turn (Tran et al. 2018, arXiv:1711.11248).
        image_size: Height and width of the images in pixels.
        num_channels: 1 for grey images, 3 for colours, 4 for colours and opacity.
        num_frames: Frames of a clip; 1 for still images.
        task: What it learns: `class`, `attributes` (each one is there or not), `rotation` (by how
            many quarters an image is turned, which needs no labels: Gidaris et al. 2018,
            arXiv:1803.07728), `matching` (which text belongs to which image: Radford et al. 2021,
            arXiv:2103.00020) or `factors` (several classes at once, such as what moves and where).
        factors: Task `factors`: the classes of each, by its name.
        width: Channels of the first convolution.
        feature_dim: Number of the features by which images are compared.
        dropout: Dropout before the head.
        num_buckets: Rows of the table of text embeddings; see `judge_text.py`.
        max_pieces: Most pieces of a text that are read.
        logit_scale: Initial logarithm of the factor of the similarities in matching.
        accuracy: Share of held-out images that were judged rightly when the training ended: among
            all classes, over all attributes, or of texts among a hundred; of factors the mean.
            `None`: not measured.
        factor_accuracies: The same for each factor.
        trained_on: Digest of the data and of the options of its training, for caches.
    """

    model_type = "gen_judge"

    backbone: str = "lenet"
    image_size: int = 32
    num_channels: int = 1
    num_frames: int = 1
    task: str = "class"
    factors: dict[str, list[str]] | None = None
    width: int = 32
    feature_dim: int = 64
    dropout: float | int = 0.2
    num_buckets: int = 8192
    max_pieces: int = 128
    logit_scale: float | int = 2.659
    accuracy: float | int | None = None
    factor_accuracies: dict[str, float] | None = None
    trained_on: str | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.task == "rotation":
            self.id2label = dict(enumerate(ROTATIONS))
            self.label2id = {name: turns for turns, name in enumerate(ROTATIONS)}
        if self.task == "factors":
            names = [f"{factor}: {n}" for factor, own in (self.factors or {}).items() for n in own]
            self.id2label = dict(enumerate(names))
            self.label2id = {name: number for number, name in enumerate(names)}

    @property
    def is_video(self) -> bool:
        """Whether it looks at clips."""
        return self.num_frames > 1

    @property
    def factor_slices(self) -> dict[str, slice]:
        """Where the classes of each factor stand among all logits."""
        slices, start = {}, 0
        for name, classes in (self.factors or {}).items():
            slices[name] = slice(start, start + len(classes))
            start += len(classes)
        return slices

    def validate_sizes(self) -> None:
        """Check the sizes.

        Raises:
            ValueError: With the field, its value and what would be allowed.
        """
        check_sizes(self, ("width", "feature_dim", "num_buckets", "max_pieces", "num_frames"))
        if self.image_size < SMALLEST_IMAGE:
            raise ValueError(f"image_size={self.image_size} must be at least {SMALLEST_IMAGE}.")
        if self.backbone == "lenet" and self.image_size > LARGEST_LENET:
            raise ValueError(
                f"image_size={self.image_size} is too large for the backbone lenet, which is for "
                f"images up to {LARGEST_LENET}. Choose the backbone resnet."
            )
        if self.num_channels not in (1, 3, 4):
            raise ValueError(f"num_channels={self.num_channels} must be 1, 3 or 4.")

    def validate_choices(self) -> None:
        """Check the switches.

        Raises:
            ValueError: With the field, its value and what would be allowed.
        """
        check_choices(self, {"backbone": BACKBONES, "task": TASKS})
        check_shares(self, ("dropout",))
        if self.is_video != (self.backbone == "r2plus1d"):
            raise ValueError(
                f"backbone={self.backbone} does not go with num_frames={self.num_frames}: r2plus1d is "
                "for clips of 2 frames and more, the others are for images."
            )
        if self.task == "factors" and not all((self.factors or {"": []}).values()):
            raise ValueError(
                f"factors={self.factors}: with task=factors give the classes of each factor, such as "
                "{'class': ['bag', 'coat'], 'direction': ['left', 'right']}."
            )


__all__ = ["BACKBONES", "TASKS", "GenJudgeConfig"]
