"""Put an evaluation into the model card that stands in a folder already."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from hf_genmodels.hub.card_text import inline

BEGIN, END = "<!-- evaluation -->", "<!-- end of the evaluation -->"
BEFORE = "\n## Limits\n"
# A picture with its caption, as `_section` writes them.
_PICTURE = re.compile(r"\n\n[^\n]+:\n\n!\[[^\]\n]*\]\(([^)\n]+)\)")
_CAPTIONS = {
    "samples.png": "Generated images beside real ones",
    "neighbours.png": "Generated images, each beside the training images that are nearest to it",
    "samples.webp": "Generated clips beside real ones",
    "strips.png": "The same, frame by frame",
    "nearest.png": "Generated clips, each beside the training clip that is nearest to it",
    "interpolation.png": "On the way from one noise to another",
    "truncation.png": "From strong truncation of the noise to none",
}


def show_evaluation(
    folder: Path,
    rows: Sequence[tuple[str, str, str, int]],
    pictures: Sequence[str],
    how: str,
    unit: str = "images",
) -> bool:
    """Write a section into README.md, instead of the one of an earlier evaluation.

    Args:
        folder: The published folder.
        rows: Name of each score, its value, that of real images, and the number of generated images.
        pictures: Files in its folder `report`.
        how: How many images were compared by what, in words.
        unit: What was compared: images or clips.

    Returns:
        Whether there is a card.
    """
    file = folder / "README.md"
    if not file.is_file():
        return False
    card = _without_section(file.read_text(encoding="utf-8"))
    unseen = [name for name in pictures if f"](report/{name})" not in card]
    section = _section(rows, unseen, how, unit)
    text = _with_section(card, section)
    staged = file.with_name(".README.md.tmp")
    staged.write_text(text, encoding="utf-8")
    staged.replace(file)
    return True


def keep_evaluation(card: str, old: str) -> str:
    """Return a card with the evaluation that stands in an older one.

    Args:
        card: Text of the card.
        old: Text of the older one.
    """
    start, stop = old.find(BEGIN), old.find(END)
    if start < 0 or stop < start:
        return card

    def unless_shown(found: re.Match[str]) -> str:
        return "" if f"]({found[1]})" in card else found[0]

    section = _PICTURE.sub(unless_shown, old[start : stop + len(END)])
    return _with_section(card, section)


def _with_section(card: str, section: str) -> str:
    """Put a section before the limits, or at the end."""
    head, before, tail = card.partition(BEFORE)
    if not before:
        return f"{card.rstrip()}\n\n{section}\n"
    return f"{head.rstrip()}\n\n{section}\n{before}{tail}"


def _section(
    rows: Sequence[tuple[str, str, str, int]], pictures: Sequence[str], how: str, unit: str
) -> str:
    table = [
        f"| {inline(name)} | {value} | {limit} | {samples:,} |"
        for name, value, limit, samples in rows
    ]
    shown = [
        f"\n{_CAPTIONS.get(name, name)}:\n\n![{_CAPTIONS.get(name, name)}](report/{name})"
        for name in pictures
    ]
    lines = [
        BEGIN,
        "## Evaluation",
        "",
        f"| score | generated | real | {unit} |",
        "|---|---|---|---|",
        *table,
        "",
        f"{inline(how[:1].upper() + how[1:])}. The column of real {unit} compares one half of them with "
        "the other: the limit.",
        *shown,
        END,
    ]
    return "\n".join(lines)


def _without_section(card: str) -> str:
    """Return a card without the section of an earlier evaluation."""
    start, stop = card.find(BEGIN), card.find(END)
    if start < 0 or stop < start:
        return card
    return card[:start].rstrip() + "\n" + card[stop + len(END) :]
