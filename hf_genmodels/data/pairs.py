"""Where pairs of texts come from: tables, parallel text files and hub datasets."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any

from hf_genmodels.data import parallel_files, text_files
from hf_genmodels.data.columns import field, root, text_of, without_surrogates
from hf_genmodels.data.hub_datasets import HubDataset
from hf_genmodels.data.openings import split_opening
from hf_genmodels.data.pair_columns import PairColumns, choose_columns
from hf_genmodels.errors import UserError

__all__ = ["Pair", "PairSource"]

_SAMPLE_ROWS = 100


@dataclass(frozen=True)
class Pair:
    """A text and what is to be made of it.

    Attributes:
        source: The text that is read, without white space around it.
        target: The text that is written, without white space around it.
        group: What its group is called, such as the author; empty without a column of groups.
        columns: Texts of the other columns that were asked for.
    """

    source: str
    target: str
    group: str = ""
    columns: Mapping[str, str] = dataclass_field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether a side holds no text."""
        return not (self.source and self.target)


@dataclass
class PairSource:
    """Pairs from tables, from parallel text files or from a hub dataset.

    The columns of a table are found in this order: ``source_column`` and ``target_column``; the texts of
    ``source_lang`` and ``target_lang`` in the column ``translation``; ``source`` and ``target``.

    Attributes:
        dataset_name: Name of a hub dataset, or a local folder that `datasets.load_dataset` reads.
        dataset_config_name: Name of the dataset's configuration, if it has several.
        split: Split of the dataset.
        files: Local tables of one format (.jsonl .json, .csv .tsv, .parquet); patterns are allowed.
        source_files: Text files of sources; line i belongs to line i of the target files.
        target_files: Text files of targets, as many as source files.
        source_column: Column of the sources; a field inside another is named by its path.
        target_column: Column of the targets.
        source_lang: Language of the sources in a column ``translation`` of ``{language: text}``.
        target_lang: Language of the targets.
        text_column: Column of whole texts, each of which is cut into an opening, the source, and its
            continuation, the target.
        split_at: Part of a whole text that is its opening; it is cut at the nearest line or sentence end.
        group_column: Column that says which texts belong together, such as ``author``.
        columns: Further columns whose texts are kept with the pairs.
        streaming: Read a hub dataset over the network instead of downloading it first.
    """

    dataset_name: str | None = None
    dataset_config_name: str | None = None
    split: str = "train"
    files: Sequence[str | Path] = ()
    source_files: Sequence[str | Path] = ()
    target_files: Sequence[str | Path] = ()
    source_column: str | None = None
    target_column: str | None = None
    source_lang: str | None = None
    target_lang: str | None = None
    text_column: str | None = None
    split_at: float = 0.5
    group_column: str | None = None
    columns: Sequence[str] = ()
    streaming: bool = False
    _dataset_columns: PairColumns | None = dataclass_field(
        default=None, init=False, repr=False, compare=False
    )

    def check(self) -> None:
        """Find mistakes before any work; counts the lines of parallel files.

        Raises:
            UserError: If the options contradict each other; a file is missing, empty, binary, not
                UTF-8, of an unknown format; parallel files have different numbers of lines; or there
                is no such dataset, column or language.
        """
        self._check_options()
        if self._in_parallel:
            self._check_parallel()
        elif self.files:
            for file in self._tables():
                text_files.check_file(file, self._format())
                self._file_columns(file)
        else:
            self._columns()

    def pairs(self) -> Iterator[Pair]:
        """Yield the pairs that have text on both sides, in order and in constant memory.

        Raises:
            UserError: As `check`, when something further in cannot be read, or when no pair is left.
        """
        empty, kept = 0, False
        for pair in self.all_pairs():
            if pair.empty:
                empty += 1
            else:
                kept = True
                yield pair
        if not kept:
            raise UserError(
                f"There are no pairs in {self._name()}: {empty:,} have an empty side. "
                "Check the columns or files."
            )

    def all_pairs(self) -> Iterator[Pair]:
        """Yield all pairs in order, those with an empty side included.

        Raises:
            UserError: As `check`, and when something further in cannot be read.
        """
        self.check()
        if self._in_parallel:
            for source, target in parallel_files.lines(*self._parallel()):
                yield Pair(source.strip(), target.strip())
        elif self.files:
            for file in self._tables():
                columns = self._file_columns(file)
                names = self._sample(file)[0]
                needed = sorted({root(path, names) for path in columns.paths})
                rows = text_files.rows(file, self._format(), needed)
                yield from self._row_pairs(rows, columns, f"'{file}'")
        else:
            columns = self._columns()
            dataset_rows = self._dataset().rows(columns.paths, self.streaming)
            yield from self._row_pairs(dataset_rows, columns, self._name())

    def source_texts(self) -> Iterator[str]:
        """Yield all sources that are not empty, as tokenizer training wants them."""
        return (pair.source for pair in self.pairs())

    def target_texts(self) -> Iterator[str]:
        """Yield all targets that are not empty, as tokenizer training wants them."""
        return (pair.target for pair in self.pairs())

    def fingerprint(self) -> str:
        """Return a SHA-256 over the content and over what decides how it is read.

        The names of local files do not matter, their bytes and order do.
        """
        self.check()
        content: dict[str, Any] = {"split_at": self.split_at if self.text_column else None}
        if self._in_parallel:
            content["files"] = [
                [text_files.digest(file) for file in files] for files in self._parallel()
            ]
        else:
            content["columns"] = asdict(self._columns())
            if self.files:
                content["format"] = self._format()
                content["files"] = [text_files.digest(file) for file in self._tables()]
            else:
                content["dataset"] = self._dataset().identity()
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def size_in_bytes(self) -> int | None:
        """Return about how many bytes of text both sides have, or None if that is not known."""
        if self._in_parallel:
            return sum(file.stat().st_size for files in self._parallel() for file in files)
        if not self.files:
            return None
        return round(sum(self._text_share(f) * f.stat().st_size for f in self._tables())) or None

    @property
    def _in_parallel(self) -> bool:
        return bool(self.source_files or self.target_files)

    def _check_options(self) -> None:
        given = [bool(self.dataset_name), bool(self.files), self._in_parallel]
        if sum(given) != 1:
            number = "none of them was given" if not any(given) else "more than one was given"
            raise UserError(
                "Pairs come from tables (--train_file), from two parallel text files "
                "(--train_source_file and --train_target_file) or from a dataset (--dataset_name): "
                f"{number}."
            )
        for name in ("files", "source_files", "target_files", "columns"):
            if isinstance(value := getattr(self, name), str):
                raise UserError(f"{name} must be a list of names, not the string {value!r}.")
        if not 0 < self.split_at < 1:
            raise UserError(
                f"split_at must be between 0 and 1, the part of a text that is its opening, "
                f"but is {self.split_at}."
            )
        if self.dataset_name:
            self._dataset().check_name()

    def _check_parallel(self) -> None:
        for name in ("source_column", "target_column", "text_column", "group_column"):
            if value := getattr(self, name):
                raise UserError(
                    f"{name}={value!r} was given, but parallel text files have no columns. Leave it out."
                )
        parallel_files.check(*self._parallel())

    def _parallel(self) -> tuple[list[Path], list[Path]]:
        for given, other in (("source", "target"), ("target", "source")):
            if not getattr(self, f"{other}_files"):
                raise UserError(
                    f"Files of {given}s were given without files of {other}s. Add them with "
                    f"--train_{other}_file, or give a table of both with --train_file."
                )
        return text_files.expand_files(self.source_files), text_files.expand_files(
            self.target_files
        )

    def _tables(self) -> list[Path]:
        return text_files.expand_files(self.files)

    def _format(self) -> str:
        files = self._tables()
        if (file_format := text_files.common_format(files)) == "text":
            raise UserError(
                f"'{files[0]}' is plain text, which holds one side only. Give both sides with "
                "--train_source_file and --train_target_file, or a .jsonl, .csv or .parquet table."
            )
        return file_format

    def _name(self) -> str:
        if self.dataset_name:
            return str(self._dataset())
        names = [f"'{name}'" for name in [*self.files, *self.source_files, *self.target_files]]
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")

    def _dataset(self) -> HubDataset:
        return HubDataset(str(self.dataset_name), self.dataset_config_name, self.split)

    def _columns(self) -> PairColumns:
        if self.files:
            return self._file_columns(self._tables()[0])
        if self._dataset_columns is None:
            self._dataset_columns = self._chosen(self._dataset().sample(), self._name())
        return self._dataset_columns

    def _file_columns(self, file: Path) -> PairColumns:
        return self._chosen(self._sample(file), f"the file '{file}'")

    def _chosen(self, sample: Sequence[Mapping[str, Any]], where: str) -> PairColumns:
        return choose_columns(
            sample,
            where,
            columns=(self.source_column, self.target_column),
            languages=(self.source_lang, self.target_lang),
            text_column=self.text_column,
            group_column=self.group_column,
            others=tuple(self.columns),
        )

    def _sample(self, file: Path) -> list[dict[str, Any]]:
        return list(itertools.islice(text_files.rows(file, self._format()), _SAMPLE_ROWS))

    def _text_share(self, file: Path) -> float:
        sample, columns = self._sample(file), self._file_columns(file)
        text = sum(
            len(str(field(row, column) or "").encode("utf-8", "replace"))
            for row in sample
            for column in columns.texts
        )
        whole = (json.dumps(row, ensure_ascii=False, default=str) for row in sample)
        return text / max(sum(len(row.encode("utf-8", "replace")) for row in whole), 1)

    def _row_pairs(
        self, rows: Iterable[Mapping[str, Any]], columns: PairColumns, where: str
    ) -> Iterator[Pair]:
        for number, row in enumerate(rows, start=1):
            place = f"Row {number} of {where}"
            texts = [text_of(row, path, place) for path in columns.texts]
            if len(texts) == 1:
                texts = list(split_opening(texts[0], self.split_at) or (texts[0], ""))
            group = _words(row, columns.group) if columns.group else ""
            others = {path: _words(row, path) for path in columns.others}
            yield Pair(texts[0], texts[1], group, others)


def _words(row: Mapping[str, Any], path: str) -> str:
    value = field(row, path)
    return "" if value is None else without_surrogates(str(value))
