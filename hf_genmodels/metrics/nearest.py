"""The training images that are nearest to generated ones: does a model copy?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hf_genmodels.metrics.precision_recall.manifolds import squared_distances

COPY_QUANTILE = 0.01


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
    """Find the nearest training images. Memory does not grow with the product of the sizes.

    Args:
        features: Features or pixels of generated images, (N, ...), made flat.
        references: The same of training images, (M, ...).
        count: k.

    Raises:
        ValueError: If the shapes do not fit or there are fewer than k training images.
    """
    rows, others = _flat(features), _flat(references)
    if rows.shape[1] != others.shape[1]:
        raise ValueError(
            f"Both sides need the same features, but have {rows.shape[1]} and {others.shape[1]}."
        )
    if not 1 <= count <= len(others):
        raise ValueError(f"count={count} must be between 1 and the {len(others)} training images.")
    centre = others.mean(axis=0)  # smaller numbers, less cancellation
    rows, others = rows - centre, others - centre
    indices = np.concatenate(
        [_smallest(block, count) for _, block in squared_distances(rows, others)]
    )
    # Distances of copies are exactly 0 when they are computed from differences.
    distances = np.stack(
        [np.linalg.norm(rows - others[column], axis=1) for column in indices.T], axis=1
    )
    return Neighbours(indices, distances)


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


def _smallest(block: np.ndarray, count: int) -> np.ndarray:
    """Return the places of the smallest numbers of each row, in order."""
    found = np.argpartition(block, count - 1, axis=1)[:, :count]
    order = np.take_along_axis(block, found, axis=1).argsort(axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1)
