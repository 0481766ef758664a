"""Read text, JSON, CSV and Parquet files piece by piece, with errors that name the place."""

from __future__ import annotations

import codecs
import csv
import difflib
import glob
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hf_genmodels.config.run import SAMPLE
from hf_genmodels.errors import UserError, require_extra, suggest

FORMATS = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".jsonl": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
HEAD_BYTES = 1 << 20
SAMPLES = Path(__file__).parent.parent / "samples"
_CHUNK_BYTES = 1 << 18
_MAX_CSV_FIELD = (1 << 31) - 1
_MAX_ROW = 64 << 20


def expand_files(patterns: Sequence[str | Path]) -> list[Path]:
    """Resolve file names and glob patterns.

    Args:
        patterns: File names, patterns such as ``"data/*.txt"`` (``**`` descends into folders), or data
            that come with this package, such as ``"sample:poems/train.jsonl"``.

    Returns:
        The files in the order given, those of a pattern sorted by name.

    Raises:
        UserError: If a name does not exist or is a folder, or a pattern matches no file.
    """
    files: list[Path] = []
    for pattern in patterns:
        if is_sample(pattern):
            files.append(_sample_file(str(pattern)))
            continue
        path = Path(pattern).expanduser()
        if path.is_dir():
            raise UserError(
                f"{str(pattern)!r} is a folder, and a file was meant. "
                f"Give its files with a pattern, for example '{path}/*.txt'."
            )
        if path.exists():
            files.append(path)
            continue
        base, pattern_below = Path(path.anchor), str(path.relative_to(path.anchor))
        matches = sorted(base.glob(pattern_below)) if glob.has_magic(str(path)) else []
        found = [match for match in matches if match.is_file()]
        if not found:
            raise UserError(_missing(path))
        files.extend(found)
    return files


def is_sample(pattern: str | Path) -> bool:
    """Tell whether a name means data that come with this package."""
    return str(pattern).startswith(SAMPLE)


def _sample_file(name: str) -> Path:
    """Return the path of a bundled file.

    Raises:
        UserError: If there is none of this name.
    """
    wanted = name.removeprefix(SAMPLE)
    found = {
        path.relative_to(SAMPLES).as_posix(): path
        for path in sorted(SAMPLES.glob("*/*"))
        if path.suffix in (".txt", ".jsonl", ".parquet")
    }
    if wanted not in found:
        raise UserError(
            f"There is no bundled file {name!r}. {suggest(wanted, found)}"
            f"Bundled: {', '.join(SAMPLE + path for path in found)}."
        )
    return found[wanted]


def _missing(path: Path) -> str:
    if glob.has_magic(str(path)):
        where = "" if path.is_absolute() else f" It is looked for in {Path.cwd()}."
        return f"No file matches the pattern {str(path)!r}.{where}"
    folder = path.parent
    if not folder.is_dir():
        return f"The file {str(path)!r} does not exist, and neither does the folder '{folder}'."
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    close = difflib.get_close_matches(path.name, names, n=1)
    hint = f" Did you mean {str(folder / close[0])!r}?" if close else ""
    where = f" It is looked for in {Path.cwd()}." if not path.is_absolute() else ""
    return f"The file {str(path)!r} does not exist.{hint}{where}"


def common_format(files: Sequence[Path]) -> str:
    """Return the one format of all files: ``text``, ``json``, ``csv`` or ``parquet``.

    Raises:
        UserError: If an extension is unknown or the files have different formats.
    """
    formats: dict[str, Path] = {}
    for file in files:
        if file.suffix.lower() not in FORMATS:
            raise UserError(
                f"The file '{file}' has the extension {file.suffix!r}, which is not known. "
                f"Known extensions: {', '.join(FORMATS)}. Rename the file if it holds plain text."
            )
        formats.setdefault(FORMATS[file.suffix.lower()], file)
    if len(formats) > 1:
        one, other = list(formats.values())[:2]
        raise UserError(
            f"The files '{one}' and '{other}' have different formats. "
            "Give files of one format, or convert them first."
        )
    return next(iter(formats))


def check_file(file: Path, file_format: str) -> None:
    """Look at the first megabyte of a file.

    Raises:
        UserError: If the file cannot be read, is empty or binary, or is not UTF-8 text.
    """
    with _opened(file) as stream:
        head = stream.read(HEAD_BYTES)
    whole = file.stat().st_size <= HEAD_BYTES
    if not head:
        raise UserError(f"The file '{file}' is empty.")
    if file_format == "parquet":
        if head[:4] != b"PAR1":
            raise UserError(f"The file '{file}' is not a Parquet file: its first bytes say so.")
        return
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(
            f"The file '{file}' is UTF-16 text, and UTF-8 is needed. Convert it, for example with: "
            f"iconv -f UTF-16 -t UTF-8 '{file}' > converted{file.suffix}"
        )
    if b"\0" in head:
        raise UserError(
            f"The file '{file}' is binary: it has a zero byte at offset {head.index(0)}. "
            "UTF-8 text is needed."
        )
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head, final=whole)
    except UnicodeDecodeError as error:
        raise _not_utf8(file, error.start, head[error.start]) from None
    if whole and not text.strip("\ufeff \t\r\n"):
        raise UserError(f"The file '{file}' holds nothing but white space.")


