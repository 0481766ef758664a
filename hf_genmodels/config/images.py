"""Options of the images that a model is trained on."""

# No postponed annotations: jsonargparse looks names up in the module of a subclass.
from dataclasses import dataclass, field
from typing import Literal

from hf_genmodels.config.run import at_least, drop_samples, file_names
from hf_genmodels.config.videos import VideoDataConfig
from hf_genmodels.errors import UserError

Resize = Literal["crop", "pad", "stretch"]
Broken = Literal["skip", "error"]


@dataclass
class ImageDataConfig(VideoDataConfig):
    """Where the images come from, how they are cut to size, and what is known about them."""

    dataset_name: str | None = None
    """Dataset of a hub; or give files."""

    dataset_config_name: str | None = None
    """Configuration of the hub dataset."""

    train_file: list[str] = field(default_factory=list)
    """Folders of images, whose subfolders are classes; or tables: parquet, jsonl or csv."""

    validation_file: list[str] = field(default_factory=list)
    """Folders or tables of images to validate on."""

    validation_split_percentage: float = 5.0
    """Without validation images, this random part of the training images is held out; 0 for none."""

    image_column: str | None = None
    """Column of the images or of their file names; `image` or `file_name` by default."""

    label_column: str | None = None
    """Column of the classes; `label` by default."""

    text_column: str | None = None
    """Column of the captions, one or a list of them; `text` or `caption` by default."""

    extra_text_columns: list[str] = field(default_factory=list)
    """More captions of each image, such as its keywords; training draws one of all."""

    attribute_columns: list[str] = field(default_factory=list)
    """Columns of 0 and 1 (or -1 and 1), patterns such as * allowed; or one column of lists of names."""

    image_size: int = 32
    """Height and width in pixels that all images are brought to."""

    num_channels: int | None = None
    """1 (grey), 3 (RGB) or 4 (with transparency); by default what the images need."""

    resize: Resize = "crop"
    """How a rectangle becomes a square: crop its middle, pad it, or stretch it."""

    flip: bool = False
    """Mirror every second image while training, at random."""

    balanced: bool = False
    """Draw every class equally often, however many images it has."""

    broken: Broken = "skip"
    """Images that cannot be used are left out, counted and listed (skip), or refused (error)."""

    max_train_images: int | None = None
    """Use this many training images only, chosen at random."""

    cache_dir: str | None = None
    """Where decoded images are kept for later runs; ~/.cache/hf_genmodels/images by default."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UserError: If a value cannot work.
        """
        drop_samples(self)
        if bool(self.dataset_name) == bool(self.train_file):
            raise UserError(
                "Give the images in one way: --train_file FOLDER-OR-TABLE, or --dataset_name NAME. "
                "To try it on bundled images: --train_file sample:fashion_mnist/train.parquet."
            )
        if self.validation_file and self.dataset_name:
            raise UserError(
                "--validation_file goes with --train_file; a hub dataset validates on its own "
                "split `validation` or `test`."
            )
        if not 0 <= self.validation_split_percentage < 100:
            raise UserError(
                f"--validation_split_percentage is {self.validation_split_percentage}. "
                "It must be at least 0 and below 100."
            )
        at_least("image_size", self.image_size, 8)
        if self.num_channels not in (None, 1, 3, 4):
            raise UserError(
                f"--num_channels is {self.num_channels}. "
                "Allowed: 1 (grey), 3 (RGB), 4 (with transparency)."
            )
        if self.max_train_images is not None:
            at_least("max_train_images", self.max_train_images, 2)
        self.check_frames(self.image_size)
        if self.flip and self.sprite_size:
            raise UserError(
                "--flip makes a sprite that moves left move right. Leave it out, or --sprite_size."
            )
        self._check_columns()

    def _check_columns(self) -> None:
        names = ("label_column", "text_column", "attribute_columns")
        given = [name for name in names if getattr(self, name)]
        if len(given) > 1:
            flags = " and ".join(f"--{name}" for name in given)
            raise UserError(f"{flags} were given. Images are drawn by one of them: leave one out.")
        if self.extra_text_columns and (self.label_column or self.attribute_columns):
            raise UserError(
                f"--extra_text_columns holds captions and does not go with --{given[0]}."
            )
        if self.balanced and (self.text_column or self.attribute_columns):
            raise UserError(f"--balanced draws classes, and --{given[0]} gives none. Leave it out.")

    @property
    def stored_size(self) -> int:
        """Height and width at which images are decoded and kept."""
        return self.sprite_size or self.image_size

    @property
    def stored_frames(self) -> int:
        """Frames that are decoded of each file."""
        return 1 if self.sprite_size else self.num_frames

    @property
    def stored_unit(self) -> str:
        """What is decoded, in words."""
        return "images" if self.stored_frames == 1 else "clips"

    @property
    def train_names(self) -> str:
        """Where the training images come from, in words."""
        return self.dataset_name or file_names(self.train_file)

    @property
    def validation_names(self) -> str:
        """Where the validation images come from, in words, if they are not of the training images."""
        if self.dataset_name:
            return f"{self.dataset_name} (validation)"
        return file_names(self.validation_file)
