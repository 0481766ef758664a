"""Images of tables, with what is said about them, before anything is decoded."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_genmodels.config.images import ImageDataConfig
from hf_genmodels.data import text_files
from hf_genmodels.data.hub_datasets import HubDataset
from hf_genmodels.data.image_columns import ImageColumns, Kind, choose_columns
from hf_genmodels.errors import UserError, require_extra

_SAMPLE_ROWS = 100

Content = bytes | Path


@dataclass
class ImageTable:
    """Images that are still files, and what is said about each.

    Attributes:
        where: What the table is called in messages.
        kind: What is known about each image.
        columns: Columns that say it.
        values: What they say: one sequence for each image, None where nothing is known.
        features: Types of the columns as `datasets` writes them, in JSON.
        explicit: Whether the user asked for what is known, so that it may not be missing.
        files: Where each image is, if it is a file of its own.
        reader: What the images are read from, if they are inside of a table.
        identity: What stands for the content in a fingerprint, JSON-able.
        problems: Reasons why images cannot be used, by their number.
    """

    where: str
    kind: Kind
    columns: tuple[str, ...] = ()
    values: list[tuple[Any, ...]] = field(default_factory=list)
    features: Mapping[str, Any] = field(default_factory=dict)
    explicit: bool = False
    files: list[Path | None] | None = None
    reader: TableReader | None = None
    image_column: str = ""
    identity: Any = None
    problems: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of images, those that cannot be used included."""
        return len(self.values)

    def name(self, place: int) -> str:
        """Return what an image is called in messages."""
        if self.files and (file := self.files[place]) is not None:
            return str(file)
        return f"row {place + 1:,} of {self.where}"

    def contents(self, places: Sequence[int]) -> Iterator[Content | None]:
        """Yield images that are still files.

        Args:
            places: Numbers of the images, ascending.
        """
        if self.files is not None:
            yield from (self.files[place] for place in places)
        elif self.reader is not None:
            yield from self.reader.contents(self.image_column, places)


class TableReader:
    """A table in a file.

    Args:
        file: The table: jsonl, json, csv, tsv or parquet.
    """

    def __init__(self, file: Path):
        self.file = file
        self.folder = file.parent
        self.format = text_files.common_format([file])
        if self.format == "text":
            raise UserError(
                f"'{file}' is plain text. Images come from folders and from .parquet, .jsonl and .csv "
                "tables."
            )
        text_files.check_file(file, self.format)
        self.where = f"the file '{file}'"

    def features(self) -> dict[str, Any]:
        """Return the types of the columns as `datasets` writes them, in JSON, where they are said."""
        if self.format != "parquet":
            return {}
        parquet = require_extra("pyarrow.parquet", "train")
        stored = (parquet.read_schema(self.file).metadata or {}).get(b"huggingface", b"{}")
        try:
            return dict(json.loads(stored).get("info", {}).get("features") or {})
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(
                f"{self.where} names the types of its columns in a damaged way: {error}."
            ) from error

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[Mapping[str, Any]]:
        """Yield the rows; where the format allows it, of these columns only."""
        return text_files.rows(self.file, self.format, columns)

    def __len__(self) -> int:
        """Number of rows."""
        if self.format != "parquet":
            return sum(1 for _ in self.rows())
        parquet = require_extra("pyarrow.parquet", "train")
        return int(parquet.read_metadata(self.file).num_rows)

    def sample(self) -> list[Mapping[str, Any]]:
        """Return the first rows."""
        return list(itertools.islice(self.rows(), _SAMPLE_ROWS))

    def contents(self, column: str, places: Sequence[int]) -> Iterator[Content | None]:
        """Yield images of some rows, whose numbers ascend."""
        waiting = iter(places)
        wanted = next(waiting, None)
        for place, row in enumerate(self.rows([column])):
            if place == wanted:
                yield self._content(row.get(column), column)
                wanted = next(waiting, None)

    def _content(self, value: Any, column: str) -> Content | None:
        """Return the bytes, or else the path, of an image in the table."""
        if isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, str):
            return self._path(value, column)
        return bytes(value) if value else None

    def _path(self, name: str, column: str) -> Path:
        return inside(name, self.folder, column, self.where)

    def identity(self) -> Any:
        """Return what stands for the table in a fingerprint, JSON-able."""
        return text_files.digest(self.file)


