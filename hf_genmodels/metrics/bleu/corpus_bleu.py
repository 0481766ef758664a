"""BLEU of a corpus (Papineni et al. 2002), by sacrebleu (Post 2018), with its signature."""

import itertools
from collections.abc import Sequence
from typing import Any

# Those of sacrebleu that need neither a download nor another library.
TOKENIZERS = ("13a", "intl", "zh", "char", "none")


def bleu_metric(tokenize: str = "13a", lowercase: bool = False) -> Any:
    """Return sacrebleu's BLEU.

    Args:
        tokenize: `13a` (WMT's; most languages that put blanks between words), `intl` (Unicode
            punctuation and symbols), `zh` (Chinese: characters one by one, the rest as 13a), `char`
            (all characters one by one) or `none` (text that is tokenised already).
        lowercase: Whether case does not matter.

    Raises:
        ValueError: If the tokenizer is unknown.
        ImportError: If sacrebleu is not installed.
    """
    if tokenize not in TOKENIZERS:
        raise ValueError(f"tokenize={tokenize!r} is unknown. Choose from: {', '.join(TOKENIZERS)}.")
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize=tokenize, lowercase=lowercase)


def corpus_bleu(
    predictions: Sequence[str],
    references: Sequence[str] | Sequence[Sequence[str]],
    tokenize: str = "13a",
    lowercase: bool = False,
) -> dict[str, Any]:
    """Score a corpus.

    Args:
        predictions: Translations, not tokenised.
        references: A reference for each, or a list of references for each; their numbers may differ.
        tokenize: See `bleu_metric`.
        lowercase: Whether case does not matter.

    Returns:
        `bleu` between 0 and 100, `precisions` of 1- to 4-grams, `brevity_penalty`,
        `prediction_length` and `reference_length` in tokens, and `signature`, which says how it was
        measured; give it wherever you give the score.

    Raises:
        ValueError: If the tokenizer is unknown.
    """
    metric = bleu_metric(tokenize, lowercase)
    if isinstance(references[0], str):
        streams = [list(references)]
    else:
        streams = [list(stream) for stream in itertools.zip_longest(*references)]
    score = metric.corpus_score(list(predictions), streams)
    return {
        "bleu": score.score,
        "precisions": score.precisions,
        "brevity_penalty": score.bp,
        "prediction_length": score.sys_len,
        "reference_length": score.ref_len,
        "signature": str(metric.get_signature()),
    }
