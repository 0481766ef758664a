"""Can generated texts be told from real ones? A classifier that is trained for nothing else.

A two-sample test by a classifier (Lopez-Paz and Oquab 2017, arXiv:1610.06545): it learns from some of
the texts, and its accuracy on others says how much the two kinds differ. Nobody can do better than 0.5
where they do not. The classifier is logistic regression on n-grams of words in a hashed table, as in
fastText (Joulin et al. 2017, arXiv:1607.01759): unlike a network that a generator was trained against,
it knows nothing of the generator, not even its tokens.

Letters: N texts, G n-grams of a text.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from hf_genmodels.metrics.bootstrap import bootstrap_scores, interval

_UNITS = re.compile(r"\w+|[^\w\s]")
NUM_BUCKETS = 1 << 18
MAX_N = 3
EPOCHS = 20
BATCH_SIZE = 64
LEARNING_RATE = 0.01
WEIGHT_DECAY = 0.1


@dataclass(frozen=True)
class Discernment:
    """How well real and generated texts can be told apart.

    Attributes:
        accuracy: Share of held-out texts that were judged rightly; 0.5 is guessing.
        low: Lower end of its 95 % interval, by a bootstrap over pairs.
        high: Upper end.
        num_pairs: Held-out pairs of a real and a generated text.
    """

    accuracy: float
    low: float
    high: float
    num_pairs: int


def real_or_generated(
    real: Sequence[str],
    generated: Sequence[str],
    *,
    held_out: float = 0.5,
    contexts: Sequence[str] | None = None,
    seed: int = 0,
) -> Discernment:
    """Train a classifier on some pairs of texts, and measure it on the others.

    Args:
        real: Real texts.
        generated: As many generated ones, row i behind the same beginning as row i of the real ones.
        held_out: Share of the pairs, at the end, on which the classifier is measured.
        contexts: Beginnings of the pairs; their last words are then seen with the texts.
        seed: Seed of the order of the texts and of the bootstrap.

    Returns:
        The accuracy and its interval.

    Raises:
        ValueError: If the numbers differ, or there are fewer than four pairs.
    """
    if len(real) != len(generated):
        raise ValueError(f"{len(real)} real and {len(generated)} generated texts are no pairs.")
    measured = round(len(real) * held_out)
    if not 2 <= measured <= len(real) - 2:
        raise ValueError(
            f"{len(real)} pairs are too few, or held_out={held_out} does not part them."
        )
    before = contexts if contexts is not None else [""] * len(real)
    rows = [
        [ngram_buckets(own, b) for own, b in zip(t, before, strict=True)] for t in (real, generated)
    ]
    split = len(real) - measured
    classifier = _trained(rows[0][:split], rows[1][:split], seed)
    with torch.no_grad():
        scores = [classifier(*_bag(kind[split:])).squeeze(1).numpy() for kind in rows]
    # Of each pair; where nothing of a text was ever seen, one half.
    right = (2 + np.sign(scores[0]) - np.sign(scores[1])) / 4
    counts = np.stack([right, np.ones_like(right)], axis=1)
    bounds = interval(bootstrap_scores(counts, lambda sums: sums[0] / sums[1], seed=seed))
    return Discernment(float(right.mean()), bounds.low, bounds.high, measured)


def ngram_buckets(text: str, context: str = "", max_n: int = MAX_N) -> list[int]:
    """Return the rows of the table for the n-grams that end in a text, each once.

    Args:
        text: The text.
        context: What stands before it; its last words begin the first n-grams.
        max_n: Longest n-gram.
    """
    before = _UNITS.findall(context)[-(max_n - 1) :] if max_n > 1 else []
    units = before + _UNITS.findall(text)
    found = {
        zlib.crc32("\0".join(units[end - n : end]).encode()) % NUM_BUCKETS
        for end in range(len(before) + 1, len(units) + 1)
        for n in range(1, min(max_n, end) + 1)
    }
    return sorted(found)


def _trained(
    real: Sequence[list[int]], generated: Sequence[list[int]], seed: int
) -> nn.EmbeddingBag:
    """Return a table of the weights of all n-grams, whose mean in a text is positive if it is real."""
    texts = [*real, *generated]
    labels = torch.tensor([1.0] * len(real) + [0.0] * len(generated))
    classifier = nn.EmbeddingBag(NUM_BUCKETS, 1, mode="sum")
    nn.init.zeros_(classifier.weight)
    used = torch.tensor(sorted({bucket for text in texts for bucket in text}))
    # A dense table with decoupled decay of the rows that occur; the others stay 0.
    optimizer = torch.optim.SparseAdam(classifier.parameters(), lr=LEARNING_RATE)
    classifier.sparse = True
    random = torch.Generator().manual_seed(seed)
    for _ in range(EPOCHS):
        order = torch.randperm(len(texts), generator=random)
        for chosen in order.split(BATCH_SIZE):
            scores = classifier(*_bag([texts[index] for index in chosen])).squeeze(1)
            loss = F.binary_cross_entropy_with_logits(scores, labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            classifier.weight[used] *= 1 - WEIGHT_DECAY
    return classifier.requires_grad_(False)


def _bag(texts: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the n-grams of several texts behind each other, and where each text begins."""
    lengths = torch.tensor([0, *(len(text) for text in texts[:-1])])
    return torch.tensor([bucket for text in texts for bucket in text]), lengths.cumsum(0)
