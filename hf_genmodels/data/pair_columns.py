"""Find the two sides of pairs in the columns of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_genmodels.data.columns import choose_column, field, listing, text_fields
from hf_genmodels.errors import UserError, suggest

TRANSLATION = "translation"


@dataclass(frozen=True)
class PairColumns:
    """Fields of a table that hold pairs; a field inside another is named by its path.

    Attributes:
        texts: Source and target, or the one field of whole texts.
        group: Field that says which texts belong together, if any.
        others: Further fields that are kept.
    """

    texts: tuple[str, ...]
    group: str | None = None
    others: tuple[str, ...] = ()

    @property
    def paths(self) -> list[str]:
        """All fields that are read."""
        return [*self.texts, *([self.group] if self.group else []), *self.others]


def choose_columns(
    sample: Sequence[Mapping[str, Any]],
    where: str,
    *,
    columns: tuple[str | None, str | None] = (None, None),
    languages: tuple[str | None, str | None] = (None, None),
    text_column: str | None = None,
    group_column: str | None = None,
    others: tuple[str, ...] = (),
) -> PairColumns:
    """Decide which fields of a table hold the two sides.

    Args:
        sample: Some rows of the table.
        where: What the table is called in messages.
        columns: Fields of sources and targets that the user named.
        languages: Languages of sources and targets that the user named.
        text_column: Field of whole texts that the user named.
        group_column: Field of groups that the user named.
        others: Further fields that the user named.

    Returns:
        The fields.

    Raises:
        UserError: If a field or a language is missing, the options contradict each other, or it is not
            clear which fields are meant.
    """
    if not sample:
        raise UserError(f"There are no rows in {where}.")
    _check_options(columns, languages, text_column)
    for flag, name in [("--group_column", group_column), *(("--columns", name) for name in others)]:
        if name is not None:
            _check_present(sample, name, where, flag)
    if text_column:
        texts: tuple[str, ...] = (choose_column(sample, text_column, where),)
    elif all(columns):
        texts = tuple(
            choose_column(sample, name, where, f"--{side}_column")
            for side, name in zip(("source", "target"), columns, strict=True)
        )
    elif all(languages):
        texts = tuple(
            choose_language(sample, str(lang), where, f"--{side}_lang")
            for side, lang in zip(("source", "target"), languages, strict=True)
        )
    else:
        texts = _usual(sample, where)
    return PairColumns(texts, group_column, others)


def _check_options(
    columns: tuple[str | None, str | None],
    languages: tuple[str | None, str | None],
    text_column: str | None,
) -> None:
    for kind, (source, target) in (("column", columns), ("lang", languages)):
        if (source is None) != (target is None):
            given, missing = ("source", "target") if source else ("target", "source")
            raise UserError(f"--{given}_{kind} was given without --{missing}_{kind}. Give both.")
        if source is not None and source == target:
            raise UserError(
                f"--source_{kind} and --target_{kind} are both {source!r}. Name two different ones."
            )
    ways = {
        "--source_column and --target_column": columns[0],
        "--source_lang and --target_lang": languages[0],
        "--text_column": text_column,
    }
    given_ways = [name for name, value in ways.items() if value]
    if len(given_ways) > 1:
        raise UserError(f"{' and also '.join(given_ways)} were given. Name the texts in one way.")


def _check_present(sample: Sequence[Mapping[str, Any]], name: str, where: str, flag: str) -> None:
    if all(field(row, name) is None for row in sample):
        fields = text_fields(sample)
        raise UserError(
            f"There is no column {name!r}, which {flag} names, in {where}. {suggest(name, fields)}"
            f"{listing(sample, fields)}"
        )


def choose_language(
    sample: Sequence[Mapping[str, Any]], language: str, where: str, flag: str
) -> str:
    """Return the field that holds a language, inside the column of translations or by itself.

    Args:
        sample: Some rows of the table.
        language: The language.
        where: What the table is called in messages.
        flag: What names the language on the command line.

    Raises:
        UserError: If there is no such language; the message lists those that there are.
    """
    fields = text_fields(sample)
    inside = f"{TRANSLATION}."
    for name in (f"{inside}{language}", language):
        if name in fields:
            return name
    languages = [name.removeprefix(inside) for name in fields if name.startswith(inside)]
    if not languages:
        raise UserError(
            f"{flag} {language} was given, but {where} has neither a column {TRANSLATION!r} of "
            f"languages nor a column {language!r}. {suggest(language, fields)}{listing(sample, fields)}"
        )
    raise UserError(
        f"There is no language {language!r} in {where}. {suggest(language, languages)}"
        f"Languages: {', '.join(languages)}."
    )


def _usual(sample: Sequence[Mapping[str, Any]], where: str) -> tuple[str, str]:
    """Return the fields that are meant when none is named."""
    fields = text_fields(sample)
    if {"source", "target"} <= set(fields):
        return "source", "target"
    languages = [
        name.removeprefix(f"{TRANSLATION}.")
        for name in fields
        if name.startswith(f"{TRANSLATION}.")
    ]
    if languages:
        raise UserError(
            f"Which way are the pairs of {where} translated? Give --source_lang and --target_lang. "
            f"Languages: {', '.join(languages)}."
        )
    raise UserError(
        f"Which columns of {where} hold the pairs? Name them with --source_column and "
        f"--target_column. {listing(sample, fields)}"
    )
