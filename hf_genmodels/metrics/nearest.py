"""The training images that are nearest to generated ones: does a model copy?"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

COPY_QUANTILE = 0.01
_CHUNK = 1 << 22  # numbers of training images, or of distances, held at once


class Neighbours(NamedTuple):
    """The nearest rows of another collection, the nearest first.

    Attributes:
        indices: (N, k).
        distances: (N, k), Euclidean.
    """

    indices: npt.NDArray[np.int64]
    distances: npt.NDArray[np.float64]


class Copying(NamedTuple):
    """Whether generated images are nearer to the training images than new real ones are.

    Attributes:
        ratio: Median distance of generated images to their nearest training image over that of
            held-out real images; well below 1 where a model copies.
        share: Share of generated images that are nearer to a training image than all but one in a
            hundred held-out images; 0.01 is what real images have.
    """

    ratio: float
    share: float


def nearest_neighbours(
    features: npt.ArrayLike, references: npt.ArrayLike, count: int = 1
) -> Neighbours:
    """Find the nearest training images, which may be a file that is mapped into memory.

    Args:
        features: Features or pixels of generated images, (N, ...), made flat.
        references: The same of training images, (M, ...), read a few at a time.
        count: k.

    Raises:
        ValueError: If the shapes do not fit or there are fewer than k training images.
    """
    others = np.asanyarray(references)
    rows = _flat(features)
    if others.ndim < 2 or rows.shape[1] != math.prod(others.shape[1:]):
        raise ValueError(
            f"Both sides need the same features, not {np.shape(features)} and {others.shape}."
        )
    if not 1 <= count <= len(others):
        raise ValueError(f"count={count} must be between 1 and the {len(others)} training images.")
    indices = _search(rows, others, count)
    # Differences, so that a copy is at distance 0 exactly.
    distances = [np.linalg.norm(rows - _flat(others[column]), axis=1) for column in indices.T]
    return Neighbours(indices, np.stack(distances, axis=1))


def copying(features: npt.ArrayLike, held_out: npt.ArrayLike, references: npt.ArrayLike) -> Copying:
    """Compare the distances of generated and of held-out images to the training images.

    Args:
        features: Features or pixels of generated images, (N, ...).
        held_out: The same of real images that the model did not see.
        references: The same of the training images.

    Raises:
        ValueError: If the shapes do not fit.
    """
    generated = nearest_neighbours(features, references).distances[:, 0]
    real = nearest_neighbours(held_out, references).distances[:, 0]
    usual = float(np.median(real))
    return Copying(
        ratio=float(np.median(generated)) / usual if usual > 0 else float("nan"),
        share=float((generated < np.quantile(real, COPY_QUANTILE)).mean()),
    )


def _flat(features: npt.ArrayLike) -> npt.NDArray[np.float64]:
    rows = np.asarray(features, dtype=np.float64)
    if rows.ndim < 2 or not len(rows):
        raise ValueError(f"Give features or pixels of at least one image, not {rows.shape}.")
    return rows.reshape(len(rows), -1)


def _search(
    rows: npt.NDArray[np.float64], others: npt.NDArray[np.generic], count: int
) -> npt.NDArray[np.int64]:
    """Return the places of the nearest others of each row, (N, k), the nearest first."""
    centre = rows.mean(axis=0)  # smaller numbers, less cancellation
    rows = rows - centre
    found = np.empty((len(rows), 0), dtype=np.int64)
    distances = np.empty((len(rows), 0))
    at_once = max(1, _CHUNK // max(rows.shape))
    for start in range(0, len(others), at_once):
        part = _flat(others[start : start + at_once]) - centre
        places = np.broadcast_to(start + np.arange(len(part)), (len(rows), len(part)))
        # |row|^2 is left out: it is the same for all others of a row.
        block = np.square(part).sum(axis=1) - 2 * rows @ part.T
        distances, found = np.hstack([distances, block]), np.hstack([found, places])
        order = distances.argsort(axis=1, kind="stable")[:, :count]
        distances = np.take_along_axis(distances, order, axis=1)
        found = np.take_along_axis(found, order, axis=1)
    return found
