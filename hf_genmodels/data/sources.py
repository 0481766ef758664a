"""Where text comes from: local files and hub datasets, read in constant memory."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any, Literal, get_args

from hf_genmodels.data import text_files
from hf_genmodels.data.columns import choose_column, field, root, without_surrogates
from hf_genmodels.data.hub_datasets import HubDataset
from hf_genmodels.data.pieces import Piece, cut
from hf_genmodels.errors import UserError, suggest

__all__ = ["Piece", "SampleBy", "TextSource", "cut"]

SampleBy = Literal["document", "paragraph", "line"]
_SAMPLE_ROWS = 100


@dataclass
class TextSource:
    """Text from local files or from a hub dataset.

    Attributes:
        dataset_name: Name of a hub dataset, or a local folder that `datasets.load_dataset` reads.
        dataset_config_name: Name of the dataset's configuration, if it has several.
        split: Split of the dataset.
        files: Local files of one format (.txt .text .md, .jsonl .json, .csv .tsv, .parquet);
            patterns such as ``"data/*.txt"`` are allowed.
        text_column: Column that holds the text; a field inside another is named by its path, as in
            ``translation.en``. None: ``text`` if there is one, or the only column with text.
        sample_by: What a document is in a text file: the whole file (``document``), a
            ``paragraph`` (blank lines between) or a ``line``.
        streaming: Read a hub dataset over the network instead of downloading it first.
    """

    dataset_name: str | None = None
    dataset_config_name: str | None = None
    split: str = "train"
    files: Sequence[str | Path] = ()
    text_column: str | None = None
    sample_by: SampleBy = "document"
    streaming: bool = False
    _dataset_column: str | None = dataclass_field(
        default=None, init=False, repr=False, compare=False
    )

    def check(self) -> None:
        """Find mistakes before any work: cheap, reads the beginning of each file.

        Raises:
            UserError: If the options contradict each other; a file is missing, empty, binary, not
                UTF-8, of an unknown format; or there is no such dataset or column.
        """
        self._check_options()
        if self.files:
            self._check_files()
        else:
            self._column()

    def pieces(self) -> Iterator[Piece]:
        """Read all documents in constant memory, in order, cut into pieces (see `cut`).

        Empty documents are left out. Text files are decoded as UTF-8, and all kinds of line ends
        become line feeds.
        Surrogate code points that have lost their partner, which JSON can hold, become U+FFFD.

        Raises:
            UserError: As `check`, and when something further in cannot be read or there is no text.
        """
        self.check()
        empty = True
        for document in self._documents():
            for piece in cut(document):
                empty = False
                yield piece
        if empty:
            raise UserError(f"There is no text in {self._name()}.")

    def texts(self) -> Iterator[str]:
        """Yield the text of all pieces, as tokenizer training wants it."""
        return (piece.text for piece in self.pieces())

    def fingerprint(self) -> str:
        """Return a SHA-256 over the content and over what decides how it is read.

        The names of local files do not matter, their bytes and order do.
        """
        self.check()
        content: dict[str, Any] = {"sample_by": self.sample_by, "column": self._column()}
        if self.files:
            content["format"] = self._format()
            content["files"] = [text_files.digest(file) for file in self._files()]
        else:
            *content["dataset"], content["builder"] = self._dataset().identity()
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def size_in_bytes(self) -> int | None:
        """Return about how many bytes of text there are, or None if that is not known.

        Exact for text files in UTF-8; the share that text has in tables is estimated from their
        first rows.
        """
        if not self.files:
            return None
        files = self._files()
        if self._format() == "text":
            return sum(file.stat().st_size for file in files)
        return round(sum(self._text_share(file) * file.stat().st_size for file in files)) or None

    def _check_options(self) -> None:
        if bool(self.files) == bool(self.dataset_name):
            given = "both were given" if self.files else "neither was given"
            raise UserError(
                f"Text comes either from files (--train_file) or from a dataset (--dataset_name): "
                f"{given}."
            )
        if self.sample_by not in get_args(SampleBy):
            raise UserError(
                f"sample_by={self.sample_by!r} is not known. "
                f"{suggest(self.sample_by, get_args(SampleBy))}"
                f"Allowed: {', '.join(get_args(SampleBy))}."
            )
        if isinstance(self.files, str):
            raise UserError(f"files must be a list of file names, not the string {self.files!r}.")
        if self.dataset_name:
            self._dataset().check_name()

    def _check_files(self) -> None:
        files, file_format = self._files(), self._format()
        for file in files:
            text_files.check_file(file, file_format)
        if file_format == "text":
            if self.text_column is not None:
                raise UserError(
                    f"text_column={self.text_column!r} was given, but '{files[0]}' is plain text "
                    "and has no columns. Leave it out."
                )
            return
        if self.sample_by != "document":
            raise UserError(
                f"sample_by={self.sample_by!r} is for text files; in '{files[0]}' each row is a "
                "document. Leave it out."
            )
        for file in files:
            self._file_column(file)

    def _files(self) -> list[Path]:
        return text_files.expand_files(self.files)

    def _format(self) -> str:
        return text_files.common_format(self._files())

    def _name(self) -> str:
        if self.files:
            names = [f"'{name}'" for name in self.files]
            return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
        return str(self._dataset())

    def _dataset(self) -> HubDataset:
        return HubDataset(str(self.dataset_name), self.dataset_config_name, self.split)

    def _column(self) -> str | None:
        if self.files:
            return None if self._format() == "text" else self._file_column(self._files()[0])
        if self._dataset_column is None:
            sample = self._dataset().sample()
            self._dataset_column = choose_column(sample, self.text_column, self._name())
        return self._dataset_column

    def _file_column(self, file: Path) -> str:
        return choose_column(self._sample(file), self.text_column, f"the file '{file}'")

    def _sample(self, file: Path) -> list[dict[str, Any]]:
        return list(itertools.islice(text_files.rows(file, self._format()), _SAMPLE_ROWS))

    def _text_share(self, file: Path) -> float:
        sample, column = self._sample(file), self._file_column(file)
        text = sum(len(str(field(row, column) or "").encode("utf-8", "replace")) for row in sample)
        whole = sum(
            len(json.dumps(row, ensure_ascii=False, default=str).encode("utf-8", "replace"))
            for row in sample
        )
        return text / max(whole, 1)

    def _documents(self) -> Iterator[Iterable[str]]:
        """Yield each document as an iterable of stretches of its text."""
        if not self.files:
            rows = self._dataset().rows([str(self._column())], self.streaming)
            yield from self._rows_text(rows, self._name())
            return
        for file in self._files():
            if self._format() != "text":
                column = self._file_column(file)
                names = self._sample(file)[0]
                table = text_files.rows(file, self._format(), [root(column, names)])
                yield from self._rows_text(table, f"'{file}'", column)
            elif self.sample_by == "document":
                yield text_files.text_chunks(file)
            elif self.sample_by == "line":
                yield from ([line] for line in text_files.text_lines(file) if line.strip())
            else:
                yield from _paragraphs(text_files.text_lines(file))

    def _rows_text(
        self, table: Iterable[Mapping[str, Any]], where: str, column: str | None = None
    ) -> Iterator[list[str]]:
        column = column or str(self._column())
        for number, row in enumerate(table, start=1):
            value = field(row, column)
            if value is not None and not isinstance(value, str):
                raise UserError(
                    f"Row {number} of {where} holds {type(value).__name__} in the column "
                    f"{column!r}, not text."
                )
            yield [without_surrogates(value or "")]


def _paragraphs(lines: Iterable[str]) -> Iterator[Iterable[str]]:
    for blank, group in itertools.groupby(lines, key=lambda line: not line.strip()):
        if not blank:
            yield (line if first else f"\n{line}" for first, line in _mark_first(group))


def _mark_first(items: Iterable[str]) -> Iterator[tuple[bool, str]]:
    return zip(itertools.chain([True], itertools.repeat(False)), items, strict=False)
