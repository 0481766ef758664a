"""Frechet distance between the normal distributions that fit two collections of features."""

from typing import Any, NamedTuple

import numpy as np


class Gaussian(NamedTuple):
    """The normal distribution that fits a collection.

    Attributes:
        mean: (D,).
        covariance: (D, D), unbiased.
        samples: Number of samples behind it.
    """

    mean: np.ndarray
    covariance: np.ndarray
    samples: int


def fit_gaussian(features: Any) -> Gaussian:
    """Fit a normal distribution in double precision.

    Args:
        features: Array or tensor, (N, D).

    Raises:
        ValueError: If the features are no finite matrix, or N is not more than D: a covariance of so
            few samples has directions without any variance, and a distance to it says nothing.
    """
    rows = np.asarray(features, dtype=np.float64)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise ValueError(f"Give a matrix (N, D) of finite features, not {rows.shape}.")
    samples, size = rows.shape
    if samples <= size:
        raise ValueError(
            f"A Frechet distance over {size} features needs more than {size} samples, {samples} are "
            "too few: give more, take a network with fewer features, or use the kernel distance."
        )
    mean = rows.mean(axis=0)
    centred = rows - mean
    return Gaussian(mean, centred.T @ centred / (samples - 1), samples)


def gaussian_distance(first: Gaussian, second: Gaussian) -> float:
    """Return |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) (Frechet 1957; Dowson and Landau 1982).

    As FID, the distance of generated from real images, it is due to Heusel et al. 2017,
    arXiv:1706.08500. The trace of the square root is the sum of the roots of the eigenvalues of the
    symmetric R S2 R with R R = S1, so that no general matrix square root is needed.

    Args:
        first: m1 and S1.
        second: m2 and S2.

    Returns:
        At least 0, in squared units of the features.

    Raises:
        ValueError: If the numbers of features differ.
    """
    if first.mean.shape != second.mean.shape:
        raise ValueError(
            "Both sides need the same features, but have "
            f"{len(first.mean)} and {len(second.mean)} of them."
        )
    values, vectors = np.linalg.eigh(first.covariance)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    product = root @ second.covariance @ root
    shared = np.sqrt(np.linalg.eigvalsh((product + product.T) / 2).clip(min=0)).sum()
    apart = np.square(first.mean - second.mean).sum()
    traces = np.trace(first.covariance) + np.trace(second.covariance)
    return max(float(apart + traces - 2 * shared), 0.0)


def frechet_distance(features: Any, references: Any) -> float:
    """Return the Frechet distance between two collections of features.

    Args:
        features: Of generated images, (N, D).
        references: Of real images, (M, D).

    Raises:
        ValueError: See `fit_gaussian` and `gaussian_distance`.
    """
    return gaussian_distance(fit_gaussian(features), fit_gaussian(references))
