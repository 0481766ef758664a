"""BLEU and chrF of translations, with confidence intervals: what reports, cards and commands give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hf_genmodels.errors import UserError, require_extra, suggest
from hf_genmodels.metrics.bleu.corpus_bleu import TOKENIZERS, bleu_metric
from hf_genmodels.metrics.bootstrap import bootstrap_scores, interval, share_of_wins
from hf_genmodels.metrics.chrf.corpus_chrf import chrf_metric


def check_tokenize(tokenize: str) -> None:
    """Refuse a tokenizer of BLEU that there is not, and a missing sacrebleu, before any work.

    Args:
        tokenize: What the user asked for.

    Raises:
        UserError: If it cannot be used.
    """
    require_extra("sacrebleu", "metrics")
    if tokenize not in TOKENIZERS:
        raise UserError(
            f"There is no BLEU tokenizer {tokenize!r}. {suggest(tokenize, TOKENIZERS)}"
            f"Choose from: {', '.join(TOKENIZERS)} (zh for Chinese)."
        )


def corpus_scores(
    hypotheses: Sequence[str],
    references: Sequence[str],
    tokenize: str = "13a",
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure BLEU and chrF of translations against one reference each.

    Args:
        hypotheses: Translations, not tokenised.
        references: Their references.
        tokenize: Tokenizer of BLEU, see `bleu_metric`.
        bootstrap: Resampled corpora for the 95 % confidence intervals; 0: no intervals.
        seed: Seed of the resampling.

    Returns:
        `num_sentences`, and for `bleu` and `chrf`: the score between 0 and 100, `..._low` and
        `..._high` (unless bootstrap is 0) and `..._signature`, sacrebleu's.

    Raises:
        UserError: If sacrebleu is missing or the tokenizer unknown.
        ValueError: If there are no sentences, or not as many on both sides.
    """
    results: dict[str, Any] = {"num_sentences": len(hypotheses)}
    for name, metric in _metrics(tokenize).items():
        results[name], scores = _measure(metric, hypotheses, references, bootstrap, seed)
        if bootstrap:
            around = interval(scores)
            results |= {f"{name}_low": around.low, f"{name}_high": around.high}
        results[f"{name}_signature"] = str(metric.get_signature())
    return results


def compare_systems(
    first: Sequence[str],
    second: Sequence[str],
    references: Sequence[str],
    tokenize: str = "13a",
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """Ask whether one system translates better than another, by paired bootstrap (Koehn 2004).

    Args:
        first: Translations of the first system.
        second: Translations of the second one, of the same sentences.
        references: Their references.
        tokenize: Tokenizer of BLEU, see `bleu_metric`.
        bootstrap: Resampled corpora, at least 1.
        seed: Seed of the resampling.

    Returns:
        For `bleu` and `chrf`: `..._difference` (first - second), `..._difference_low` and
        `..._difference_high` (95 %), and `..._wins`, see `share_of_wins`.

    Raises:
        UserError: If sacrebleu is missing or the tokenizer unknown.
        ValueError: If there are no sentences, or not as many everywhere.
    """
    results: dict[str, float] = {}
    for name, metric in _metrics(tokenize).items():
        whole, scores = _measure(metric, first, references, bootstrap, seed)
        other_whole, other_scores = _measure(metric, second, references, bootstrap, seed)
        around = interval(scores - other_scores)
        results |= {
            f"{name}_difference": whole - other_whole,
            f"{name}_difference_low": around.low,
            f"{name}_difference_high": around.high,
            f"{name}_wins": share_of_wins(scores, other_scores),
        }
    return results


def _metrics(tokenize: str) -> dict[str, Any]:
    check_tokenize(tokenize)
    return {"bleu": bleu_metric(tokenize), "chrf": chrf_metric()}


def _measure(
    metric: Any, hypotheses: Sequence[str], references: Sequence[str], resamples: int, seed: int
) -> tuple[float, npt.NDArray[np.float64]]:
    """Return the score of a corpus and those of its resamples, all by sacrebleu's metric."""
    if not hypotheses or len(hypotheses) != len(references):
        raise ValueError(
            f"Give a reference for each translation, and at least one: {len(hypotheses)} translations, "
            f"{len(references)} references."
        )

    def score(sums: Sequence[float]) -> float:
        return float(metric._compute_score_from_stats([round(value) for value in sums]).score)

    counts = metric._extract_corpus_statistics(list(hypotheses), [list(references)])
    whole = score([sum(column) for column in zip(*counts, strict=True)])
    if not resamples:
        return whole, np.empty(0)
    return whole, bootstrap_scores(counts, score, resamples=resamples, seed=seed)
