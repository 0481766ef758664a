"""Kernel distance: the squared maximum mean discrepancy with a polynomial kernel."""

from typing import Any, NamedTuple

import numpy as np


class KernelDistance(NamedTuple):
    """A kernel distance.

    Attributes:
        distance: Mean over the subsets.
        standard_error: Of the mean, from the spread of the subsets, of which only those that fit
            beside each other into the samples count as independent; nan for one subset.
        subset_size: Samples in a subset.
        subsets: Number of subsets.
    """

    distance: float
    standard_error: float
    subset_size: int
    subsets: int


def unbiased_discrepancy(features: Any, references: Any) -> float:
    """Return mean k(x, x') + mean k(y, y') - 2 mean k(x, y) with k(x, y) = (x y / D + 1)^3.

    The means over pairs of one side leave out x = x' (Gretton et al. 2012, lemma 6), so that the
    expectation is 0 for equal distributions, whatever the number of samples; a value may be negative.

    Args:
        features: x, (N, D).
        references: y, (M, D).

    Raises:
        ValueError: If the shapes do not fit or a side has fewer than two samples.
    """
    x, y = _rows(features), _rows(references)
    _check(x, y)
    return _within(x) + _within(y) - 2 * float(_kernel(x, y).mean())


def kernel_distance(
    features: Any,
    references: Any,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
) -> KernelDistance:
    """Return the mean discrepancy of random subsets (KID; Binkowski et al. 2018, arXiv:1801.01401).

    Args:
        features: Of generated images, (N, D).
        references: Of real images, (M, D).
        subsets: How many pairs of subsets to draw.
        subset_size: Samples of each, without replacement; at most N and M are taken.
        seed: Seed of the draws.

    Raises:
        ValueError: If the shapes do not fit, or a side has fewer than two samples.
    """
    x, y = _rows(features), _rows(references)
    _check(x, y)
    if subsets < 1 or subset_size < 2:
        raise ValueError(
            f"subsets={subsets} must be at least 1 and subset_size={subset_size} at least 2."
        )
    fewest = min(len(x), len(y))
    size = min(subset_size, fewest)
    if len(x) == len(y) == size:
        subsets = 1
    generator = np.random.default_rng(seed)
    values = np.array(
        [
            unbiased_discrepancy(
                x[generator.choice(len(x), size, replace=False)],
                y[generator.choice(len(y), size, replace=False)],
            )
            for _ in range(subsets)
        ]
    )
    independent = min(subsets, fewest // size)
    error = float(values.std(ddof=1) / np.sqrt(independent)) if subsets > 1 else float("nan")
    return KernelDistance(float(values.mean()), error, size, subsets)


def _rows(features: Any) -> np.ndarray:
    return np.asarray(features, dtype=np.float64)


def _check(x: np.ndarray, y: np.ndarray) -> None:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"Give two matrices of the same features, not {x.shape} and {y.shape}.")
    if min(len(x), len(y)) < 2:
        raise ValueError("A kernel distance needs at least two samples on each side.")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("The features must be finite.")


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    base = x @ y.T / x.shape[1] + 1
    return base * base * base  # faster than a power


def _within(x: np.ndarray) -> float:
    """Return the mean of the kernel over all pairs of different samples."""
    kernel = _kernel(x, x)
    return float((kernel.sum() - np.trace(kernel)) / (len(x) * (len(x) - 1)))
