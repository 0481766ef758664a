"""Precision, recall, density and coverage, by balls around the samples.

A ball around a sample reaches to its k-th nearest neighbour on the same side; all balls of a side are
an estimate of where its samples can lie.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

_CHUNK = 1 << 22  # distances held at once


class PrecisionRecall(NamedTuple):
    """How generated and real samples overlap.

    Attributes:
        precision: Share of generated samples in a ball of real ones.
        recall: Share of real samples in a ball of generated ones.
        density: Number of balls of real samples that a generated sample lies in, over k; may exceed 1.
        coverage: Share of real samples whose ball holds a generated one.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall(features: Any, references: Any, neighbours: int = 5) -> PrecisionRecall:
    """Return precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020).

    arXiv:1904.06991 and arXiv:2002.09797. Memory does not grow with the product of the sizes.

    Args:
        features: Of generated images, (N, D).
        references: Of real images, (M, D).
        neighbours: k.

    Raises:
        ValueError: If the shapes do not fit or a side has no more than k samples.
    """
    generated, real = (np.asarray(side, dtype=np.float64) for side in (features, references))
    _check(generated, real, neighbours)
    centre = real.mean(axis=0)  # smaller numbers, less cancellation
    generated, real = generated - centre, real - centre
    holding, covered = _inside(generated, real, radii(real, neighbours))
    reaching, _ = _inside(real, generated, radii(generated, neighbours))
    return PrecisionRecall(
        precision=float((holding > 0).mean()),
        recall=float((reaching > 0).mean()),
        density=float(holding.sum() / (neighbours * len(generated))),
        coverage=float(covered.mean()),
    )


def radii(samples: np.ndarray, neighbours: int) -> np.ndarray:
    """Return the squared distance from each sample to its k-th nearest other one, (N,)."""
    found = []
    for start, block in squared_distances(samples, samples):
        rows = np.arange(len(block))
        block[rows, start + rows] = np.inf
        found.append(np.partition(block, neighbours - 1, axis=1)[:, neighbours - 1])
    return np.concatenate(found)


def squared_distances(first: np.ndarray, second: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the squared distances (rows, M) of a few rows of the first side at a time.

    Args:
        first: (N, D).
        second: (M, D).

    Yields:
        The number of the first row, and the distances.
    """
    at_once = max(1, _CHUNK // len(second))
    norms = np.square(second).sum(axis=1)
    for start in range(0, len(first), at_once):
        rows = first[start : start + at_once]
        block = np.square(rows).sum(axis=1)[:, None] + norms - 2 * rows @ second.T
        yield start, block.clip(min=0)


def _inside(
    points: np.ndarray, centres: np.ndarray, squared_radii: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return in how many balls each point lies, and whether each ball holds a point."""
    holding, used = np.zeros(len(points), dtype=np.int64), []
    for start, block in squared_distances(centres, points):
        inside = block <= squared_radii[start : start + len(block), None]
        holding += inside.sum(axis=0)
        used.append(inside.any(axis=1))
    return holding, np.concatenate(used)


def _check(generated: np.ndarray, real: np.ndarray, neighbours: int) -> None:
    if generated.ndim != 2 or real.ndim != 2 or generated.shape[1] != real.shape[1]:
        raise ValueError(
            f"Give two matrices of the same features, not {generated.shape} and {real.shape}."
        )
    if not (np.isfinite(generated).all() and np.isfinite(real).all()):
        raise ValueError("The features must be finite.")
    if neighbours < 1 or min(len(generated), len(real)) <= neighbours:
        raise ValueError(
            f"neighbours={neighbours} must be at least 1 and less than the number of samples on "
            f"each side, {len(generated)} and {len(real)}."
        )
