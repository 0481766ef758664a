"""Text from data and from models, made safe for its place in a model card."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hf_genmodels.plain_text import printable

# What Markdown or HTML would read as markup; an underscore between letters is only an underscore.
_MARKUP = re.compile(r"[\\`*\[\]<>|$~]|(?<!\w)_|_(?!\w)|&(?=#?\w+;)")
# What at the start of a line begins a heading, a list, a quotation or a rule.
_BLOCK = re.compile(r"^(\d*)([#+=>.)-])")


def inline(text: str) -> str:
    """Return text for one line of Markdown or one cell of a table, without markup."""
    line = " ".join(printable(text).split())
    return _MARKUP.sub(lambda found: "\\" + found[0], line)


def paragraph(text: str) -> str:
    """Return text for a paragraph of its own on one line, which is no heading, list or rule."""
    line = inline(text)
    return _BLOCK.sub(lambda found: found[1] + "\\" + found[2], line)


def cell(text: str) -> str:
    """Return text for one cell of a table, with its line ends."""
    lines = [inline(line) for line in text.strip().splitlines()]
    return "<br>".join(lines)


def code(text: str) -> str:
    """Return text for the inside of a code span or of a string literal that must be a name."""
    return " ".join(printable(text).split()).replace("`", "'")


def string(text: str) -> str:
    """Return text for the inside of a string literal in double quotes."""
    return printable(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def block(text: str) -> str:
    """Return a block of plain text, whatever it holds."""
    text = printable(text).strip("\n") or " "
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def rows(table: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the rows of a table that have a value."""
    shown = [
        (inline(str(key)), inline(f"{value:,}" if type(value) is int else str(value)))
        for key, value in table.items()
        if value is not None
    ]
    return [(key, value) for key, value in shown if value]
