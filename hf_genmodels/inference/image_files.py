"""Drawn images as files: their names, the folder that they go into, and their bytes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

LARGEST_GRID = 10_000  # images
LONGEST_NAME = 40  # characters of a label in the name of a file


@contextmanager
def new_folder(output: Path | None) -> Iterator[Path | None]:
    """Give a place for files that become a folder when all are written, and leave nothing otherwise.

    Args:
        output: The folder; `None`: there is none.
    """
    if output is None:
        yield None
        return
    staging = output.with_name(f".{output.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        yield staging
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    if output.is_dir():
        output.rmdir()
    staging.rename(output)


def file_name(number: int, label: str, seed: int, suffix: str = ".png") -> str:
    """Return the name of an image's file: its number, what it shows, and the seed that draws it again.

    Args:
        number: From 1.
        label: A label or prompt; what has no place in a name of a file becomes `_`.
        seed: Its seed.
        suffix: How the name ends.
    """
    word = "".join(c if c.isalnum() or c == "-" else "_" for c in label)
    word = "_".join(part for part in word.split("_") if part)[:LONGEST_NAME]
    return "_".join(part for part in (f"{number:05d}", word, f"seed{seed}{suffix}") if part)


def count_of(number: int, noun: str) -> str:
    """Return a number and a noun that goes with it, such as `1 image` and `2 images`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def bytes_of(picture: Any) -> np.ndarray:
    """Return a picture's bytes, (C, H, W)."""
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
