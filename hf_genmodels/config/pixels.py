"""Options of a language model that draws: the pictures, and what is learned about them."""

# No postponed annotations: jsonargparse looks names up in the module of a subclass.
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields

from hf_genmodels.config.images import ImageDataConfig, Resize
from hf_genmodels.config.run import TextDataConfig, at_least
from hf_genmodels.errors import UserError, naming_flags

TASKS = ("draw", "caption", "super_resolution")
LARGEST_IMAGE = 32
LARGEST_PALETTE = 4096
# begin, the token of a picture, the token of a caption, end
FRAME = 4
# a picture, a small picture, a caption
FRAMES = 3


@dataclass
class PixelOptions:
    """Pictures instead of texts: with an image_size, the data are images and a pixel is a token."""

    image_size: int | None = None
    """Height and width that all pictures are brought to; null: the data are texts."""

    small_size: int | None = None
    """Height and width of the small pictures of super-resolution; half of image_size by default."""

    num_channels: int | None = None
    """1 (grey), 3 (RGB) or 4 (with transparency); by default what the images need."""

    palette_size: int = 64
    """Colours of the palette, found by k-means on the training images."""

    image_column: str | None = None
    """Column of the images or of their file names; `image` or `file_name` by default."""

    label_column: str | None = None
    """Column of the classes, whose names are the prompts; `label` by default."""

    extra_text_columns: list[str] = field(default_factory=list)
    """More prompts of each image beside --text_column, such as its keywords; training draws one of all."""

    resize: Resize = "crop"
    """How a rectangle becomes a square: crop its middle, pad it, or stretch it."""

    flip: bool = False
    """Mirror every second picture while training, at random."""

    draw: float = 1.0
    """Weight of the task to draw a picture for a prompt; the weights are made to sum to 1."""

    caption: float = 0.0
    """Weight of the task to write the prompt of a picture; the picture itself is learned too, without prompt."""

    super_resolution: float = 0.0
    """Weight of the task to draw a picture for its small copy."""

    prompt_dropout: float = 0.1
    """Share of the drawn pictures that come without their prompt, which classifier-free guidance needs."""

    hidden_pixels: float = 0.0
    """Hide pixels from the model that learns the next ones: of each picture another share, up to this
    one. It then looks at the prompt and at the small picture too, not only at the pixels before."""

    max_prompt_tokens: int = 16
    """Longest prompt in tokens; what is longer is cut off."""

    guidance_scale: float = 1.0
    """Classifier-free guidance of the pictures that are drawn at validations; 1 is none."""

    columns: int = 8
    """Pictures drawn for each prompt at validations."""

    def __post_init__(self) -> None:
        """Check every value and fill the defaults that depend on others.

        Raises:
            UserError: If a value cannot work.
        """
        for name in TASKS:
            at_least(f"pixels.{name}", getattr(self, name), 0)
        if not any(self.weights.values()):
            raise UserError(f"One of {', '.join(f'--pixels.{n}' for n in TASKS)} must be above 0.")
        if not 0 <= self.prompt_dropout < 1:
            raise UserError(f"--pixels.prompt_dropout is {self.prompt_dropout}. It lies in [0, 1).")
        if not 0 <= self.hidden_pixels <= 1:
            raise UserError(f"--pixels.hidden_pixels is {self.hidden_pixels}. It lies in [0, 1].")
        for name in ("palette_size", "max_prompt_tokens", "columns"):
            at_least(f"pixels.{name}", getattr(self, name), 2 if name == "palette_size" else 1)
        if self.palette_size > LARGEST_PALETTE:
            raise UserError(
                f"--pixels.palette_size is {self.palette_size}. A colour is a token: at most "
                f"{LARGEST_PALETTE:,} are found."
            )
        at_least("pixels.guidance_scale", self.guidance_scale, 0)
        if self.image_size is not None:
            self._check_sizes(self.image_size)

    def _check_sizes(self, size: int) -> None:
        if not 8 <= size <= LARGEST_IMAGE:
            raise UserError(
                f"--pixels.image_size is {size}. A pixel is a token, so that pictures of 8 to "
                f"{LARGEST_IMAGE} pixels a side are learned."
            )
        if self.super_resolution and self.small_size is None:
            self.small_size = size // 2
        if self.small_size is not None and not 2 <= self.small_size < size:
            raise UserError(
                f"--pixels.small_size is {self.small_size}. It must be at least 2 and below "
                f"--pixels.image_size {size}."
            )

    @property
    def weights(self) -> dict[str, float]:
        """Weight of every task."""
        return {name: getattr(self, name) for name in TASKS}

    @property
    def image_sizes(self) -> list[int]:
        """Sizes of the pictures, the one that is drawn first."""
        return [size for size in (self.image_size, self.small_size) if size is not None]

    @property
    def num_tokens(self) -> int:
        """Tokens beside those of texts: the colours, and what stands before pictures and captions."""
        return self.palette_size + FRAMES

    @property
    def longest_document(self) -> int:
        """Tokens of the longest document."""
        pixels = [size * size for size in self.image_sizes]
        lengths = [pixels[0] + self.max_prompt_tokens + FRAME]
        if self.super_resolution:
            lengths.append(sum(pixels) + FRAME)
        return max(lengths)

    def naming_flags(self) -> AbstractContextManager[None]:
        """Let mistakes in options of images name them as flags of pixels."""
        shared = {field.name for field in fields(ImageDataConfig)}
        return naming_flags("pixels", [f.name for f in fields(self) if f.name in shared])

    def image_data(self, data: TextDataConfig) -> ImageDataConfig:
        """Return where the images come from and how they are brought to size.

        Args:
            data: The options that texts and images share.

        Raises:
            UserError: If a value cannot work.
        """
        with self.naming_flags():
            return ImageDataConfig(
                dataset_name=data.dataset_name,
                dataset_config_name=data.dataset_config_name,
                train_file=data.train_file,
                validation_file=data.validation_file,
                validation_split_percentage=data.validation_split_percentage,
                image_column=self.image_column,
                label_column=self.label_column,
                text_column=data.text_column,
                extra_text_columns=self.extra_text_columns,
                image_size=self.image_sizes[0],
                num_channels=self.num_channels,
                resize=self.resize,
                flip=self.flip,
                cache_dir=data.cache_dir,
            )
