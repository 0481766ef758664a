"""ROUGE-L of a text and its references (Lin 2004), on sentence level: one sequence a text."""

import re
from collections.abc import Sequence
from typing import Any

UNITS = ("word", "character")


def split_units(text: str, unit: str = "word") -> list[str]:
    """Split lower-cased text into words, or into characters; punctuation does not count.

    Args:
        text: Any text.
        unit: `word`, or `character` for languages that are written without blanks.

    Raises:
        ValueError: If the unit is unknown.
    """
    if unit not in UNITS:
        raise ValueError(f"unit={unit!r} is unknown. Choose from: {', '.join(UNITS)}.")
    return re.findall(r"\w+" if unit == "word" else r"\w", text.lower())


def common_length(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Return the length of the longest common subsequence.

    A column of the usual table is held in the bits of one integer and advanced by one addition (Hyyro
    2004, "Bit-parallel LCS-length computation revisited").

    Args:
        first: A sequence of hashable items.
        second: Another.
    """
    places: dict[Any, int] = {}
    for index, item in enumerate(first):
        places[item] = places.get(item, 0) | 1 << index
    full = (1 << len(first)) - 1
    column = full  # a 0 for each row in which the length grows by one
    for item in second:
        matches = column & places.get(item, 0)
        column = (column + matches | column - matches) & full
    return len(first) - column.bit_count()


def rouge_l(
    prediction: str, references: Sequence[str], unit: str = "word", beta: float = 1.0
) -> dict[str, float]:
    """Score one text by the longest common subsequence (LCS) with its reference.

    R = LCS / length of the reference, P = LCS / length of the text, F = (1 + b^2) R P / (R + b^2 P) (Lin
    2004, equations 2 to 4).

    Args:
        prediction: The text.
        references: Its references; that with the best F counts.
        unit: See `split_units`.
        beta: b, more than 1 favours recall.

    Returns:
        `precision`, `recall` and `f` between 0 and 1.

    Raises:
        ValueError: If there is no reference, or the unit or beta cannot be used.
    """
    if not references:
        raise ValueError("A text needs at least one reference.")
    if beta <= 0:
        raise ValueError(f"beta={beta} must be more than 0.")
    units = split_units(prediction, unit)
    scores = [_score(units, split_units(reference, unit), beta) for reference in references]
    return max(scores, key=lambda score: score["f"])


def _score(units: list[str], reference: list[str], beta: float) -> dict[str, float]:
    common = common_length(units, reference)
    if not common:
        return {"precision": 0.0, "recall": 0.0, "f": 0.0}
    precision, recall = common / len(units), common / len(reference)
    f = (1 + beta**2) * recall * precision / (recall + beta**2 * precision)
    return {"precision": precision, "recall": recall, "f": f}


def mean_rouge_l(
    predictions: Sequence[str],
    references: Sequence[str] | Sequence[Sequence[str]],
    unit: str = "word",
    beta: float = 1.0,
) -> dict[str, float]:
    """Return the mean of `rouge_l` over texts.

    Args:
        predictions: Texts, at least one.
        references: A reference for each, or a list of references for each.
        unit: See `split_units`.
        beta: See `rouge_l`.

    Returns:
        `rouge_l` (the F-measure), `rouge_l_precision` and `rouge_l_recall`, between 0 and 1.
    """
    scores = [
        rouge_l(text, [given] if isinstance(given, str) else given, unit, beta)
        for text, given in zip(predictions, references, strict=True)
    ]
    names = {"rouge_l": "f", "rouge_l_precision": "precision", "rouge_l_recall": "recall"}
    return {
        name: sum(score[part] for score in scores) / len(scores) for name, part in names.items()
    }
