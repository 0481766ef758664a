"""Grids of small images with labels, and animations of them, as files."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hf_genmodels.models.video_files import save_video, write_whole

Group = tuple[str, int]

BACKGROUND = (255, 255, 255)
INK = (40, 40, 40)
GAP = 2  # pixels between images
GROUP_GAP = 12
MARGIN = 8
SMALLEST_CELL = 64  # smaller images are enlarged by a whole factor
LARGEST_WIDTH = 2400  # where that would be exceeded, they are enlarged less
FONT_SIZE = 14
LABEL_WIDTH = 180
MOST_LINES = 4


@dataclass(frozen=True)
class _Layout:
    """Where things stand, in pixels.

    Attributes:
        cell: Side of an enlarged image.
        lefts: Left edge of each column.
        left: Right end of the labels of rows.
        top: Bottom of the titles.
        rows: Number of rows.
        step: From the top of a row to that of the next one.
    """

    cell: tuple[int, int]
    lefts: list[int]
    left: int
    top: int
    rows: int
    step: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture."""
        width = self.lefts[-1] + self.cell[0] + MARGIN
        return width, self.top + (self.rows - 1) * self.step + self.cell[1] + MARGIN


def grid_image(
    images: Any,
    columns: int | Sequence[Group],
    row_labels: Sequence[str] = (),
    *,
    scale: int | None = None,
) -> Image.Image:
    """Lay images out in rows, from left to right and from top to bottom.

    Args:
        images: Bytes, (N, C, H, W), an array or a tensor; 1 channel is grey, 3 are colours, 4 colours and
            opacity, over white. The last row may be incomplete.
        columns: Images in a row; or groups of columns, each with what stands above it and its number of
            columns.
        row_labels: What stands left of each row; long labels are broken into lines.
        scale: Whole factor by which images are enlarged without smoothing; by default so that they are
            at least 64 pixels high and wide.

    Returns:
        The picture, RGB.

    Raises:
        ValueError: If there is no image, or labels and rows do not fit.
    """
    pixels = _pixels(images)
    groups = [("", columns)] if isinstance(columns, int) else list(columns)
    per_row = sum(number for _, number in groups)
    if per_row < 1 or not len(pixels):
        raise ValueError(f"A grid needs an image and a column, not {len(pixels)} and {per_row}.")
    rows = -(-len(pixels) // per_row)
    if row_labels and len(row_labels) != rows:
        raise ValueError(f"{len(row_labels)} labels do not fit {rows} rows.")
    height, width = pixels.shape[1:3]
    scale = scale or _scale(min(height, width), width * per_row)
    lines = [_lines(label, LABEL_WIDTH) for label in row_labels]
    layout = _layout((width * scale, height * scale), groups, lines, rows)
    picture = Image.new("RGB", layout.size, BACKGROUND)
    for number, image in enumerate(pixels):
        row, column = divmod(number, per_row)
        large = Image.fromarray(image).resize(layout.cell, Image.Resampling.NEAREST)
        picture.paste(large, (layout.lefts[column], layout.top + row * layout.step))
    _write_labels(ImageDraw.Draw(picture), layout, groups, lines)
    return picture


def draw_grid(
    path: str | os.PathLike[str],
    images: Any,
    columns: int | Sequence[Group],
    row_labels: Sequence[str] = (),
    *,
    scale: int | None = None,
) -> Path:
    """Write a grid of images as PNG, whole or not at all; the arguments are those of `grid_image`.

    Args:
        path: The file; its folder is made if it does not exist.
        images: See `grid_image`.
        columns: See `grid_image`.
        row_labels: See `grid_image`.
        scale: See `grid_image`.

    Returns:
        The file.

    Raises:
        ValueError: If there is no image, or labels and rows do not fit.
    """
    picture = grid_image(images, columns, row_labels, scale=scale)
    return save_picture(picture, path)


def save_picture(picture: Image.Image, path: str | os.PathLike[str]) -> Path:
    """Write a picture in the format of its name, whole or not at all.

    Args:
        picture: The picture.
        path: The file, such as `grid.png`; its folder is made if it does not exist.

    Returns:
        The file.
    """

    def write(staged: Path) -> None:
        picture.save(staged, optimize=True)

    return write_whole(path, write)


def draw_animation(
    path: str | os.PathLike[str],
    frames: Sequence[Image.Image | str | os.PathLike[str]],
    *,
    seconds: float = 0.25,
    hold: float = 2.0,
) -> Path:
    """Write pictures of one size as an animation that begins again, whole or not at all.

    Args:
        path: The file, .gif, .webp or .mp4; its folder is made if it does not exist.
        frames: Pictures or their files, such as the grids of a run in the order of their steps.
        seconds: How long each is shown.
        hold: How long the last one is shown.

    Returns:
        The file.

    Raises:
        ValueError: If there is no picture, their sizes differ, or the name ends in something else.
    """
    return save_video(path, [_opened(frame) for frame in frames], 1 / seconds, hold=hold)


def _pixels(images: Any) -> np.ndarray:
    """Return bytes (N, H, W, 3), what is not opaque over white."""
    array = np.asarray(images.cpu() if hasattr(images, "cpu") else images)
    if array.ndim != 4 or array.dtype != np.uint8 or array.shape[1] not in (1, 3, 4):
        raise ValueError(
            "A grid is drawn of bytes (N, C, H, W) with 1, 3 or 4 channels, not of "
            f"{array.dtype} {array.shape}."
        )
    array = array.transpose(0, 2, 3, 1)
    if array.shape[-1] == 4:
        colors, opacity = array[..., :3].astype(np.uint16), array[..., 3:].astype(np.uint16)
        return ((colors * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:3], 3)))


