"""Find the text in the columns of a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hf_genmodels.errors import UserError, suggest


def text_fields(sample: Sequence[Mapping[str, Any]], prefix: str = "") -> list[str]:
    """List the fields that hold text in every row of a sample.

    Args:
        sample: Some rows of the table.
        prefix: Path of the enclosing field, ending with a dot.

    Returns:
        Names of fields; a field inside another is named by its path, as in ``translation.en``.
    """
    fields = []
    for name in _names(sample):
        values = [row[name] for row in sample if row.get(name) is not None]
        if values and all(isinstance(value, str) for value in values):
            fields.append(prefix + name)
        elif values and all(isinstance(value, Mapping) for value in values):
            fields += text_fields(values, f"{prefix}{name}.")
    return fields


def _names(sample: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in sample for name in row))


def choose_column(
    sample: Sequence[Mapping[str, Any]],
    wanted: str | None,
    where: str,
    flag: str = "--text_column",
) -> str:
    """Decide which field of a table holds the text.

    Args:
        sample: Some rows of the table.
        wanted: The field that the user named, or None: ``text`` if there is one, or the only field
            that holds text.
        where: What the table is called in messages.
        flag: What names the field on the command line.

    Returns:
        The name of the field, or its path with dots.

    Raises:
        UserError: If there is no such field, it holds no text, or there is more than one to choose
            from.
    """
    if not sample:
        raise UserError(f"There are no rows in {where}.")
    fields = text_fields(sample)
    if wanted is None:
        written = [name for name in fields if not _all_numbers(sample, name)]
        if "text" in fields or len(written) == 1:
            return "text" if "text" in fields else written[0]
        raise UserError(
            f"Which column of {where} holds the text? Name it with {flag}. "
            f"{listing(sample, fields)}"
        )
    if wanted in fields:
        return wanted
    names = _names(sample)
    if wanted in names:
        raise UserError(_no_text(sample, wanted, fields, where, flag))
    raise UserError(
        f"There is no column {wanted!r} in {where}. {suggest(wanted, fields) or suggest(wanted, names)}"
        f"{listing(sample, fields)}"
    )


def _all_numbers(sample: Iterable[Mapping[str, Any]], path: str) -> bool:
    values = [value for row in sample if (value := field(row, path)) is not None]
    try:
        return all(float(value) is not None for value in values)
    except ValueError:
        return False


def _no_text(
    sample: Sequence[Mapping[str, Any]], wanted: str, fields: Sequence[str], where: str, flag: str
) -> str:
    inner = [name for name in fields if name.startswith(f"{wanted}.")]
    if inner:
        return (
            f"The column {wanted!r} of {where} holds objects, not text. "
            f"Name one of the texts inside it: {flag} {' or '.join(inner)}."
        )
    kinds = {type(row[wanted]).__name__ for row in sample if row.get(wanted) is not None}
    held = f"values of type {', '.join(sorted(kinds))}" if kinds else "nothing in the first rows"
    return f"The column {wanted!r} of {where} holds {held}, not text. {listing(sample, fields)}"


def listing(sample: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> str:
    """Say which columns hold text and which do not.

    Args:
        sample: Some rows of the table.
        fields: What `text_fields` found in them.
    """
    texts = f"Columns that hold text: {', '.join(fields)}." if fields else "No column holds text."
    others = [
        name
        for name in _names(sample)
        if name not in fields and not any(path.startswith(f"{name}.") for path in fields)
    ]
    return f"{texts} Other columns: {', '.join(others)}." if others else texts


def field(row: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path such as ``translation.en``, or None where it is absent."""
    if path in row:
        return row[path]
    value: Any = row
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def root(path: str, names: Iterable[str]) -> str:
    """Return the top-level column that holds the field ``path``."""
    return path if path in names else path.split(".")[0]


def without_surrogates(text: str) -> str:
    """Replace surrogate code points that have lost their partner, which JSON can hold, by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def text_of(row: Mapping[str, Any], path: str, place: str) -> str:
    """Return the text of a field without white space around it; empty where it is absent.

    Args:
        row: A row of a table.
        path: The field.
        place: What the row is called in messages.

    Raises:
        UserError: If the field holds something else.
    """
    value = field(row, path)
    if value is not None and not isinstance(value, str):
        raise UserError(f"{place} holds {type(value).__name__} in the column {path!r}, not text.")
    return without_surrogates(value or "").strip()
