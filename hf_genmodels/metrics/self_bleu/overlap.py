"""Self-BLEU of a collection of texts (Zhu et al. 2018, Texygen, arXiv:1802.01886)."""

import bisect
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

UNITS = ("word", "character")
EPSILON = 0.1  # matches of a text that has none; Chen and Cherry 2014, smoothing 1


def self_bleu(texts: Iterable[str], max_n: int = 4, unit: str = "word") -> float:
    """Return the mean BLEU of each text with all others as references: 1 if all say the same.

    BLEU (Papineni et al. 2002) counts how many of a text's 1- to n-grams stand in another text, each as
    often as in the other that has it most often, and penalises a text that is shorter than those
    nearest to it in length. Compare collections of equally many, equally long texts only.

    Args:
        texts: The collection, at least two texts.
        max_n: Longest n-gram, at least 1.
        unit: `word` (words and single punctuation marks) or `character` (without white space).

    Returns:
        Between 0 and 1; low values are varied.

    Raises:
        ValueError: If there are fewer than two texts, or n or the unit cannot be used.
    """
    if unit not in UNITS:
        raise ValueError(f"unit={unit!r} is unknown. Choose from: {', '.join(UNITS)}.")
    if max_n < 1:
        raise ValueError(f"max_n={max_n} must be at least 1.")
    pattern = re.compile(r"\w+|[^\w\s]" if unit == "word" else r"\S")
    split = [pattern.findall(text) for text in texts]
    if len(split) < 2:
        raise ValueError("Self-BLEU compares texts with each other: give at least two.")
    precisions = [_precisions(split, n) for n in range(1, max_n + 1)]
    penalties = _brevity_penalties([len(units) for units in split])
    scores = []
    for place, penalty in enumerate(penalties):
        own = [found[place] for found in precisions if found[place] is not None]
        logs = [math.log(value) for value in own if value is not None]
        scores.append(penalty * math.exp(sum(logs) / len(logs)) if logs else 0.0)
    return sum(scores) / len(scores)


def _precisions(split: Sequence[list[str]], n: int) -> list[float | None]:
    """Return for each text which share of its n-grams stands in others; `None` if it has none."""
    counts = [Counter(tuple(u[i : i + n]) for i in range(len(u) - n + 1)) for u in split]
    first: dict[Any, tuple[int, int]] = {}  # n-gram -> its largest count, and the text that has it
    second: dict[Any, int] = {}  # the largest count in any other text
    for place, own in enumerate(counts):
        for gram, count in own.items():
            most, _ = first.get(gram, (0, -1))
            if count > most:
                first[gram] = (count, place)
                second[gram] = most
            elif count > second.get(gram, 0):
                second[gram] = count
    precisions: list[float | None] = []
    for place, own in enumerate(counts):
        total = sum(own.values())
        matches = 0
        for gram, count in own.items():
            most, owner = first[gram]
            matches += min(count, second.get(gram, 0) if owner == place else most)
        precisions.append((matches or EPSILON) / total if total else None)
    return precisions


def _brevity_penalties(lengths: Sequence[int]) -> list[float]:
    """Return exp(1 - r / c) for texts of length c shorter than r, the other length nearest to theirs."""
    ordered = sorted(lengths)
    penalties = []
    for length in lengths:
        place = bisect.bisect_left(ordered, length)
        others = ordered[max(place - 1, 0) : place] + ordered[place + 1 : place + 2]
        nearest = min(others, key=lambda other: (abs(other - length), other))
        shorter = length < nearest
        penalties.append(math.exp(1 - nearest / max(length, 1)) if shorter else 1.0)
    return penalties
