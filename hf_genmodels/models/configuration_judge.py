"""Configuration of the judge: a small network that looks at images to measure a generator."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .config_checks import check_choices, check_shares, check_sizes

BACKBONES = ("lenet", "resnet")
TASKS = ("class", "attributes", "rotation", "matching")
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
            (He et al. 2016, arXiv:1512.03385).
        image_size: Height and width of the images in pixels.
        num_channels: 1 for grey images, 3 for colours, 4 for colours and opacity.
        task: What it learns: `class`, `attributes` (each one is there or not), `rotation` (by how
            many quarters an image is turned, which needs no labels: Gidaris et al. 2018,
            arXiv:1803.07728) or `matching` (which text belongs to which image: Radford et al. 2021,
            arXiv:2103.00020).
        width: Channels of the first convolution.
        feature_dim: Number of the features by which images are compared.
        dropout: Dropout before the head.
        num_buckets: Rows of the table of text embeddings; see `judge_text.py`.
        max_pieces: Most pieces of a text that are read.
        logit_scale: Initial logarithm of the factor of the similarities in matching.
        accuracy: Share of held-out images that were judged rightly when the training ended: among
            all classes, over all attributes, or of texts among a hundred. `None`: not measured.
        trained_on: Digest of the data and of the options of its training, for caches.
    """

    model_type = "gen_judge"

    backbone: str = "lenet"
    image_size: int = 32
    num_channels: int = 1
    task: str = "class"
    width: int = 32
    feature_dim: int = 64
    dropout: float | int = 0.2
    num_buckets: int = 8192
    max_pieces: int = 128
    logit_scale: float | int = 2.659
    accuracy: float | int | None = None
    trained_on: str | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.task == "rotation":
            self.id2label = dict(enumerate(ROTATIONS))
            self.label2id = {name: turns for turns, name in enumerate(ROTATIONS)}

    def validate_sizes(self) -> None:
        """Check the sizes.

        Raises:
            ValueError: With the field, its value and what would be allowed.
        """
        check_sizes(self, ("width", "feature_dim", "num_buckets", "max_pieces"))
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


__all__ = ["BACKBONES", "TASKS", "GenJudgeConfig"]
