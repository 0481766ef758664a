"""Find the images of a table and what it says about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Any, Literal

from hf_genmodels.config.images import ImageDataConfig
from hf_genmodels.data.image_decoding import SUFFIXES
from hf_genmodels.data.video_decoding import VIDEO_SUFFIXES
from hf_genmodels.errors import UserError, suggest

Kind = Literal["none", "class", "attributes", "text"]

# Names that columns usually have.
_IMAGES = ("image", "img", "video", "clip", "file_name", "filename", "image_path", "path")
_USUAL: dict[Kind, tuple[str, ...]] = {"class": ("label",), "text": ("text", "caption")}
_FLAGS: dict[Kind, str] = {
    "class": "--label_column",
    "attributes": "--attribute_columns",
    "text": "--text_column",
}
_WORDS: dict[Kind, str] = {"class": "classes", "attributes": "attributes", "text": "captions"}


@dataclass(frozen=True)
class ImageColumns:
    """Columns of a table of images.

    Attributes:
        image: Column of images or of their file names.
        kind: What is known about each image.
        facts: Columns that say it: the label, the captions or the attributes.
        explicit: Whether the user asked for what is known, so that it may not be missing.
    """

    image: str
    kind: Kind
    facts: tuple[str, ...] = ()
    explicit: bool = False


def choose_columns(
    sample: Sequence[Mapping[str, Any]],
    where: str,
    config: ImageDataConfig,
    conditioning: Kind | None = None,
) -> ImageColumns:
    """Decide which columns of a table hold the images and what is known about them.

    Args:
        sample: Some rows of the table.
        where: What the table is called in messages.
        config: The columns that the user named.
        conditioning: What must be known about each image; None for what the table has.

    Returns:
        The columns.

    Raises:
        UserError: If a column is missing, holds something else, or it is not clear which one is meant.
    """
    if not sample:
        raise UserError(f"There are no rows in {where}.")
    names = list(dict.fromkeys(name for row in sample for name in row))
    image = _image_column(sample, names, where, config.image_column)
    if conditioning == "none":
        return ImageColumns(image, "none")
    others = [name for name in names if name != image]
    if named := _named(others, sample, where, config):
        kind, columns = named
        if conditioning not in (None, kind):
            raise UserError(
                f"{_FLAGS[kind]} was given, but {_WORDS[conditioning]} are needed. "
                f"Give {_FLAGS[conditioning]} instead, or another conditioning."
            )
        explicit = conditioning is not None or bool(config.label_column)
        return ImageColumns(image, kind, columns, explicit)
    for kind, usual in _USUAL.items():
        if conditioning in (None, kind) and (found := _usual(usual, others)):
            return ImageColumns(image, kind, found, explicit=conditioning is not None)
    if conditioning is None:
        return ImageColumns(image, "none")
    raise UserError(
        f"{_WORDS[conditioning].capitalize()} are needed, but {where} has no such column. "
        f"Name it with {_FLAGS[conditioning]}. {listing(names)}"
    )


def listing(names: Sequence[str]) -> str:
    """Say which columns there are."""
    return f"Its columns: {', '.join(names)}." if names else "It has no other columns."


def is_image_name(value: Any) -> bool:
    """Whether a value is text that ends as the name of an image or video file does."""
    suffixes = (*SUFFIXES, *VIDEO_SUFFIXES)
    return isinstance(value, str) and PurePath(value).suffix.lower() in suffixes


def _named(
    others: Sequence[str], sample: Sequence[Mapping[str, Any]], where: str, config: ImageDataConfig
) -> tuple[Kind, tuple[str, ...]] | None:
    """Return the columns that the user named, and what they hold."""
    if config.label_column:
        return "class", (_present(config.label_column, others, where),)
    if config.attribute_columns:
        return "attributes", _attribute_columns(config.attribute_columns, others, sample, where)
    if config.text_column or config.extra_text_columns:
        first = (config.text_column,) if config.text_column else _usual(_USUAL["text"], others)
        texts = (*first, *config.extra_text_columns)
        return "text", tuple(dict.fromkeys(_present(name, others, where) for name in texts))
    return None


def _usual(usual: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Return the first of the usual names that is there."""
    return tuple(name for name in usual if name in names)[:1]


def _present(name: str, names: Sequence[str], where: str) -> str:
    if name not in names:
        raise UserError(
            f"There is no column {name!r} in {where}. {suggest(name, names)}{listing(names)}"
        )
    return name


def _attribute_columns(
    patterns: Sequence[str],
    names: Sequence[str],
    sample: Sequence[Mapping[str, Any]],
    where: str,
) -> tuple[str, ...]:
    """Spell patterns out over the columns that hold nothing but 0 and 1, or -1 and 1."""
    found: list[str] = []
    for pattern in patterns:
        if pattern in names:
            found.append(pattern)
            continue
        matches = [
            name
            for name in names
            if fnmatchcase(name, pattern) and all(is_flag(row.get(name)) for row in sample)
        ]
        if not matches:
            _present(pattern, names, where)
        found += matches
    return tuple(dict.fromkeys(found))


def is_flag(value: Any) -> bool:
    """Whether a value says yes or no: 0, 1, -1, true, false, also as text."""
    return str(value).strip().lower() in ("0", "1", "-1", "0.0", "1.0", "-1.0", "true", "false")


def _image_column(
    sample: Sequence[Mapping[str, Any]], names: Sequence[str], where: str, wanted: str | None
) -> str:
    if wanted is not None:
        _present(wanted, names, where)
        values = [row[wanted] for row in sample if row.get(wanted) is not None]
        if values and not all(_is_image(value) or isinstance(value, str) for value in values):
            kinds = sorted({type(value).__name__ for value in values})
            raise UserError(
                f"The column {wanted!r} of {where} holds values of type {', '.join(kinds)}, "
                f"not images or names of files. {listing(names)}"
            )
        return wanted
    fitting = [
        name
        for name in names
        if (values := [row[name] for row in sample if row.get(name) not in (None, "")])
        and all(_is_image(value) or is_image_name(value) for value in values)
    ]
    usual = [name for name in _IMAGES if name in fitting]
    if usual or len(fitting) == 1:
        return (usual or fitting)[0]
    raise UserError(
        f"Which column of {where} holds the images, or names of image files? "
        f"Name it with --image_column. {listing(names)}"
    )


def _is_image(value: Any) -> bool:
    """Whether a value is a file's bytes, alone or with its path as `datasets` stores them."""
    if isinstance(value, Mapping):
        return bool({"bytes", "path"} & set(value))
    return isinstance(value, (bytes, bytearray))
