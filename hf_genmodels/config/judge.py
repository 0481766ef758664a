"""Options of `genmodels train judge`."""

# No postponed annotations: jsonargparse looks names up in the module of a subclass.
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from hf_genmodels.config.hub import HubConfig
from hf_genmodels.config.images import ImageDataConfig
from hf_genmodels.config.run import at_least
from hf_genmodels.errors import UserError
from hf_genmodels.models.configuration_judge import LARGEST_LENET

JudgeTask = Literal["auto", "class", "attributes", "rotation", "matching", "factors"]
JudgeBackbone = Literal["auto", "lenet", "resnet", "r2plus1d"]
# What is known about the images -> what a judge learns from it.
TASK_OF = {"class": "class", "attributes": "attributes", "text": "matching", "none": "rotation"}
STEPS = 900
LEAST_STEPS = 200
# A judge that knows its training images by heart sees other real images differently. Captions take longer.
EPOCHS = {"matching": 20.0, "factors": 6.0}
USUAL_EPOCHS = 3.0


@dataclass
class JudgeOptions:
    """What the judge is and how it is trained."""

    task: JudgeTask = "auto"
    """What it learns: class, attributes, matching (of images and captions), factors (what a sprite is and
    where it moves), or rotation, which needs no labels. auto: by what is known about the images."""

    backbone: JudgeBackbone = "auto"
    """lenet, for images up to 32 x 32, or resnet; r2plus1d for clips. auto: lenet for grey images up to
    32 x 32."""

    width: int = 32
    """Channels of the first convolution."""

    feature_dim: int = 64
    """Number of the features by which images are compared."""

    epochs: float | None = None
    """Passes over the images, but at least 200 steps. By default 3, 6 for factors and 20 for captions: more make
    it know the training images by heart, so that other real images look unreal to it."""

    max_steps: int = STEPS
    """Most optimizer steps of its training, however many images there are."""

    batch_size: int = 100
    """Images in a step."""

    learning_rate: float = 6e-3
    """Highest learning rate; it rises over the first fifth of the steps and falls to zero."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UserError: If a value cannot work.
        """
        for name in ("width", "feature_dim", "max_steps"):
            at_least(name, getattr(self, name), 1)
        at_least("batch_size", self.batch_size, 2)
        if self.epochs is not None and self.epochs <= 0:
            raise UserError(f"--epochs is {self.epochs}. It must be positive.")
        if not 0 < self.learning_rate < 1:
            raise UserError(f"--learning_rate is {self.learning_rate}. It must lie in (0, 1).")

    def task_for(self, kind: str, factors: Collection[str] = ()) -> str:
        """Return the task for images of which this is known.

        Args:
            kind: `class`, `attributes`, `text` or `none`.
            factors: What else is known about each clip.

        Raises:
            UserError: If the task needs something else.
        """
        fitting = TASK_OF[kind]
        if factors and self.task in ("auto", "factors"):
            return "factors"
        if self.task in ("auto", "rotation", fitting):
            return fitting if self.task == "auto" else self.task
        known = "nothing but the pixels" if kind == "none" else f"their {_WORDS[kind]}"
        raise UserError(
            f"--task {self.task} does not go with these images: of them {known} is known. "
            f"Choose {' or '.join(dict.fromkeys((fitting, 'rotation')))}, or name the column."
        )

    def steps_for(self, task: str, num_images: int) -> int:
        """Return the number of steps for so many images."""
        epochs = self.epochs or EPOCHS.get(task, USUAL_EPOCHS)
        wanted = math.ceil(epochs * num_images / self.batch_size)
        return min(self.max_steps, max(LEAST_STEPS, wanted))

    def backbone_for(self, image_size: int, num_channels: int, num_frames: int = 1) -> str:
        """Return the backbone for images, or clips, of this size.

        Raises:
            UserError: If the one that was asked for looks at something else.
        """
        if self.backbone != "auto" and (self.backbone == "r2plus1d") != (num_frames > 1):
            given = f"clips of {num_frames} frames" if num_frames > 1 else "images"
            raise UserError(
                f"--backbone {self.backbone} does not look at {given}: r2plus1d is for clips, lenet and "
                "resnet are for images. Leave it out."
            )
        if self.backbone != "auto":
            return self.backbone
        if num_frames > 1:
            return "r2plus1d"
        return "lenet" if num_channels == 1 and image_size <= LARGEST_LENET else "resnet"


@dataclass
class TrainJudgeConfig(HubConfig, ImageDataConfig, JudgeOptions):
    """Options of `genmodels train judge`."""

    output_dir: str | None = None
    """Folder for the judge."""

    seed: int = 42
    """Seed of the weights, of the order of the images and of dropout."""

    device: str | None = None
    """Where to compute: cpu, cuda, mps; by default the accelerator, if there is one."""

    overwrite: bool = False
    """Replace a model in output_dir."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UserError: If a value cannot work.
        """
        ImageDataConfig.__post_init__(self)
        JudgeOptions.__post_init__(self)
        self.check_hub()
        if self.backbone == "lenet" and self.image_size > LARGEST_LENET:
            raise UserError(
                f"--backbone lenet is for images up to {LARGEST_LENET} pixels, but --image_size is "
                f"{self.image_size}. Choose --backbone resnet."
            )


_WORDS = {"class": "class", "attributes": "attributes", "text": "captions"}