def _scale(side: int, width: int) -> int:
    """Return the factor by which images are enlarged."""
    return max(1, min(math.ceil(SMALLEST_CELL / side), LARGEST_WIDTH // width))


def _layout(
    cell: tuple[int, int], groups: Sequence[Group], lines: list[list[str]], rows: int
) -> _Layout:
    """Find the place of everything: labels left, titles above, groups apart from each other."""
    widest = max((_width(line) for label in lines for line in label), default=0)
    left = MARGIN + (widest + MARGIN if widest else 0)
    lefts, edge, title_lines = [], left, 0
    for title, number in groups:
        lefts += [edge + place * (cell[0] + GAP) for place in range(number)]
        across = number * (cell[0] + GAP)
        title_lines = max(title_lines, len(_lines(title, across)))
        edge += across + GROUP_GAP - GAP
    tallest = max(map(len, lines), default=0) * _line_height()
    return _Layout(
        cell=cell,
        lefts=lefts,
        left=left,
        top=MARGIN + title_lines * _line_height() + (4 if title_lines else 0),
        rows=rows,
        step=max(cell[1], tallest) + GAP,
    )


def _write_labels(
    draw: ImageDraw.ImageDraw, layout: _Layout, groups: Sequence[Group], lines: list[list[str]]
) -> None:
    """Write the labels of rows, right-aligned and in the middle of their row, and the titles."""
    font, height = _font(), _line_height()
    for row, label in enumerate(lines):
        top = layout.top + row * layout.step + (layout.cell[1] - len(label) * height) // 2
        for number, line in enumerate(label):
            place = (layout.left - MARGIN - _width(line), top + number * height)
            draw.text(place, line, INK, font)
    first = 0
    for title, number in groups:
        across = number * (layout.cell[0] + GAP)
        for row, line in enumerate(_lines(title, across)):
            draw.text((layout.lefts[first], MARGIN + row * height), line, INK, font)
        first += number


def _lines(text: str, width: int) -> list[str]:
    """Break a text into lines that are not wider than so many pixels, the last one shortened."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and _width(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 1], f"{lines[MOST_LINES - 1]} …"]
    return [_shortened(line, width) for line in lines]


def _shortened(line: str, width: int) -> str:
    if _width(line) <= width:
        return line
    kept = next((n for n in range(len(line), 0, -1) if _width(f"{line[:n]}…") <= width), 1)
    return f"{line[:kept]}…"


@lru_cache(maxsize=4096)
def _width(text: str) -> int:
    """Return the width of a line of text in pixels."""
    return math.ceil(_font().getlength(text))


def _line_height() -> int:
    return round(FONT_SIZE * 1.3)


@lru_cache(maxsize=1)
def _font() -> Any:
    return ImageFont.load_default(FONT_SIZE)


def _opened(frame: Image.Image | str | os.PathLike[str]) -> Image.Image:
    if isinstance(frame, Image.Image):
        return frame.convert("RGB")
    with Image.open(frame) as picture:
        return picture.convert("RGB")
