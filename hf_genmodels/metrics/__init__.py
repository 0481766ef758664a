"""Metrics of generated text and images, each an `evaluate` module in a folder of its own.

A folder loads offline with `evaluate.load(path)`, also where this package is not installed. The
functions beside each module need no `evaluate`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hf_genmodels.errors import UserError, require_extra, suggest

if TYPE_CHECKING:
    from evaluate import EvaluationModule

NAMES = (
    *("perplexity", "distinct_n", "ngram_divergence", "self_bleu", "bleu", "chrf", "rouge_l"),
    *("frechet_distance", "kernel_distance", "inception_score", "precision_recall"),
    *("psnr", "ssim"),
)
NEEDS_SACREBLEU = ("bleu", "chrf")


def load(name: str) -> EvaluationModule:
    """Load one of our metrics as an `evaluate` module, without the network.

    Args:
        name: One of `NAMES`.

    Returns:
        The metric; `metric.compute(...)` as its description says.

    Raises:
        UserError: If there is no such metric, or a library that it needs is not installed.
    """
    if name not in NAMES:
        raise UserError(
            f"There is no metric {name!r}. {suggest(name, NAMES)}Choose from: {', '.join(NAMES)}."
        )
    if name in NEEDS_SACREBLEU:
        require_extra("sacrebleu", "metrics")
    return require_extra("evaluate", "metrics").load(str(Path(__file__).parent / name))
