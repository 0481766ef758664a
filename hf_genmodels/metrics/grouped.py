"""Whether a model tells groups apart, such as authors: by its vectors, or by what it finds likely."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Agreement(NamedTuple):
    """How often something is so, beside how often it would be by chance.

    Attributes:
        share: Which share of the cases, 0 .. 1.
        chance: The same of random guesses.
    """

    share: float
    chance: float


def neighbour_agreement(vectors: npt.ArrayLike, groups: npt.ArrayLike) -> Agreement:
    """Return how often the nearest other vector, by cosine, is of the same group.

    Args:
        vectors: (N, D). Zeros are as near to one as to another.
        groups: Group of each vector, (N,). A vector that is alone in its group is a neighbour of
            others, but is not asked for its own.

    Raises:
        ValueError: If the numbers differ or every vector is alone in its group.
    """
    rows, labels = np.asarray(vectors, dtype=np.float64), np.asarray(groups)
    if rows.ndim != 2 or labels.shape != rows.shape[:1]:
        raise ValueError(
            f"Give a group for each vector: {labels.shape} groups, {rows.shape} vectors."
        )
    same = labels[:, None] == labels
    np.fill_diagonal(same, False)
    asked = same.any(axis=1)
    if not asked.any():
        raise ValueError(
            "No two vectors are of one group, so that none can have a neighbour in it."
        )
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.where(norms == 0, 1, norms)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    nearest = cosines.argmax(axis=1)
    found = same[np.arange(len(rows)), nearest][asked]
    chance = same[asked].sum(axis=1) / (len(rows) - 1)
    return Agreement(float(found.mean()), float(chance.mean()))


def preference(scores: npt.ArrayLike) -> Agreement:
    """Return how often the first of several scores is the highest.

    Args:
        scores: (N, K), such as log-likelihoods of a true text and of K - 1 others. A tie of the first
            with m others counts 1 / (m + 1).

    Raises:
        ValueError: If there is nothing to choose from.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or not len(values) or values.shape[1] < 2:
        raise ValueError(
            f"A choice needs two scores or more in a row, but the shape is {values.shape}."
        )
    best = values.max(axis=1, keepdims=True)
    ties = (values == best).sum(axis=1)
    return Agreement(float(((values[:, 0] == best[:, 0]) / ties).mean()), 1 / values.shape[1])
