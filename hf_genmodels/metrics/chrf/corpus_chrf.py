"""chrF of a corpus (Popovic 2015), by sacrebleu (Post 2018), with its signature."""

import itertools
from collections.abc import Sequence
from typing import Any


def chrf_metric(word_order: int = 0, lowercase: bool = False) -> Any:
    """Return sacrebleu's chrF.

    Args:
        word_order: Longest n-gram of words that counts beside those of 1 to 6 characters: 0 is chrF, 2 is
            chrF++ (Popovic 2017).
        lowercase: Whether case does not matter.

    Raises:
        ValueError: If word_order is negative.
        ImportError: If sacrebleu is not installed.
    """
    if word_order < 0:
        raise ValueError(f"word_order={word_order} must not be negative.")
    from sacrebleu.metrics.chrf import CHRF

    return CHRF(word_order=word_order, lowercase=lowercase)


def corpus_chrf(
    predictions: Sequence[str],
    references: Sequence[str] | Sequence[Sequence[str]],
    word_order: int = 0,
    lowercase: bool = False,
) -> dict[str, Any]:
    """Score a corpus.

    Args:
        predictions: Translations, not tokenised.
        references: A reference for each, or a list of references for each; their numbers may differ.
        word_order: See `chrf_metric`.
        lowercase: Whether case does not matter.

    Returns:
        `chrf` between 0 and 100, and `signature`, which says how it was measured; give it wherever you
        give the score.

    Raises:
        ValueError: If word_order is negative.
    """
    metric = chrf_metric(word_order, lowercase)
    if isinstance(references[0], str):
        streams = [list(references)]
    else:
        streams = [list(stream) for stream in itertools.zip_longest(*references)]
    score = metric.corpus_score(list(predictions), streams)
    return {"chrf": score.score, "signature": str(metric.get_signature())}
