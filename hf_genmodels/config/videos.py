"""Options of clips: how many frames they have, and sprites that move."""

# No postponed annotations: jsonargparse looks names up in the module of a subclass.
from dataclasses import dataclass, field

from hf_genmodels.config.run import at_least, check_choice
from hf_genmodels.errors import UserError

# Where a sprite goes -> steps to the right and downwards.
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


@dataclass
class VideoDataConfig:
    """Whether the data are clips, and whether these are made of still images."""

    num_frames: int = 1
    """Frames of a clip; 1: still images. More: the files are GIF, WebP, PNG or MP4 animations, of which as many
    frames are taken, evenly and from the middle; or --sprite_size makes clips of still images."""

    sprite_size: int | None = None
    """Clips made on the fly: images brought to this size move over an empty image of image_size, and captions
    say what moves where."""

    clips_per_image: int = 4
    """Sprites: clips of each image, each another motion."""

    sprite_directions: list[str] = field(default_factory=lambda: list(DIRECTIONS))
    """Sprites: where they move, of left, right, up and down."""

    sprite_seed: int = 0
    """Sprites: seed of their motions."""

    def check_frames(self, image_size: int) -> None:
        """Check every value.

        Args:
            image_size: Height and width of a frame.

        Raises:
            UserError: If a value cannot work.
        """
        at_least("num_frames", self.num_frames, 1)
        if self.sprite_size is None:
            return
        at_least("sprite_size", self.sprite_size, 4)
        at_least("clips_per_image", self.clips_per_image, 1)
        if self.num_frames == 1:
            raise UserError(
                f"--sprite_size {self.sprite_size} makes clips of images, and --num_frames is 1. Give "
                "--num_frames too, 16 for example."
            )
        if self.sprite_size >= image_size:
            raise UserError(
                f"--sprite_size {self.sprite_size} leaves no room to move on images of --image_size "
                f"{image_size}. Give less, {image_size // 2} for example."
            )
        if not self.sprite_directions:
            raise UserError(f"--sprite_directions is empty. Give some of {', '.join(DIRECTIONS)}.")
        for direction in self.sprite_directions:
            check_choice("sprite_directions", direction, tuple(DIRECTIONS))
