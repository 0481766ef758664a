"""All scores of a collection of generated images, each named with the number of images behind it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hf_genmodels.metrics.class_scores import class_accuracy, diversity_by_class, frechet_by_class
from hf_genmodels.metrics.frechet_distance.gaussian_distance import frechet_distance
from hf_genmodels.metrics.image_features import Features, halves
from hf_genmodels.metrics.inception_score.class_confidence import inception_score
from hf_genmodels.metrics.kernel_distance.polynomial_kernel import kernel_distance
from hf_genmodels.metrics.precision_recall.manifolds import precision_recall

MOST_COMPARED = 5000  # samples of each side whose neighbours are looked for
MOST_IN_SUBSET = 1000
NEIGHBOURS = 5
SPLITS = 10


@dataclass
class Quality:
    """Scores of generated images.

    Attributes:
        scores: From name to score, such as `fid_5000` over 5,000 generated images.
        by_class: From the name of a score to its value for each class.
        left_out: From the name of what could not be measured to why.
    """

    scores: dict[str, float]
    by_class: dict[str, dict[int, float]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def image_quality(
    generated: Features,
    real: Features,
    labels: npt.ArrayLike | None = None,
    real_labels: npt.ArrayLike | None = None,
    *,
    seed: int = 0,
    distance: str = "fid",
) -> Quality:
    """Compare generated with real images in every way that their number and labels allow.

    Scores: `fid`, `kid` and `kid_standard_error`, `precision`, `recall`, `density` and `coverage` (over
    as many images on both sides); with classes `inception_score`; with labels `accuracy`,
    `class_fid` and `diversity` (means over the classes). Each name ends in the number of generated
    images that it was measured on.

    Args:
        generated: Features of generated images.
        real: Of real ones.
        labels: What each generated image was asked to be: classes (N,) or attributes (N, K).
        real_labels: The same of the real images; only classes are compared.
        seed: Seed of the choice of images where not all are compared.
        distance: What to call the Fréchet distance: `fid`, or `fvd` where clips are compared.
    """
    quality = Quality({})
    frechet = lambda: {distance: frechet_distance(generated.features, real.features)}
    _measure(quality, distance, len(generated), frechet)
    _measure(quality, "kid", len(generated), lambda: _kernel(generated, real, seed))
    fewest = min(len(generated), len(real), MOST_COMPARED)
    ours, theirs = _some(generated, fewest, seed), _some(real, fewest, seed + 1)
    _measure(quality, "precision", fewest, lambda: _overlap(ours, theirs))
    shares = generated.probabilities
    if shares is not None and np.allclose(shares.sum(axis=1), 1, atol=1e-3):
        _measure(quality, "inception_score", len(generated), lambda: _confidence(shares))
    if labels is not None:
        _by_label(quality, generated, real, np.asarray(labels), real_labels)
    return quality


def real_against_real(
    real: Features,
    labels: npt.ArrayLike | None = None,
    *,
    seed: int = 0,
    distance: str = "fid",
) -> Quality:
    """Compare two halves of the real images: the best that any generator can reach, as far as is known.

    Args:
        real: Features of real images.
        labels: Their labels, see `image_quality`.
        seed: Seed of the split.
        distance: See `image_quality`.

    Raises:
        ValueError: If there are fewer than two images.
    """
    first, second = halves(len(real), seed)
    ours, theirs = real.take(first), real.take(second)
    if labels is None:
        return image_quality(ours, theirs, seed=seed, distance=distance)
    known = np.asarray(labels)
    return image_quality(ours, theirs, known[first], known[second], seed=seed, distance=distance)


def _measure(
    quality: Quality, name: str, samples: int, measure: Callable[[], dict[str, float]]
) -> None:
    """Add scores, or the reason why there are none."""
    try:
        found = measure()
    except ValueError as error:
        quality.left_out[name] = str(error)
        return
    quality.scores.update({f"{key}_{samples}": value for key, value in found.items()})


def _kernel(generated: Features, real: Features, seed: int) -> dict[str, float]:
    """Measure on subsets of at most half the images, so that there is an error."""
    size = max(2, min(MOST_IN_SUBSET, len(generated) // 2, len(real) // 2))
    found = kernel_distance(generated.features, real.features, subset_size=size, seed=seed)
    if math.isnan(found.standard_error):
        return {"kid": found.distance}
    return {"kid": found.distance, "kid_standard_error": found.standard_error}


def _overlap(generated: Features, real: Features) -> dict[str, float]:
    return precision_recall(generated.features, real.features, NEIGHBOURS)._asdict()


def _confidence(probabilities: npt.ArrayLike) -> dict[str, float]:
    return {"inception_score": inception_score(probabilities, SPLITS).score}


def _some(features: Features, number: int, seed: int) -> Features:
    """Draw some images, for files are often sorted by class."""
    if number == len(features):
        return features
    return features.take(np.random.default_rng(seed).permutation(len(features))[:number])


def _by_label(
    quality: Quality,
    generated: Features,
    real: Features,
    labels: npt.NDArray[np.int64],
    real_labels: npt.ArrayLike | None,
) -> None:
    """Add what needs to know what the images were asked to be."""
    samples = len(generated)
    if generated.probabilities is not None:
        accuracy = class_accuracy(generated.probabilities, labels)
        quality.scores[f"accuracy_{samples}"] = accuracy.accuracy
        quality.by_class["accuracy"] = dict(enumerate(accuracy.by_class.tolist()))
    if real_labels is None or labels.ndim > 1:
        return
    sides = (generated.features, labels, real.features, real_labels)
    for name, found in (
        ("class_fid", frechet_by_class(*sides)),
        ("diversity", diversity_by_class(*sides)),
    ):
        if not found:
            quality.left_out[name] = "No class has enough images on both sides."
            continue
        quality.scores[f"{name}_{samples}"] = float(np.mean(list(found.values())))
        quality.by_class[name] = found
