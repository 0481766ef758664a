"""The form of the Inception score over any classifier's probabilities."""

import itertools
from typing import Any, NamedTuple

import numpy as np

TOLERANCE = 1e-3  # of a sum of probabilities that were computed in half precision


class InceptionScore(NamedTuple):
    """A score and how much it depends on the samples.

    Attributes:
        score: Mean over the parts, between 1 and the number of classes.
        deviation: Standard deviation over the parts.
    """

    score: float
    deviation: float


def inception_score(probabilities: Any, splits: int = 10, seed: int | None = 0) -> InceptionScore:
    """Return exp(E[D(p(y|x) || p(y))]) (Salimans et al. 2016, arXiv:1606.03498).

    High where the classifier is sure of each image and finds all classes equally often. It does not
    see whether the images of a class differ: give it beside recall.

    Args:
        probabilities: p(y|x) of each image, (N, K).
        splits: Parts that are scored one by one, as in the paper.
        seed: Seed of the order before splitting, because samples are often sorted by class; `None`
            keeps the order.

    Raises:
        ValueError: If the rows are no distributions, or fewer than the parts.
    """
    rows = np.asarray(probabilities, dtype=np.float64)
    if rows.ndim != 2 or (rows < 0).any() or not np.allclose(rows.sum(axis=1), 1, atol=TOLERANCE):
        raise ValueError("Each row of probabilities must be a distribution over the classes.")
    if not 1 <= splits <= len(rows):
        raise ValueError(f"splits={splits} must be between 1 and the {len(rows)} samples.")
    if seed is not None:
        rows = rows[np.random.default_rng(seed).permutation(len(rows))]
    edges = np.arange(splits + 1) * len(rows) // splits
    parts = [_score(rows[i:j]) for i, j in itertools.pairwise(edges)]
    return InceptionScore(float(np.mean(parts)), float(np.std(parts)))


def _score(rows: np.ndarray) -> float:
    """Return the score of one part; 0 log 0 is 0."""
    ratio = rows / rows.mean(axis=0).clip(min=np.finfo(np.float64).tiny)
    logarithms = np.log(ratio, out=np.zeros_like(ratio), where=ratio > 0)
    return float(np.exp((rows * logarithms).sum(axis=1).mean()))
