"""Divergences between the n-gram distributions of two collections of texts, in bits."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

UNITS = ("word", "character")


def ngram_counts(texts: Iterable[str], n: int, unit: str = "word") -> Counter[tuple[str, ...]]:
    """Count the n-grams of a collection; none spans two texts.

    Args:
        texts: The collection.
        n: Length of the n-grams, at least 1.
        unit: `word` (words and single punctuation marks) or `character` (without white space).

    Raises:
        ValueError: If n or the unit cannot be used.
    """
    if n < 1:
        raise ValueError(f"n={n} must be at least 1.")
    if unit not in UNITS:
        raise ValueError(f"unit={unit!r} is unknown. Choose from: {', '.join(UNITS)}.")
    pattern = re.compile(r"\w+|[^\w\s]" if unit == "word" else r"\S")
    counts: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        units = pattern.findall(text)
        counts.update(tuple(units[i : i + n]) for i in range(len(units) - n + 1))
    return counts


def kl_divergence(
    counts: Mapping[Any, int], reference: Mapping[Any, int], smoothing: float = 0.5
) -> float:
    """Return the relative entropy D(p || q) of two smoothed distributions, in bits.

    D(p || q) = sum over x of p(x) log2(p(x) / q(x)) (Kullback and Leibler 1951). `smoothing` is added
    to the count of everything that occurs in either distribution (Lidstone's rule; 0.5 is the prior
    of Jeffreys), because D is infinite where q is 0 and p is not. Without smoothing it may be
    infinite.

    Args:
        counts: Counts of p.
        reference: Counts of q.
        smoothing: Added to every count, at least 0.

    Raises:
        ValueError: If there are no counts on one side, or smoothing is negative.
    """
    support = _support(counts, reference, smoothing)
    p_total = sum(counts.values()) + smoothing * len(support)
    q_total = sum(reference.values()) + smoothing * len(support)
    divergence = 0.0
    for item in support:
        p = (counts.get(item, 0) + smoothing) / p_total
        q = (reference.get(item, 0) + smoothing) / q_total
        if p > 0:
            divergence += p * math.log2(p / q) if q > 0 else math.inf
    return max(divergence, 0.0)


def js_divergence(counts: Mapping[Any, int], reference: Mapping[Any, int]) -> float:
    """Return the Jensen-Shannon divergence of two distributions, in bits, between 0 and 1.

    D(p || m) / 2 + D(q || m) / 2 with m = (p + q) / 2 (Lin 1991). It is finite without smoothing, and
    none is applied.

    Args:
        counts: Counts of p.
        reference: Counts of q.

    Raises:
        ValueError: If there are no counts on one side.
    """
    support = _support(counts, reference, 0.0)
    p_total, q_total = sum(counts.values()), sum(reference.values())
    divergence = 0.0
    for item in support:
        p, q = counts.get(item, 0) / p_total, reference.get(item, 0) / q_total
        middle = (p + q) / 2
        divergence += sum(share / 2 * math.log2(share / middle) for share in (p, q) if share > 0)
    return min(max(divergence, 0.0), 1.0)


def symmetric_relative_entropy(
    counts: Mapping[Any, int], reference: Mapping[Any, int], smoothing: float = 0.5
) -> float:
    """Return D(p || q) + D(q || p) in bits (Jeffreys 1946), smoothed as `kl_divergence`.

    Args:
        counts: Counts of p.
        reference: Counts of q.
        smoothing: Added to every count, at least 0.
    """
    return kl_divergence(counts, reference, smoothing) + kl_divergence(reference, counts, smoothing)


def divergences(
    texts: Iterable[str],
    references: Iterable[str],
    n: int,
    unit: str = "word",
    smoothing: float = 0.5,
) -> dict[str, float]:
    """Return all three divergences between the n-grams of generated and of real texts.

    Args:
        texts: Generated texts, p.
        references: Real texts, q.
        n: Length of the n-grams.
        unit: See `ngram_counts`.
        smoothing: See `kl_divergence`.

    Returns:
        `kl`, `js` and `symmetric`, in bits.
    """
    counts, reference = ngram_counts(texts, n, unit), ngram_counts(references, n, unit)
    return {
        "kl": kl_divergence(counts, reference, smoothing),
        "js": js_divergence(counts, reference),
        "symmetric": symmetric_relative_entropy(counts, reference, smoothing),
    }


def _support(
    counts: Mapping[Any, int], reference: Mapping[Any, int], smoothing: float
) -> list[Any]:
    """Return everything that occurs, in an order that does not depend on hashing."""
    if not sum(counts.values()) or not sum(reference.values()):
        raise ValueError("Both sides need at least one n-gram; give more or longer texts.")
    if smoothing < 0:
        raise ValueError(f"smoothing={smoothing} must not be negative.")
    return list(dict.fromkeys([*counts, *reference]))
