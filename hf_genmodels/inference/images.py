"""Draw images or clips with a GAN: a grid, a folder of files, or the way from one image to another."""

from __future__ import annotations

import itertools
import math
import secrets
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hf_genmodels.auto import resolve, task_of
from hf_genmodels.config.commands import refuse_options
from hf_genmodels.config.generate import (
    ANIMATIONS,
    NOT_OF_VIDEOS,
    OF_CLASSES,
    OF_PIXELS,
    OF_PROMPTS,
    OF_TEXTS,
    OF_VIDEOS,
    GenerateOptions,
)
from hf_genmodels.errors import UserError, require_extra
from hf_genmodels.hub.loading import load_model, load_tokenizer_if_any, place_model
from hf_genmodels.image_grid import draw_animation, draw_grid, grid_image
from hf_genmodels.inference.image_files import (
    LARGEST_GRID,
    bytes_of,
    count_of,
    file_name,
    new_folder,
)
from hf_genmodels.inference.interpolation import draw_way
from hf_genmodels.inference.language_texts import prompts_of
from hf_genmodels.inference.videos import draw_clips
from hf_genmodels.models.video_files import FORMATS

AT_ONCE = 64  # images of one label that are drawn before they are written
FILE_SUFFIXES = (  # a folder with such a name is a mistake
    *(".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".txt"),
    *(".gif", ".webp", ".mp4", ".mov", ".avi", ".mkv", ".webm"),
)
LARGEST_RANDOM_SEED = 2**31


@dataclass(frozen=True)
class Subject:
    """Something to draw.

    Attributes:
        name: What stands beside its images.
        given: What the pipeline is given.
    """

    name: str
    given: Any


class Drawing:
    """What `genmodels generate` does with a GAN, checked and loaded.

    Args:
        options: The model, what to draw and how.

    Raises:
        UserError: If something cannot be read, or options contradict each other or do not fit.
    """

    def __init__(self, options: GenerateOptions):
        model: Any = load_model(options.model)
        self.config = model.config
        self.options = options
        medium = "clips" if self.config.is_video else "images"
        refuse_options(options, _refused(self.config), f"a model that draws {medium}")
        model = place_model(model, options.device)
        pipeline_class: Any = resolve(task_of(self.config).pipeline)
        self.pipe = pipeline_class(
            model=model, tokenizer=load_tokenizer_if_any(options.model), device=str(model.device)
        )
        self.seed = secrets.randbelow(LARGEST_RANDOM_SEED) if options.seed is None else options.seed

    def subjects(self) -> list[Subject]:
        """Return what was asked for; all labels if nothing was.

        Raises:
            UserError: If one of them cannot be drawn.
        """
        options, kind = self.options, self.config.conditioning
        if kind == "text":
            texts = prompts_of(options)
            if texts == [""]:
                raise UserError(
                    f"'{options.model}' draws texts: write one behind the folder, or give --file FILE."
                )
            return [self.subject(text) for text in texts]
        names = [*options.label, *options.prompts]
        if kind == "none":
            if names:
                raise UserError(
                    f"'{options.model}' draws without labels, and {names[0]!r} was given. Leave it out."
                )
            return [Subject("", None)]
        known = [str(name) for _, name in sorted(self.config.id2label.items())]
        return [self.subject(name) for name in names or known]

    def subject(self, name: str) -> Subject:
        """Return what a word on the command line means.

        Raises:
            UserError: If it cannot be drawn.
        """
        given: Any = name
        known = set(self.config.id2label.values())
        if self.config.conditioning == "attributes" and name not in known:
            parts = [part.strip() for part in name.split(",")]
            given = [_number_or_name(part, known) for part in parts if part]
        elif self.config.conditioning == "class":
            given = _number_or_name(name, known)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                self.pipe.preprocess([given])
            except ValueError as error:
                raise UserError(f"{name!r} cannot be drawn. {error}") from error
        for warning in caught:
            sys.stderr.write(f"note: {name!r}: {warning.message}\n")
        return Subject(name, given)

    @property
    def number(self) -> int:
        """How many images, or clips, of each subject are drawn."""
        return int(getattr(self.options, self.pipe.count))

    def images(self, subject: Subject) -> Iterator[tuple[int, Any]]:
        """Yield the seed and the picture of each image, or the seed and the frames of each clip.

        Raises:
            UserError: If the seed cannot be used.
        """
        count = self.number
        for start in range(0, count, AT_ONCE):
            first = self.seed + start
            try:
                drawn = self.pipe(
                    subject.given,
                    seed=first,
                    truncation=self.options.truncation,
                    **{self.pipe.count: min(AT_ONCE, count - start)},
                )
            except ValueError as error:
                raise UserError(str(error)) from error
            yield from enumerate(drawn, start=first)


def _refused(config: Any) -> dict[str, str]:
    """Return the options that mean nothing to a GAN -> what to do instead."""
    of_others = OF_CLASSES if config.conditioning == "text" else OF_PROMPTS
    if not config.is_video:
        return OF_TEXTS | OF_PIXELS | of_others | OF_VIDEOS
    counts = dict.fromkeys(("num_return_sequences", "n_best"), NOT_OF_VIDEOS["num_images"])
    return OF_TEXTS | OF_PIXELS | counts | of_others | NOT_OF_VIDEOS


def draw(options: GenerateOptions, output: Path | None) -> Iterator[str]:
    """Draw images or clips and write them.

    Args:
        options: The model, what to draw and how.
        output: Folder for numbered files, or the file of an animation, if they are wanted.

    Yields:
        What was done, in words.

    Raises:
        UserError: See `Drawing`; or if there is nowhere to write.
    """
    grid = None if options.grid is None else Path(options.grid).expanduser()
    if grid is None and output is None:
        raise UserError("Say where the images shall go: --grid FILE.png or --output FOLDER.")
    if grid is not None and not grid.absolute().parent.is_dir():
        raise UserError(f"--grid {grid}: there is no folder {grid.parent}.")
    moves = output is not None and output.suffix.lower() in FORMATS
    if moves and output is not None and output.suffix.lower() == ".mp4":
        require_extra("av", "video")
    if output is not None and not moves:
        check_folder(output)
    drawing = Drawing(options)
    if moves and not drawing.config.is_video:
        raise UserError(
            f"--output {output}: '{options.model}' draws images, and this is a file for clips. Name a "
            "new folder, or give --grid FILE.png."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is cut was told when the subjects were checked
        if drawing.config.is_video:
            done = draw_clips(drawing, grid, output)
        elif grid is not None and options.interpolate:
            done = [_interpolate(drawing, grid)]
        else:
            done = _draw_subjects(drawing, grid, output)
    yield from done
    if options.seed is None:
        yield f"drawn with --seed {drawing.seed}"


def _draw_subjects(drawing: Drawing, grid: Path | None, output: Path | None) -> list[str]:
    """Write the images of all subjects into a picture, a folder or both; say what was done."""
    subjects = drawing.subjects()
    total = len(subjects) * drawing.number
    if grid is not None and total > LARGEST_GRID:
        raise UserError(
            f"--grid would hold {total:,} images, more than {LARGEST_GRID:,}. Write files with "
            "--output FOLDER, or lower --num_images."
        )
    pixels, done = [], []
    numbers = itertools.count(1)
    with new_folder(output) as folder, tqdm(total=total, unit=" images", disable=None) as progress:
        for subject in subjects:
            for seed, picture in drawing.images(subject):
                if folder is not None:
                    picture.save(folder / file_name(next(numbers), subject.name, seed))
                progress.update()
                if grid is not None:
                    pixels.append(bytes_of(picture))
    if output is not None:
        done.append(f"wrote {count_of(total, 'image')} to {output}")
    if grid is not None:
        one = len(subjects) == 1
        columns = math.ceil(math.sqrt(total)) if one else drawing.number
        labels = [] if one else [subject.name for subject in subjects]
        draw_grid(grid, np.stack(pixels), columns, labels)
        done.append(f"drew {count_of(total, 'image')} into {grid}")
    return done


def _interpolate(drawing: Drawing, path: Path) -> str:
    """Write the way between two labels, prompts or seeds."""
    options = drawing.options
    is_between_seeds = bool(options.label or options.prompts or options.file)
    is_between_seeds |= drawing.config.conditioning == "none"
    if is_between_seeds:
        seeds = [_seed(word) for word in options.interpolate]
        subjects = drawing.subjects()
        ends = [(subject, subject) for subject in subjects]
        noise = [(seeds[0], seeds[1])] * len(subjects)
        labels = [subject.name for subject in subjects] if len(subjects) > 1 else []
    else:
        first, second = (drawing.subject(word) for word in options.interpolate)
        noise = [(drawing.seed + i, drawing.seed + i) for i in range(options.num_images)]
        ends, labels = [(first, second)] * len(noise), []
    frames = draw_way(
        drawing.pipe,
        [(one.given, other.given) for one, other in ends],
        noise,
        options.frames,
        options.truncation,
    )
    return write_way(path, frames, labels)


def write_way(path: Path, frames: np.ndarray, labels: list[str]) -> str:
    """Write pictures on the way from one image to another.

    Args:
        path: A .png, whose rows are ways, or an animation of all ways.
        frames: Bytes, (rows, frames, C, H, W).
        labels: What stands beside each row; or nothing.

    Returns:
        What was done, in words.
    """
    rows, count = frames.shape[:2]
    if path.suffix.lower() not in ANIMATIONS:
        draw_grid(path, frames.reshape(rows * count, *frames.shape[2:]), count, labels)
        return f"drew {rows:,} ways of {count} images into {path}"
    columns = math.ceil(math.sqrt(rows))
    pictures = [grid_image(frames[:, index], columns) for index in range(count)]
    # There and back, so that it does not jump where it begins again.
    draw_animation(path, [*pictures, *pictures[-2:0:-1]], seconds=0.1, hold=0.1)
    return f"drew {rows:,} ways of {count} images into {path}"


def _number_or_name(word: str, known: set[str]) -> int | str:
    """Return an id where the command line gives one; a label that looks like a number stays a label."""
    return int(word) if word.isdecimal() and word not in known else word


def _seed(word: str) -> int:
    if not word.isdecimal():
        raise UserError(
            f"--interpolate {word!r}: here it goes from one seed to another, which are whole numbers."
        )
    return int(word)


def check_folder(folder: Path) -> None:
    """Check that a folder can be made: it is not there, or empty.

    Args:
        folder: The folder for drawn images.

    Raises:
        UserError: If it is a file or is called like one, or holds something.
    """
    if folder.suffix.lower() in FILE_SUFFIXES and not folder.exists():
        raise UserError(
            f"--output {folder} has the name of a file, but many are written. Name a new folder, or "
            "give --grid FILE.png for one picture; clips also go into one file: .gif, .webp or .mp4."
        )
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder} is a file. Name a new folder for the images.")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"--output {folder} is not empty. Name a new folder for the images.")
