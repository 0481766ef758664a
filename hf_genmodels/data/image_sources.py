"""Where images come from: folders, tables and hub datasets."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hf_genmodels.config.images import ImageDataConfig
from hf_genmodels.data import text_files
from hf_genmodels.data.hub_datasets import HubDataset, validation_split
from hf_genmodels.data.image_columns import Kind, is_image_name
from hf_genmodels.data.image_facts import (
    Facts,
    caption_facts,
    class_facts,
    class_names,
    flag_facts,
    list_facts,
)
from hf_genmodels.data.image_folders import read_files, read_folder
from hf_genmodels.data.image_tables import (
    Content,
    HubReader,
    ImageTable,
    TableReader,
    read_table,
)
from hf_genmodels.errors import UserError

logger = logging.getLogger(__name__)

_VALIDATION_FOLDERS = ("validation", "valid", "val", "dev", "test")


@dataclass
class ImageSource:
    """Images of one or several tables or folders, one after the other.

    Attributes:
        tables: The tables; the same is known about the images of all.
    """

    tables: list[ImageTable]

    def __post_init__(self) -> None:
        """Check that the tables fit together.

        Raises:
            UserError: If they say different things about their images.
        """
        first = self.tables[0]
        for other in self.tables[1:]:
            if (other.kind, other.columns) != (first.kind, first.columns):
                raise UserError(
                    f"{_capital(first.where)} says {_said(first)} about its images, "
                    f"but {other.where} says {_said(other)}. Give images with the same columns."
                )

    def __len__(self) -> int:
        """Number of images, those that cannot be used included."""
        return sum(map(len, self.tables))

    @property
    def where(self) -> str:
        """What the source is called in messages."""
        more = f" and {len(self.tables) - 1} more" if len(self.tables) > 1 else ""
        return self.tables[0].where + more

    @property
    def identity(self) -> list[Any]:
        """What stands for the content in a fingerprint, JSON-able."""
        return [[table.kind, table.columns, table.identity] for table in self.tables]

    def name(self, place: int) -> str:
        """Return what an image is called in messages."""
        table, inner = self._find(place)
        return table.name(inner)

    def contents(self, places: Sequence[int]) -> Iterator[Content | None]:
        """Yield images that are still files.

        Args:
            places: Numbers of the images, ascending.
        """
        start, wanted = 0, np.asarray(places, dtype=np.int64)
        for table in self.tables:
            own = wanted[(wanted >= start) & (wanted < start + len(table))] - start
            yield from table.contents(own.tolist())
            start += len(table)

    def facts(self, known: Facts | None = None) -> Facts:
        """Return what is known about the images.

        Args:
            known: What is known about the training images, if these are others.

        Raises:
            UserError: If what a table says makes no sense, or there is a single class where classes were
                asked for.
        """
        first = self.tables[0]
        facts = self._facts(first, known)
        if facts.kind == "class" and known is None:
            facts = self._with_classes(facts, first)
        start = 0
        for table in self.tables:
            facts.problems |= {start + place: why for place, why in table.problems.items()}
            start += len(table)
        return facts

    def _facts(self, first: ImageTable, known: Facts | None) -> Facts:
        if first.kind == "none" or (known and known.kind == "none"):
            return Facts("none")
        rows = [row for table in self.tables for row in table.values]
        if first.kind == "text":
            return caption_facts(rows, first.columns, self.where)
        names = self._class_names(first.columns[0])
        known_names = known.label_names if known else None
        single = len(first.columns) == 1
        values = [row[0] for row in rows]
        if first.kind == "class":
            return class_facts(values, self.where, names=names, known=known_names)
        if single and any(isinstance(value, (list, tuple)) for value in values):
            return list_facts(values, self.where, names=names, known=known_names)
        if known_names not in (None, list(first.columns)):
            raise UserError(
                f"{_capital(self.where)} has the attributes {', '.join(first.columns)}, and the training "
                f"images have {', '.join(known_names or ())}. Name them with --attribute_columns."
            )
        return flag_facts(rows, first.columns, self.where)

    def _class_names(self, column: str) -> list[str] | None:
        """Return the names of numbered classes, which all tables must agree on."""
        found = [class_names(table.features, column) for table in self.tables]
        for table, names in zip(self.tables, found, strict=True):
            if names != found[0]:
                raise UserError(
                    f"{_capital(self.tables[0].where)} and {table.where} name the classes of {column!r} "
                    "differently. Give images with the same classes."
                )
        return found[0]

    def _with_classes(self, facts: Facts, first: ImageTable) -> Facts:
        """Refuse a single class, or take it for none where nobody asked for classes."""
        present = sorted(set(np.asarray(facts.labels).tolist()) - {-1})
        if len(present) > 1:
            return facts
        held = f"one class only, {facts.label_names[present[0]]!r}" if present else "no labels"
        message = f"The column {first.columns[0]!r} of {self.where} holds {held}"
        if first.explicit:
            raise UserError(
                f"{message}. Give images of two classes or more, or draw without classes."
            )
        logger.warning("%s: the images are taken without classes.", message)
        return Facts("none")

    def _find(self, place: int) -> tuple[ImageTable, int]:
        for table in self.tables:
            if place < len(table):
                return table, place
            place -= len(table)
        raise IndexError(place)


def image_sources(
    config: ImageDataConfig, conditioning: Kind | None = None
) -> tuple[ImageSource, ImageSource | None]:
    """Return the sources of training and validation images.

    Args:
        config: Where the images come from.
        conditioning: What must be known about each image; None for what the data have.

    Raises:
        UserError: If a file, folder, column or dataset cannot be used.
    """
    if config.sprite_size and conditioning != "class":
        conditioning = None  # captions and attributes are made of what there is
    if config.dataset_name:
        names = (config.dataset_name, config.dataset_config_name)
        reader = HubReader(HubDataset(*names, "train"))
        train = ImageSource([read_table(reader, config, conditioning)])
        if (split := validation_split(*names)) is None:
            return train, None
        reader = HubReader(HubDataset(*names, split))
        return train, ImageSource([read_table(reader, config, train.tables[0].kind)])
    train_names, validation_names = _split_folders(config.train_file, config.validation_file)
    train = _source(train_names, config, conditioning)
    # What is known about the training images must be known about the others.
    kind = train.tables[0].kind
    return train, _source(validation_names, config, kind) if validation_names else None


def _split_folders(train: Sequence[str], validation: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take the subfolders `train` and `test` of a single folder for what they are called."""
    train, validation = list(train), list(validation)
    if len(train) != 1 or not (folder := Path(train[0]).expanduser()).is_dir():
        return train, validation
    inner = {path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != "."}
    # Among other classes, `train` is one that goes on rails.
    if "train" not in inner or inner - {"train", *_VALIDATION_FOLDERS}:
        return train, validation
    found = [str(folder / name) for name in _VALIDATION_FOLDERS if name in inner]
    return [str(folder / "train")], validation or found[:1]


def _source(
    names: Sequence[str], config: ImageDataConfig, conditioning: Kind | None
) -> ImageSource:
    tables = []
    for name in names:
        folder = Path(name).expanduser()
        if not text_files.is_sample(name) and folder.is_dir():
            tables.append(read_folder(folder, config, conditioning))
            continue
        files = text_files.expand_files([name])
        if all(is_image_name(file.name) for file in files):
            tables.append(read_files(files, f"'{name}'", config, conditioning))
        else:
            tables += [read_table(TableReader(file), config, conditioning) for file in files]
    return ImageSource(tables)


def _said(table: ImageTable) -> str:
    return ", ".join(table.columns) or "nothing"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
