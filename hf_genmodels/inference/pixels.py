"""Draw, complete, enlarge and describe pictures with a language model that draws."""

from __future__ import annotations

import itertools
import math
import secrets
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from hf_genmodels.auto import resolve, tasks_of
from hf_genmodels.config.commands import refuse_options
from hf_genmodels.config.generate import (
    NOT_OF_DESCRIPTIONS,
    NOT_OF_PICTURES,
    NOT_OF_PIXELS,
    GenerateOptions,
)
from hf_genmodels.errors import UserError
from hf_genmodels.hub.loading import (
    load_image_processor_if_any,
    load_model,
    load_tokenizer,
    place_model,
)
from hf_genmodels.image_grid import draw_grid
from hf_genmodels.inference.image_files import (
    LARGEST_GRID,
    bytes_of,
    count_of,
    file_name,
    new_folder,
)
from hf_genmodels.inference.images import LARGEST_RANDOM_SEED, check_folder
from hf_genmodels.inference.language_texts import prompts_of
from hf_genmodels.models.pipeline_pixels import opened

BLANK = 255  # what is not given of a picture


@dataclass(frozen=True)
class Row:
    """Something to draw.

    Attributes:
        name: What stands beside it.
        task: The pipeline that draws it.
        given: What the pipeline is given.
        shown: The picture that was given, as the model sees it.
        real: The picture as it should become, if that is known.
    """

    name: str
    task: str
    given: Any
    shown: Image.Image | None = None
    real: Image.Image | None = None


class PixelDrawing:
    """What `genmodels generate` does with a language model that draws, checked and loaded.

    Args:
        options: The model, what to draw and how.

    Raises:
        UserError: If something cannot be read, or options contradict each other or do not fit.
    """

    def __init__(self, options: GenerateOptions):
        refuse_options(options, NOT_OF_PIXELS, "a language model that draws")
        self.options = options
        self.model: Any = place_model(load_model(options.model), options.device, int8=options.int8)
        self.tokenizer = load_tokenizer(options.model)
        self.processor: Any = load_image_processor_if_any(options.model)
        self.pipelines = {task.name: task.pipeline for task in tasks_of(self.model.config)}
        self.seed = secrets.randbelow(LARGEST_RANDOM_SEED) if options.seed is None else options.seed

    @property
    def labels(self) -> list[str]:
        """Names of the classes, if the model draws classes."""
        return list(self.processor.labels)

    def pipe(self, task: str) -> Any:
        """Return a pipeline.

        Raises:
            UserError: If the model was not trained for it.
        """
        if task not in self.pipelines:
            raise UserError(
                f"'{self.options.model}' was not trained for {task}. It does: "
                f"{', '.join(self.pipelines)}."
            )
        pipeline_class: Any = resolve(self.pipelines[task])
        return pipeline_class(
            model=self.model,
            tokenizer=self.tokenizer,
            image_processor=self.processor,
            device=str(self.model.device),
        )

    def settings(self) -> dict[str, Any]:
        """Return how colours are drawn."""
        names = ("temperature", "top_k", "top_p", "guidance_scale")
        given = {name: getattr(self.options, name) for name in names}
        settings = {name: value for name, value in given.items() if value is not None}
        return settings | ({"temperature": 0.0} if self.options.greedy else {})

    @property
    def is_certain(self) -> bool:
        """Whether the likeliest colour is always taken, so that nothing depends on the seed."""
        settings = self.settings()
        return settings.get("temperature") == 0 or settings.get("top_k") == 1

    def rows(self) -> list[Row]:
        """Return what was asked for: pictures to complete and to enlarge, else prompts, else all labels.

        Raises:
            UserError: If something of it cannot be drawn.
        """
        options = self.options
        names = [*options.label, *(prompts_of(options) if options.file else options.prompts)]
        if options.complete or options.enlarge:
            texts = self._texts_for(names, len(options.complete))
            rows = [
                self._to_complete(file, text)
                for file, text in zip(options.complete, texts, strict=True)
            ]
            return rows + [self._to_enlarge(file) for file in options.enlarge]
        return [Row(name, "text-to-image", name) for name in names or self.labels or [""]]

    def check(self, row: Row) -> None:
        """Refuse what cannot be drawn before anything is, and say what is cut.

        Raises:
            UserError: With the reason.
        """
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                self.pipe(row.task).preprocess([row.given])
            except ValueError as error:
                raise UserError(f"{row.name!r} cannot be drawn. {error}") from error
        for warning in caught:
            sys.stderr.write(f"note: {warning.message}\n")

    def images(self, row: Row) -> Iterator[tuple[int, Image.Image]]:
        """Yield seed and picture of everything that is drawn for a row."""
        own = {"keep": self.options.keep} if row.task == "image-completion" else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # told when it was checked
            drawn = self.pipe(row.task)(
                row.given,
                num_images=self.options.num_images,
                seed=self.seed,
                **self.settings(),
                **own,
            )
        yield from enumerate(drawn, start=self.seed)

    def _texts_for(self, names: Sequence[str], count: int) -> Sequence[str]:
        """Return a prompt for each picture to complete: one for all, one for each, or none."""
        if len(names) == count:
            return names
        if len(names) > 1 or (names and not count):
            raise UserError(
                f"{len(names)} prompts were given for {count} pictures of --complete. Give one for "
                "all, one for each, or none."
            )
        return list(names or [""]) * count

    def _to_complete(self, file: str, text: str) -> Row:
        picture = _picture("complete", file)
        [real] = self._as_seen(picture)
        pixels = np.array(real)
        pixels[round(len(pixels) * self.options.keep) :] = BLANK
        given = {"image": picture, "text": text}
        name = f"{Path(file).stem}: {text}" if text else Path(file).stem
        return Row(name, "image-completion", given, Image.fromarray(pixels), real)

    def _to_enlarge(self, file: str) -> Row:
        self.pipe("image-super-resolution")
        picture = _picture("enlarge", file)
        size = self.model.config.image_sizes[0]
        [small] = self._as_seen(picture, 1)
        shown = small.resize((size, size), Image.Resampling.NEAREST)
        real = self._as_seen(picture)[0] if min(picture.size) >= size else None
        return Row(Path(file).stem, "image-super-resolution", picture, shown, real)

    def _as_seen(self, picture: Image.Image, size_index: int = 0) -> list[Image.Image]:
        """Return a picture in the size and the colours of the model."""
        found: list[Image.Image] = self.processor.to_images(
            self.processor(picture, size_index)["pixel_ids"]
        )
        return found


