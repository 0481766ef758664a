"""How often an image finds its own text among others."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np


def retrieval_hits(
    similarities: np.ndarray, texts: Sequence[Hashable], candidates: int = 100, seed: int = 0
) -> np.ndarray:
    """Return for each image whether its own text suits it better than others do.

    As the R-precision of Xu et al. 2018 (AttnGAN, arXiv:1711.10485): the others are drawn at random, and a
    text that equals the image's own is none of them. A tie counts as the share of the tied ones.

    Args:
        similarities: How well each image goes with each text, (N, M).
        texts: Which text belongs to each image: column numbers, (N,).
        candidates: Texts to choose from, the image's own included; at most M.
        seed: Seed of the draws.

    Returns:
        1, 0 or a share for a tie, (N,) float64; the mean is the retrieval precision, and a guess is right
        once in `candidates`.

    Raises:
        ValueError: If the shapes do not fit or there are no others.
    """
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
    hits = np.empty(len(scores))
    for row, (values, column) in enumerate(zip(scores, own, strict=True)):
        others = generator.choice(columns - 1, candidates - 1, replace=False)
        rivals = values[others + (others >= column)]
        better, equal = (rivals > values[column]).any(), (rivals == values[column]).sum()
        hits[row] = 0.0 if better else 1 / (1 + equal)
    return hits


def unique_texts(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return the different texts in their order, and the number of each given one among them, (N,)."""
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    return list(places), np.array([places[text] for text in texts], dtype=np.int64)