def _not_utf8(file: Path, offset: int, byte: int) -> UserError:
    return UserError(
        f"The file '{file}' is not UTF-8 text: byte 0x{byte:02x} at offset {offset}. Convert it, "
        f"for example with: iconv -f WINDOWS-1252 -t UTF-8 '{file}' > converted{file.suffix}"
    )


def _opened(file: Path) -> io.BufferedReader:
    try:
        return file.open("rb")
    except OSError as error:
        raise UserError(f"The file '{file}' cannot be read: {error.strerror}.") from error


def text_chunks(file: Path) -> Iterator[str]:
    """Decode a UTF-8 file chunk by chunk; line ends become line feeds, a byte order mark goes.

    Raises:
        UserError: If a byte is not UTF-8; the message gives its offset in the file.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    with _opened(file) as stream:
        offset = 0
        while True:
            data = stream.read(_CHUNK_BYTES)
            pending = len(decoder.getstate()[0])
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                place = offset - pending + error.start
                raise _not_utf8(file, place, error.object[error.start]) from None
            if offset == 0:
                text = text.removeprefix("\ufeff")
            offset += len(data)
            text = newlines.decode(text, final=not data)
            if text:
                yield text
            if not data:
                return


def text_lines(file: Path, longest: int | None = None) -> Iterator[str]:
    """Yield the lines of a UTF-8 file without their line ends.

    Args:
        file: The file.
        longest: Most characters of a line; None for any number.

    Raises:
        UserError: If a line has more, before it is read to its end.
    """
    rest: list[str] = []
    length = 0
    for chunk in text_chunks(file):
        length = len(chunk) - chunk.rfind("\n") - 1 + (0 if "\n" in chunk else length)
        if longest is not None and length > longest:
            raise UserError(
                f"A line of the file '{file}' has more than {longest:,} characters. Part it into "
                "rows of its own."
            )
        first, *others = chunk.split("\n")
        rest.append(first)
        if others:
            yield "".join(rest)
            yield from others[:-1]
            rest = [others[-1]]
    if last := "".join(rest):
        yield last


def count_lines(file: Path) -> int:
    """Return how many lines `text_lines` yields."""
    count, last = 0, "\n"
    for chunk in text_chunks(file):
        count += chunk.count("\n")
        last = chunk[-1]
    return count + (last != "\n")


def rows(
    file: Path, file_format: str, columns: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table, one at a time.

    Args:
        file: The file.
        file_format: ``json``, ``csv`` or ``parquet``.
        columns: Read these top-level columns only, where the format allows it.

    Raises:
        UserError: If a row cannot be read; the message gives its line.
    """
    readers = {"json": _json_rows, "csv": _csv_rows}
    return _parquet_rows(file, columns) if file_format == "parquet" else readers[file_format](file)


def _json_rows(file: Path) -> Iterator[dict[str, Any]]:
    if next(text_chunks(file), "").lstrip().startswith("["):
        yield from _json_array(file)
        return
    for number, line in enumerate(text_lines(file, _MAX_ROW), start=1):
        if not line.strip():
            continue
        row = _parse_json(line, f"line {number} of the file '{file}'")
        if not isinstance(row, dict):
            raise UserError(f"Line {number} of the file '{file}' is not a JSON object.")
        yield row


def _json_array(file: Path) -> Iterable[dict[str, Any]]:
    array = _parse_json("".join(text_chunks(file)), f"the file '{file}'")
    for number, row in enumerate(array, start=1):
        if not isinstance(row, dict):
            raise UserError(f"Item {number} of the array in '{file}' is not a JSON object.")
    return array


def _parse_json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(
            f"{place[0].upper()}{place[1:]} is not valid JSON: {error}. "
            "One object a line is expected, or one array of objects."
        ) from error


def _csv_rows(file: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(_MAX_CSV_FIELD)
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    lines = (line + "\n" for line in text_lines(file, _MAX_ROW))
    reader = csv.DictReader(lines, delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if None in row:
                raise UserError(
                    f"Line {reader.line_num} of the file '{file}' has more fields than the "
                    f"header names ({len(reader.fieldnames or ())}). Quote fields that contain "
                    f"{delimiter!r}."
                )
            yield row
    except csv.Error as error:
        raise UserError(
            f"Line {reader.line_num} of the file '{file}' is not valid CSV: {error}."
        ) from error


def _parquet_rows(file: Path, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    parquet = require_extra("pyarrow.parquet", "train")
    arrow = require_extra("pyarrow", "train")
    try:
        with parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(256, columns=columns):
                yield from batch.to_pylist()
    except (arrow.ArrowException, OSError) as error:
        raise UserError(
            f"The Parquet file '{file}' cannot be read: {error}. It may be truncated."
        ) from error


def digest(file: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with _opened(file) as stream:
        state = hashlib.sha256()
        while data := stream.read(_CHUNK_BYTES):
            state.update(data)
        return state.hexdigest()
