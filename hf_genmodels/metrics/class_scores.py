"""Scores of generated images class by class: are they of the class that was asked for, and do they vary?

Letters: N images, D features, K classes or attributes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hf_genmodels.metrics.frechet_distance.gaussian_distance import frechet_distance


class Accuracy(NamedTuple):
    """How often a judge sees what was asked for.

    Attributes:
        accuracy: Mean over all images, or over all attributes of all images.
        by_class: The same for each class or attribute, (K,); nan for a class nobody asked for.
    """

    accuracy: float
    by_class: npt.NDArray[np.float64]


def class_accuracy(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> Accuracy:
    """Compare what a judge sees in generated images with what was asked for.

    Collapse does not show in it: one good image of each class, drawn over and over, is right always.

    Args:
        probabilities: Of the classes, or of each attribute on its own, (N, K).
        labels: The class of each image, (N,), or its attributes, 0 or 1, (N, K); an attribute is seen
            from 0.5 on.

    Raises:
        ValueError: If the shapes do not fit.
    """
    shares, wanted = np.asarray(probabilities), np.asarray(labels)
    if shares.ndim != 2 or wanted.shape not in (shares.shape, shares.shape[:1]):
        raise ValueError(
            f"Give a label for each row of probabilities: {wanted.shape} labels, {shares.shape} rows."
        )
    if wanted.ndim == 2:
        right = (shares >= 0.5) == wanted.astype(bool)
        return Accuracy(float(right.mean()), right.mean(axis=0))
    right = shares.argmax(axis=1) == wanted
    by_class = [
        right[wanted == label].mean() if (wanted == label).any() else np.nan
        for label in range(shares.shape[1])
    ]
    return Accuracy(float(right.mean()), np.array(by_class))


def frechet_by_class(
    features: npt.ArrayLike,
    labels: npt.ArrayLike,
    references: npt.ArrayLike,
    reference_labels: npt.ArrayLike,
) -> dict[int, float]:
    """Return the Frechet distance of the generated from the real images of each class.

    Args:
        features: Of generated images, (N, D).
        labels: Their classes, (N,).
        references: Of real images, (M, D).
        reference_labels: Their classes, (M,).

    Returns:
        From class to distance, for the classes that have more than D images on both sides.

    Raises:
        ValueError: If the shapes do not fit.
    """
    sides = _by_class(features, labels, references, reference_labels)
    return {
        label: frechet_distance(generated, real)
        for label, generated, real in sides
        if min(len(generated), len(real)) > generated.shape[1]
    }


def spread(features: npt.ArrayLike) -> float:
    """Return the root mean square of the distances between all pairs of images.

    It is the root of twice the total unbiased variance, so no pair need be looked at.

    Args:
        features: Features or pixels, (N, D), at least two rows.

    Raises:
        ValueError: If there are fewer.
    """
    rows = np.asarray(features, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < 2:
        raise ValueError(f"A spread needs at least two images, (N, D), not {rows.shape}.")
    return float(np.sqrt(2 * rows.var(axis=0, ddof=1).sum()))


def diversity_by_class(
    features: npt.ArrayLike,
    labels: npt.ArrayLike,
    references: npt.ArrayLike,
    reference_labels: npt.ArrayLike,
) -> dict[int, float]:
    """Return the spread of the generated images of each class over that of the real ones.

    About 1 where images vary as real ones do, 0 where all are alike. Where there are no classes, give
    zeros as labels.

    Args:
        features: Features or pixels of generated images, (N, D).
        labels: Their classes, (N,).
        references: The same of real images, (M, D).
        reference_labels: Their classes, (M,).

    Returns:
        From class to ratio, for the classes with at least two images on both sides, of which the real
        ones differ.

    Raises:
        ValueError: If the shapes do not fit.
    """
    sides = _by_class(features, labels, references, reference_labels)
    spreads = {
        label: (spread(generated), spread(real))
        for label, generated, real in sides
        if min(len(generated), len(real)) > 1
    }
    return {label: ours / theirs for label, (ours, theirs) in spreads.items() if theirs > 0}


def _by_class(
    features: npt.ArrayLike,
    labels: npt.ArrayLike,
    references: npt.ArrayLike,
    reference_labels: npt.ArrayLike,
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield each class that both sides have, and the features of its images on both sides."""
    ours, theirs = np.asarray(features), np.asarray(references)
    our_labels, their_labels = np.asarray(labels), np.asarray(reference_labels)
    for rows, classes in ((ours, our_labels), (theirs, their_labels)):
        if rows.ndim != 2 or classes.shape != rows.shape[:1]:
            raise ValueError(
                f"Give a class for each row of features: {classes.shape} classes, {rows.shape} rows."
            )
    if ours.shape[1] != theirs.shape[1]:
        raise ValueError(
            f"Both sides need the same features, but have {ours.shape[1]} and {theirs.shape[1]}."
        )
    for label in np.intersect1d(our_labels, their_labels).tolist():
        yield label, ours[our_labels == label], theirs[their_labels == label]
