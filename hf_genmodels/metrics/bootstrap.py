"""How far a score of a corpus depends on the sentences that happen to stand in it (Koehn 2004).

Sentences are drawn with replacement, as many as there are, and the corpus is scored again, many times.
What a sentence adds to a score is counted once, so that scoring a draw is one product of matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Score = Callable[[list[float]], float]
CONFIDENCE = 0.95
_CHUNK = 1 << 22  # draws of sentences held at once


@dataclass(frozen=True)
class Interval:
    """A confidence interval.

    Attributes:
        low: Its lower end.
        high: Its upper end.
    """

    low: float
    high: float


def bootstrap_scores(
    statistics: npt.ArrayLike, score: Score, *, resamples: int = 1000, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Score corpora that are drawn from one.

    The draws depend on the number of sentences and on the seed alone: the scores of two systems on the
    same sentences are paired.

    Args:
        statistics: What each sentence adds to the counts, (sentences, counts).
        score: From the summed counts to the score.
        resamples: How often to draw.
        seed: Seed of the draws.

    Returns:
        The scores, (resamples,).

    Raises:
        ValueError: If there is no sentence or nothing to draw.
    """
    counts = np.asarray(statistics, dtype=np.float64)
    if counts.ndim != 2 or not len(counts):
        raise ValueError("A bootstrap needs the counts of at least one sentence.")
    if resamples < 1:
        raise ValueError(f"resamples={resamples} must be at least 1.")
    sums = (
        row
        for weights in _draws(len(counts), resamples, seed)
        for row in (weights @ counts).tolist()
    )
    return np.fromiter((score(row) for row in sums), dtype=np.float64, count=resamples)


def _draws(sentences: int, resamples: int, seed: int) -> Iterator[npt.NDArray[np.float64]]:
    """Yield how often each sentence was drawn, (draws, sentences), a few draws at a time."""
    generator = np.random.default_rng(seed)
    at_once = max(1, _CHUNK // sentences)
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        drawn = generator.integers(sentences, size=(rows, sentences))
        places = drawn + sentences * np.arange(rows)[:, None]
        weights = np.bincount(places.ravel(), minlength=rows * sentences)
        yield weights.reshape(rows, sentences).astype(np.float64)


def interval(scores: npt.ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Return the interval between the quantiles that leave out equal shares on both sides.

    Args:
        scores: Scores of resampled corpora.
        confidence: Share of the scores inside.
    """
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.asarray(scores), [tail, 1 - tail])
    return Interval(float(low), float(high))


def share_interval(share: float, count: int) -> Interval:
    """Return the 95 % interval of a share, such as of an accuracy: the score interval (Wilson 1927).

    Args:
        share: The share, from 0 to 1.
        count: How many were counted, independent of each other.

    Raises:
        ValueError: If there is none, or this is no share.
    """
    if count < 1 or not 0 <= share <= 1:
        raise ValueError(f"{share} of {count} is no share.")
    z = 1.959963984540054
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    spread = share * (1 - share) / count + z * z / (4 * count * count)
    reach = z * spread**0.5 / (1 + z * z / count)
    return Interval(max(middle - reach, 0.0), min(middle + reach, 1.0))


def share_of_wins(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Return in which share of paired draws the first system scores higher; a tie counts half.

    At least 0.95 is what Koehn 2004 calls better with 95 % confidence.

    Args:
        first: Scores of a system by `bootstrap_scores`.
        second: Scores of another system on the same sentences, with the same seed.

    Raises:
        ValueError: If their numbers differ.
    """
    first, second = np.asarray(first), np.asarray(second)
    if first.shape != second.shape:
        raise ValueError(f"Paired scores are as many on both sides: {len(first)} != {len(second)}.")
    return float((np.sign(first - second) / 2 + 0.5).mean())
