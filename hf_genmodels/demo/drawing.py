"""What the demo does with a GAN: images or clips of a label, of attributes, of a text, or of nothing."""

from __future__ import annotations

import tempfile
import warnings
from collections import deque
from pathlib import Path
from typing import Any

from PIL import Image

from hf_genmodels.config.generate import GenerateOptions
from hf_genmodels.demo.checks import check_number, check_seed, check_text, check_whole
from hf_genmodels.errors import UserError
from hf_genmodels.inference.images import Drawing
from hf_genmodels.models.video_files import save_video
from hf_genmodels.plain_text import printable

MOST_IMAGES = 64
MOST_CHARACTERS = 1000  # of a prompt
SMALLEST_TRUNCATION = 0.05
LARGE = 128  # pixels: frames of clips are enlarged by a whole factor to about as much
KEPT = 2  # calls whose clips stay on the disk, until the browser's server has copied them

Picture = tuple[Image.Image | str, str]


class Painter:
    """A generator of images or clips.

    Args:
        source: Its folder, or the name of a repository on the hub.
        device: Where it computes; by default on the accelerator, if there is one.

    Raises:
        UserError: If it cannot be loaded.
    """

    def __init__(self, source: str | Path, device: str | None = None):
        drawing = Drawing(GenerateOptions(str(source), device=device))
        self.pipe, self.config = drawing.pipe, drawing.config
        self.kind = str(self.config.conditioning)
        self.is_video = bool(self.config.is_video)
        self._folders: deque[tempfile.TemporaryDirectory[str]] = deque(maxlen=KEPT)

    @property
    def labels(self) -> list[tuple[str, int]]:
        """Name and id of each label."""
        names = {int(index): str(name) for index, name in self.config.id2label.items()}
        return [(printable(names[index]), index) for index in sorted(names)]

    def draw(
        self, given: Any, num_images: Any, seed: Any = None, truncation: Any = 1.0
    ) -> tuple[list[Picture], str]:
        """Draw images, or clips.

        Args:
            given: A text, the id or name of a label, a list of attributes, or `None`, as the model has it.
            num_images: How many.
            seed: Seed of the first one, the others following; -1 or `None` for a random one.
            truncation: Factor of the noise, at most 1; smaller is more typical and less varied.

        Returns:
            The images, or the files of the clips, each with its seed in words, and a note.

        Raises:
            UserError: If something cannot work.
        """
        if self.kind == "text":
            given = check_text("Prompt", given, MOST_CHARACTERS)
        elif self.kind == "class" and given is None:
            raise UserError("No label was chosen.")
        elif self.kind == "attributes":
            given = given or []
        name = "Clips" if self.is_video else "Images"
        count = check_whole(name, num_images, 1, MOST_IMAGES)
        first = check_seed(seed)
        truncation = check_number("Truncation", truncation, SMALLEST_TRUNCATION, 1)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                options = {self.pipe.count: count, "seed": first, "truncation": truncation}
                images = self.pipe(given, **options)
            except ValueError as error:
                raise UserError(str(error)) from error
        note = " ".join(str(one.message) for one in caught if one.category is UserWarning)
        shown = self._files(images) if self.is_video else images
        pictures = [(image, f"seed {first + place}") for place, image in enumerate(shown)]
        return pictures, note

    def _files(self, clips: list[list[Image.Image]]) -> list[str]:
        """Write clips as files that a browser shows moving."""
        self._folders.append(tempfile.TemporaryDirectory(prefix="clips-"))
        folder = Path(self._folders[-1].name)
        scale = max(1, LARGE // self.config.image_size)
        return [
            str(save_video(folder / f"{place}.webp", clip, scale=scale))
            for place, clip in enumerate(clips)
        ]
