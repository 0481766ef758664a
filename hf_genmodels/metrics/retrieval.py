"""How often an image finds its own text among others (R-precision)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hf_genmodels.metrics.bootstrap import bootstrap_scores, interval

CANDIDATES = 100


class Retrieval(NamedTuple):
    """How well images find their texts.

    Attributes:
        precision: Share of images that their own text suits best; where k texts tie for the best
            place, 1 / k of the image counts.
        low: Lower end of its 95 % interval over the images.
        high: Upper end.
        chance: The same share by guessing.
        median_rank: Median rank of the own text, 1 for the best, in the middle of those it ties with.
        candidates: Texts that each image was compared with, its own among them.
        images: Number of images.
    """

    precision: float
    low: float
    high: float
    chance: float
    median_rank: float
    candidates: int
    images: int


def retrieval_precision(
    similarities: npt.ArrayLike,
    texts: npt.ArrayLike,
    *,
    candidates: int = CANDIDATES,
    seed: int = 0,
    resamples: int = 1000,
) -> Retrieval:
    """Rank each image's own text among others that are drawn for it, and say how sure the result is.

    Args:
        similarities: How well each image goes with each text, (N, M); the M texts differ.
        texts: Which text belongs to each image: column numbers, (N,).
        candidates: Texts to choose from, the image's own included; all M where there are no more.
        seed: Seed of the draws of texts and of the interval.
        resamples: Resamples of the interval (`bootstrap_scores`).

    Raises:
        ValueError: If the shapes do not fit or there are no others.
    """
    compared = min(candidates, np.shape(similarities)[-1])
    above, ties = _rivals(similarities, texts, compared, seed)
    hits = np.where(above == 0, 1 / (1 + ties), 0.0)
    counts = np.stack([hits, np.ones_like(hits)], axis=1)
    share = lambda sums: sums[0] / sums[1]
    ends = interval(bootstrap_scores(counts, share, resamples=resamples, seed=seed))
    rank = float(np.median(1 + above + ties / 2))
    precision = float(hits.mean())
    return Retrieval(precision, ends.low, ends.high, 1 / compared, rank, compared, len(hits))


def retrieval_hits(
    similarities: npt.ArrayLike,
    texts: npt.ArrayLike,
    candidates: int = CANDIDATES,
    seed: int = 0,
) -> npt.NDArray[np.float64]:
    """Return for each image whether its own text suits it better than others do.

    As the R-precision of Xu et al. 2018 (AttnGAN, arXiv:1711.10485): the others are drawn at random, and a
    text that equals the image's own is none of them. A tie counts as the share of the tied ones.

    Args:
        similarities: How well each image goes with each text, (N, M); the M texts differ.
        texts: Which text belongs to each image: column numbers, (N,).
        candidates: Texts to choose from, the image's own included; at most M.
        seed: Seed of the draws.

    Returns:
        1, 0 or a share for a tie, (N,); the mean is the retrieval precision, and a guess is right once
        in `candidates`.

    Raises:
        ValueError: If the shapes do not fit or there are no others.
    """
    above, ties = _rivals(similarities, texts, candidates, seed)
    return np.where(above == 0, 1 / (1 + ties), 0.0)


def unique_texts(texts: Sequence[str]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Return the different texts in their order, and the number of each given one among them, (N,)."""
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    return list(places), np.array([places[text] for text in texts], dtype=np.int64)


def _rivals(
    similarities: npt.ArrayLike,
    texts: npt.ArrayLike,
    candidates: int,
    seed: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return for each image how many of the drawn texts suit it better than its own, and as well."""
    scores = np.asarray(similarities, dtype=np.float64)
    own = np.asarray(texts, dtype=np.int64)
    if scores.ndim != 2 or own.shape != scores.shape[:1]:
        raise ValueError(
            f"Give (N, M) similarities and N columns, not {scores.shape}, {own.shape}."
        )
    columns = scores.shape[1]
    if not 2 <= candidates <= columns:
        raise ValueError(f"candidates={candidates} must be between 2 and the {columns} texts.")
    generator = np.random.default_rng(seed)
    above, ties = np.empty((2, len(scores)), dtype=np.int64)
    for row, (values, column) in enumerate(zip(scores, own, strict=True)):
        others = generator.choice(columns - 1, candidates - 1, replace=False)
        rivals = values[others + (others >= column)]
        above[row] = (rivals > values[column]).sum()
        ties[row] = (rivals == values[column]).sum()
    return above, ties
