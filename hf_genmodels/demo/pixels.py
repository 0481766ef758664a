"""What the demo does with a language model that draws: prompted, completed, enlarged and described pictures."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from PIL import Image

from hf_genmodels.config.generate import GenerateOptions
from hf_genmodels.demo.checks import check_number, check_seed, check_text, check_whole
from hf_genmodels.demo.drawing import MOST_CHARACTERS, Picture
from hf_genmodels.errors import UserError
from hf_genmodels.inference.pixels import PixelDrawing
from hf_genmodels.plain_text import printable

MOST_PICTURES = 16
HOTTEST = 2.0
LARGEST_SCALE = 10.0
SMALLEST_TOP_P = 0.05


class PixelPainter:
    """A language model that draws.

    Args:
        source: Its folder, or the name of a repository on the hub.
        device: Where it computes; by default on the accelerator, if there is one.

    Raises:
        UserError: If it cannot be loaded.
    """

    def __init__(self, source: str | Path, device: str | None = None):
        drawing = PixelDrawing(GenerateOptions(str(source), device=device))
        self.labels = [(printable(label), label) for label in drawing.labels]
        self.pipes = {
            name: drawing.pipe(name) for name in drawing.pipelines if name != "text-generation"
        }

    def draw(self, text: Any, *how: Any) -> tuple[list[Picture], str]:
        """Draw pictures of a prompt.

        Args:
            text: The prompt or label, which may be empty.
            *how: Number of pictures, seed, temperature, guidance scale and top-p.

        Returns:
            The pictures, each with its seed in words, and a note.

        Raises:
            UserError: If something cannot work.
        """
        prompt = check_text("Prompt", text, MOST_CHARACTERS, empty=True)
        return self._drawn("text-to-image", prompt, how)

    def complete(self, picture: Any, text: Any, keep: Any, *how: Any) -> tuple[list[Picture], str]:
        """Complete a picture.

        Args:
            picture: The picture.
            text: The prompt or label, which may be empty.
            keep: Part of its rows that is kept, from 0 to 1.
            *how: See `draw`.

        Returns:
            The pictures, each with its seed in words, and a note.

        Raises:
            UserError: If something cannot work.
        """
        prompt = check_text("Prompt", text, MOST_CHARACTERS, empty=True)
        given = {"image": _checked(picture), "text": prompt}
        return self._drawn("image-completion", given, how, keep=check_number("Keep", keep, 0, 1))

    def enlarge(self, picture: Any, *how: Any) -> tuple[list[Picture], str]:
        """Enlarge a small picture.

        Args:
            picture: The picture.
            *how: See `draw`.

        Returns:
            The pictures, each with its seed in words, and a note.

        Raises:
            UserError: If something cannot work.
        """
        return self._drawn("image-super-resolution", _checked(picture), how)

    def describe(self, picture: Any, text: Any) -> tuple[str, str]:
        """Write about a picture.

        Args:
            picture: The picture.
            text: How the text begins, if that is given.

        Returns:
            The text, and no note.

        Raises:
            UserError: If something cannot work.
        """
        given = {
            "image": _checked(picture),
            "text": check_text("Beginning", text, MOST_CHARACTERS, empty=True),
        }
        try:
            [found] = self.pipes["image-to-caption"](given)
        except ValueError as error:
            raise UserError(str(error)) from error
        return printable(found["generated_text"]), ""

    def _drawn(
        self, task: str, given: Any, how: tuple[Any, ...], **more: Any
    ) -> tuple[list[Picture], str]:
        """Check the numbers and draw."""
        number, seed, temperature, scale, top_p = how
        count = check_whole("Pictures", number, 1, MOST_PICTURES)
        first = check_seed(seed)
        settings = {
            "temperature": check_number("Temperature", temperature, 0, HOTTEST),
            "guidance_scale": check_number("Guidance", scale, 0, LARGEST_SCALE),
            "top_p": check_number("Top-p", top_p, SMALLEST_TOP_P, 1),
        }
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                images = self.pipes[task](given, num_images=count, seed=first, **settings, **more)
            except ValueError as error:
                raise UserError(str(error)) from error
        note = " ".join(str(one.message) for one in caught if one.category is UserWarning)
        return [(image, f"seed {first + place}") for place, image in enumerate(images)], note


def _checked(picture: Any) -> Image.Image:
    """Return a picture that stood in its field.

    Raises:
        UserError: If there was none.
    """
    if not isinstance(picture, Image.Image):
        raise UserError("No picture was chosen.")
    return picture
