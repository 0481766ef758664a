"""Distinct n-grams of a collection of texts (Li et al. 2016, arXiv:1510.03055)."""

import re
from collections.abc import Iterable

UNITS = ("word", "character")


def split_text(text: str, unit: str = "word") -> list[str]:
    """Split text into words and single punctuation marks, or into characters without white space.

    Args:
        text: Any text.
        unit: `word`, or `character` for languages that are written without spaces.

    Raises:
        ValueError: If the unit is unknown.
    """
    if unit not in UNITS:
        raise ValueError(f"unit={unit!r} is unknown. Choose from: {', '.join(UNITS)}.")
    return re.findall(r"\w+|[^\w\s]" if unit == "word" else r"\S", text)


def distinct_n(texts: Iterable[str], n: int, unit: str = "word") -> float:
    """Return the number of distinct n-grams over the number of all n-grams.

    Counted over the whole collection, so that texts which repeat each other score low too; compare
    collections of about equal length only, for the share falls with length. No n-gram spans two
    texts.

    Args:
        texts: The collection.
        n: Length of the n-grams, at least 1.
        unit: What an n-gram consists of, see `split_text`.

    Returns:
        A share in (0, 1], or 0 if no text is long enough for one n-gram.
    """
    if n < 1:
        raise ValueError(f"n={n} must be at least 1.")
    seen, total = set(), 0
    for text in texts:
        grams = _ngrams(split_text(text, unit), n)
        seen.update(grams)
        total += len(grams)
    return len(seen) / total if total else 0.0


def self_repetition(texts: Iterable[str], n: int, unit: str = "word") -> float:
    """Return the share of n-grams that stood in the same text before.

    Unlike `distinct_n` it does not count what texts share with each other.

    Args:
        texts: The collection.
        n: Length of the n-grams, at least 1.
        unit: What an n-gram consists of, see `split_text`.

    Returns:
        A share in [0, 1), weighted by length; 0 if no text is long enough for one n-gram.
    """
    if n < 1:
        raise ValueError(f"n={n} must be at least 1.")
    repeated = total = 0
    for text in texts:
        grams = _ngrams(split_text(text, unit), n)
        repeated += len(grams) - len(set(grams))
        total += len(grams)
    return repeated / total if total else 0.0


def _ngrams(units: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(units[i : i + n]) for i in range(len(units) - n + 1)]