def draw(options: GenerateOptions, output: Path | None) -> Iterator[str]:
    """Draw pictures and write them.

    Args:
        options: The model, what to draw and how.
        output: Folder for numbered files, if they are wanted.

    Yields:
        What was done, in words.

    Raises:
        UserError: See `PixelDrawing`; or if there is nowhere to write.
    """
    refuse_options(options, NOT_OF_PICTURES, "a language model that draws")
    grid = None if options.grid is None else Path(options.grid).expanduser()
    if grid is None and output is None:
        raise UserError("Say where the pictures shall go: --grid FILE.png or --output FOLDER.")
    if grid is not None and not grid.absolute().parent.is_dir():
        raise UserError(f"--grid {grid}: there is no folder {grid.parent}.")
    if output is not None:
        check_folder(output)
    drawing = PixelDrawing(options)
    rows = drawing.rows()
    total = len(rows) * options.num_images
    if grid is not None and total > LARGEST_GRID:
        raise UserError(
            f"--grid would hold {total:,} pictures, more than {LARGEST_GRID:,}. Write files with "
            "--output FOLDER, or lower --num_images."
        )
    for row in rows:
        drawing.check(row)
    drawn: list[list[Image.Image]] = []
    numbers = itertools.count(1)
    with new_folder(output) as folder, tqdm(total=total, unit=" images", disable=None) as progress:
        for row in rows:
            drawn.append([])
            for seed, picture in drawing.images(row):
                if folder is not None:
                    picture.save(folder / file_name(next(numbers), row.name, seed))
                if grid is not None:
                    drawn[-1].append(picture)
                progress.update()
    if output is not None:
        yield f"wrote {count_of(total, 'image')} to {output}"
    if grid is not None:
        write_grid(grid, rows, drawn)
        yield f"drew {count_of(total, 'image')} into {grid}"
    if options.seed is None and not drawing.is_certain:
        yield f"drawn with --seed {drawing.seed}"


def write_grid(path: Path, rows: Sequence[Row], drawn: Sequence[Sequence[Image.Image]]) -> None:
    """Write a picture of all: given, drawn and real ones side by side.

    Args:
        path: The file, .png.
        rows: What was drawn.
        drawn: The pictures of each row.
    """
    count = len(drawn[0])
    has_given = all(row.shown is not None for row in rows)
    has_real = all(row.real is not None for row in rows)
    cells, groups = [], []
    for row, own in zip(rows, drawn, strict=True):
        given = [row.shown] if has_given else []
        real = [row.real] if has_real else []
        cells += [bytes_of(picture) for picture in (*given, *own, *real)]
    names = [row.name for row in rows] if len(rows) > 1 else []
    if not has_given and len(rows) == 1:
        draw_grid(path, np.stack(cells), math.ceil(math.sqrt(count)), names)
        return
    groups = [("given", 1)] if has_given else []
    groups += [("drawn" if groups else "", count)]
    groups += [("real", 1)] if has_real else []
    draw_grid(path, np.stack(cells), groups, names)


def describe(options: GenerateOptions) -> Iterator[tuple[str, str]]:
    """Write about pictures.

    Args:
        options: The model, the pictures and how to write.

    Yields:
        The name of each file and a text about it.

    Raises:
        UserError: If something cannot be read, or options contradict each other or do not fit.
    """
    refuse_options(options, NOT_OF_DESCRIPTIONS, "told to describe pictures")
    drawing = PixelDrawing(options)
    pipe = drawing.pipe("image-to-caption")
    if len(options.prompts) > 1:
        raise UserError(
            f"--describe takes one prompt, with which all texts begin, not {len(options.prompts)}."
        )
    [text] = options.prompts or [""]
    pictures = [(file, _picture("describe", file)) for file in options.describe]
    settings: dict[str, Any] = {"num_return_sequences": options.num_return_sequences}
    draws = any(value is not None for value in (options.temperature, options.top_k, options.top_p))
    if draws or options.num_return_sequences > 1:
        names = ("temperature", "top_k", "top_p")
        given = {name: getattr(options, name) for name in names}
        settings |= {name: value for name, value in given.items() if value is not None}
        settings["do_sample"] = True
    if options.max_new_tokens is not None:
        settings["max_new_tokens"] = options.max_new_tokens
    if options.seed is not None:
        from transformers import set_seed

        set_seed(options.seed)
    for file, picture in pictures:
        try:
            found = pipe({"image": picture, "text": text}, **settings)
        except ValueError as error:
            raise UserError(str(error)) from error
        for one in found:
            yield file, one["generated_text"]


def _picture(flag: str, file: str) -> Image.Image:
    """Open the picture of a flag.

    Raises:
        UserError: If it cannot be read.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise UserError(
            f"--{flag}: there is no file {file!r}. A prompt stands before --{flag}, right behind the "
            "folder of the model."
        )
    try:
        return opened(str(path), "a picture was expected.")
    except ValueError as error:
        raise UserError(f"--{flag}: {error}") from error