class HubReader(TableReader):
    """A split of a hub dataset.

    Args:
        split: The split.
    """

    def __init__(self, split: HubDataset):
        split.check_name()
        self.split = split
        self.folder = Path.cwd()
        self.where = str(split)
        self._table = split.undecoded()

    def features(self) -> dict[str, Any]:
        """Return the types of the columns as `datasets` writes them, in JSON."""
        return dict(self._table.features.to_dict())

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[Mapping[str, Any]]:
        """Yield the rows, of these columns only."""
        return iter(self._table if columns is None else self._table.select_columns(list(columns)))

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._table)

    def contents(self, column: str, places: Sequence[int]) -> Iterator[Content | None]:
        """Yield images of some rows."""
        for row in self._table.select_columns([column]).select(places):
            yield self._content(row[column], column)

    def identity(self) -> Any:
        """Return what stands for the table in a fingerprint, JSON-able."""
        return self.split.identity()

    def _path(self, name: str, column: str) -> Path:  # noqa: ARG002
        # `datasets` has put the file there itself.
        return Path(name)


def read_table(
    reader: TableReader, config: ImageDataConfig, conditioning: Kind | None
) -> ImageTable:
    """Read what a table says about its images.

    Args:
        reader: The table.
        config: Columns that the user named.
        conditioning: What must be known about each image; None for what the table has.

    Raises:
        UserError: If the table or a column cannot be used.
    """
    sample = reader.sample()
    columns = choose_columns(sample, reader.where, config, conditioning)
    by_name = any(isinstance(row.get(columns.image), str) for row in sample)
    needed = [*columns.facts, *([columns.image] if by_name else [])]
    table = ImageTable(
        where=reader.where,
        kind=columns.kind,
        columns=columns.facts,
        features=reader.features(),
        explicit=columns.explicit,
        reader=reader,
        image_column=columns.image,
        identity=[columns.image, reader.identity()],
    )
    if not needed:
        table.values = [()] * len(reader)
    names: list[Any] = []
    for row in reader.rows(needed) if needed else ():
        table.values.append(tuple(row.get(name) for name in columns.facts))
        names.append(row.get(columns.image))
    if by_name:
        _add_files(table, names, reader.folder, columns)
    return table


def stated(file: Path, folder: Path) -> list[Any]:
    """Return what tells a file from its later versions without reading it."""
    state = file.stat()
    return [file.relative_to(folder).as_posix(), state.st_size, state.st_mtime_ns]


def _add_files(
    table: ImageTable, names: Sequence[Any], folder: Path, columns: ImageColumns
) -> None:
    """Look for the files that a table names, below its own folder."""
    files: list[Path | None] = []
    states = []
    for place, name in enumerate(names):
        file = None if not name else inside(str(name), folder, columns.image, table.where)
        files.append(file)
        if file is None:
            table.problems[place] = f"has no file name in the column {columns.image!r}"
        elif not file.is_file():
            table.problems[place] = "does not exist"
        else:
            states.append(stated(file, folder))
    table.files, table.identity = files, [table.identity, states]
    if len(table.problems) == len(names):
        first = next((file for file in files if file is not None), None)
        raise UserError(
            f"None of the {len(names):,} files that {table.where} names in the column "
            f"{columns.image!r} exists; the first is looked for at '{first}'. "
            "Names begin at the folder of the table: move it to where they begin."
        )


def inside(name: str, folder: Path, column: str, where: str) -> Path:
    """Return the path of a file that a table names.

    Raises:
        UserError: If the name is an address, or leads out of the folder of the table.
    """
    if "://" in name:
        raise UserError(
            f"The column {column!r} of {where} holds addresses such as {name!r}. "
            "Download the images first and give the names of the files."
        )
    path = Path(os.path.normpath(name.replace("\\", "/")))
    whole = os.path.abspath(folder)  # noqa: PTH100 - resolve() would follow links
    if path.is_relative_to(whole):
        path = path.relative_to(whole)
    if path.is_absolute() or path.parts[:1] == ("..",):
        raise UserError(
            f"The column {column!r} of {where} names the file {name!r}, which is not below the "
            f"folder of the table, '{folder}'. Only files below it are read."
        )
    return folder / path
