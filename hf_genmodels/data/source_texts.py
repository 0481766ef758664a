"""Texts that a model is to read: from the command line, a text file or a table."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hf_genmodels.data import text_files
from hf_genmodels.data.columns import choose_column, root, text_fields, text_of
from hf_genmodels.data.pair_columns import choose_language
from hf_genmodels.errors import UserError

_SAMPLE_ROWS = 100


@dataclass(frozen=True)
class SourceTexts:
    """Sources in order, read in constant memory; white space around them is left out.

    Attributes:
        file: A text file with one source on each line, or a table (.jsonl .json, .csv .tsv, .parquet).
        texts: The sources themselves, instead of a file.
        column: Column of the sources in a table. By default `source`, or the only column of text.
        language: Language of the sources in a column `translation` of {language: text}.
    """

    file: str | Path | None = None
    texts: Sequence[str] = ()
    column: str | None = None
    language: str | None = None

    def check(self) -> None:
        """Find mistakes before any work.

        Raises:
            UserError: If options contradict each other, a text is empty, the file is missing, empty,
                binary, not UTF-8 or of an unknown format, or there is no such column or language.
        """
        if self.column is not None and self.language is not None:
            raise UserError(
                "--source_column and --source_lang were given. Name the texts in one way."
            )
        if self.file is None:
            for number, text in enumerate(self.texts, start=1):
                if not text.strip():
                    raise UserError(f"The text {number} is empty: there is nothing to read.")
            if not self.texts:
                raise UserError("There is nothing to read. Give a text, or --file FILE.")
        named = self.column if self.column is not None else self.language
        if named is not None and self._format() == "text":
            raise UserError(
                f"{named!r} names a column, but sources come from a table only. Leave it out, or give a "
                "table with --file."
            )
        if self.file is not None:
            text_files.check_file(self._path(), self._format())
            self._field()

    def __iter__(self) -> Iterator[str]:
        """Yield the sources, empty ones too.

        Raises:
            UserError: If something cannot be read.
        """
        if self.file is None:
            yield from (text.strip() for text in self.texts)
        elif self._format() == "text":
            yield from (line.strip() for line in text_files.text_lines(self._path()))
        else:
            path, name = self._path(), self._field()
            columns = sorted({root(name, row) for row in self._sample()})
            rows = text_files.rows(path, self._format(), columns)
            for number, row in enumerate(rows, start=1):
                yield text_of(row, name, f"Row {number} of the file '{path}'")

    def digest(self) -> str:
        """Return a SHA-256 over the content and over what decides how it is read."""
        if self.file is None:
            content = "\0".join(self.texts)
        else:
            content = f"{text_files.digest(self._path())} {self._format()} {self._field()}"
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()

    def _path(self) -> Path:
        files = text_files.expand_files([str(self.file)])
        if len(files) > 1:
            raise UserError(f"--file {self.file} means {len(files)} files. Give one.")
        return files[0]

    def _format(self) -> str:
        return "text" if self.file is None else text_files.common_format([self._path()])

    def _sample(self) -> list[dict[str, object]]:
        return list(itertools.islice(text_files.rows(self._path(), self._format()), _SAMPLE_ROWS))

    def _field(self) -> str:
        """Return the field of a table that holds the sources; nothing for a text file."""
        if self._format() == "text":
            return ""
        sample, where = self._sample(), f"the file '{self._path()}'"
        if self.language is not None:
            return choose_language(sample, self.language, where, "--source_lang")
        column = self.column
        if column is None and "source" in text_fields(sample):
            column = "source"
        return choose_column(sample, column, where, "--source_column")
