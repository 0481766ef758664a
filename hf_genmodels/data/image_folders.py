"""Images of a folder, whose subfolders may be classes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hf_genmodels.config.images import ImageDataConfig
from hf_genmodels.data.image_columns import Kind, is_image_name
from hf_genmodels.data.image_decoding import SUFFIXES
from hf_genmodels.data.image_tables import ImageTable, TableReader, read_table, stated
from hf_genmodels.data.video_decoding import VIDEO_SUFFIXES
from hf_genmodels.errors import UserError

# Where a folder of images may say something about each of them.
_METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")


def read_folder(folder: Path, config: ImageDataConfig, conditioning: Kind | None) -> ImageTable:
    """Find the images of a folder; its subfolders are classes, or a table in it says more.

    Args:
        folder: The folder.
        config: Columns that the user named.
        conditioning: What must be known about each image; None for what the folder has.

    Raises:
        UserError: If there are no images, or what must be known about them is not there.
    """
    for name in _METADATA:
        if (folder / name).is_file():
            return read_table(TableReader(folder / name), config, conditioning)
    suffixes = (*SUFFIXES, *VIDEO_SUFFIXES) if config.stored_frames > 1 else SUFFIXES
    files = _images_below(folder, suffixes)
    labels = [file.relative_to(folder).parts[0] for file in files]
    sorted_in = _in_subfolders(files, folder)
    found: Kind = "class" if sorted_in and len(set(labels)) > 1 else "none"
    kind = conditioning or found
    if (columns := _asked_columns(config, conditioning)) or kind not in ("class", "none"):
        named = f", where the columns {columns} could be looked for" if columns else ""
        raise UserError(
            f"The folder '{folder}' has no table that says more about its images{named}. "
            f"Put a {_METADATA[0]} with a column file_name into it, or leave the columns out (those "
            "that a preset names with --text_column null); without one the subfolders are classes."
        )
    if kind == "class" and not sorted_in:
        raise UserError(
            f"Classes are needed, but images of '{folder}' do not stand in subfolders, one for each "
            "class."
        )
    return ImageTable(
        where=f"the folder '{folder}'",
        kind=kind,
        columns=("folder",) if kind == "class" else (),
        values=[(label,) if kind == "class" else () for label in labels],
        explicit=conditioning is not None,
        files=list(files),
        identity=[stated(file, folder) for file in files],
    )


def read_files(
    files: Sequence[Path], where: str, config: ImageDataConfig, conditioning: Kind | None
) -> ImageTable:
    """Take image files that were named one by one, about which nothing is known.

    Args:
        files: The files.
        where: What they are called in messages.
        config: Columns that the user named.
        conditioning: What must be known about each image; None for nothing.

    Raises:
        UserError: If something must be known about them.
    """
    if _asked_columns(config, conditioning) or conditioning not in (None, "none"):
        raise UserError(
            f"{where} are only images, and nothing is known about them. Give the folder, whose "
            "subfolders are classes, or a table that names the files."
        )
    return ImageTable(
        where=where,
        kind="none",
        values=[()] * len(files),
        files=list(files),
        identity=[stated(file, file.parent) for file in files],
    )


def holds_images(name: str) -> bool:
    """Tell whether a name is that of an image file, or of a folder with one in it or below.

    Args:
        name: What a user gave; a pattern is looked at by its ending.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return is_image_name(name)
    return any(is_image_name(file) for _, _, files in os.walk(folder) for file in files)


def _asked_columns(config: ImageDataConfig, conditioning: Kind | None) -> str:
    """Return the columns of a table that the user named and that are needed, in words."""
    if conditioning == "none":
        return ""
    columns = (config.label_column, config.text_column)
    lists = (*config.extra_text_columns, *config.attribute_columns)
    return ", ".join(repr(name) for name in (*columns, *lists) if name)


def _images_below(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """List the images of a folder and its subfolders, hidden ones left out."""
    images, others, seen = [], Counter[str](), set[str]()
    for path, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not _hidden(name))
        if (real := os.path.realpath(path)) in seen:
            folders.clear()  # a link back to where it stands
            continue
        seen.add(real)
        for name in sorted(name for name in names if not _hidden(name)):
            if Path(name).suffix.lower() in suffixes:
                images.append(Path(path) / name)
            else:
                others[Path(name).suffix.lower() or name] += 1
    if not images:
        held = ", ".join(f"{count:,} {suffix}" for suffix, count in others.most_common(5))
        raise UserError(
            f"The folder '{folder}' holds no images"
            + (f", but other files: {held}. " if held else ": it is empty. ")
            + f"Known endings: {', '.join(suffixes)}. Tables in it are given by their names, "
            f"such as '{folder}/*.parquet'."
        )
    return images


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _in_subfolders(files: Sequence[Path], folder: Path) -> bool:
    """Whether no image stands beside the subfolders."""
    return all(len(file.relative_to(folder).parts) > 1 for file in files)
