"""The figures of a card, from what a run measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_genmodels.hub.card import Metric
from hf_genmodels.metrics.bootstrap import share_interval

BY_TOKENS = ("loss", "perplexity", "bits_per_byte")
BY_TASK = {"caption": ("loss",), "super_resolution": ("bits_per_dimension",)}  # of pictures
BY_SENTENCES = ("bleu", "chrf")
BY_TEXTS = ("ngram_js", "distinct_2", "self_bleu")
BY_IMAGES = ("fid", "precision", "recall", "coverage", "accuracy")
SHARES = ("precision", "accuracy")  # of the images that were drawn
ENDS = {"low": "eval_{}_low", "high": "eval_{}_high"}


def metrics_of(results: Mapping[str, Any], dataset: str, split: str = "validation") -> list[Metric]:
    """Return what was measured, with sample counts and intervals.

    Args:
        results: What stands in `report/results.json`; may be empty.
        dataset: What it was measured on, in words.
        split: Which part of it.
    """
    found: list[Metric] = []

    def add(names: tuple[str, ...], facts: Mapping[str, str]) -> None:
        """Take figures whose circumstances stand under other names, with {} for theirs."""
        for name in names:
            if f"eval_{name}" in results:
                given = {field: results.get(key.format(name)) for field, key in facts.items()}
                known: dict[str, Any] = {
                    field: value for field, value in given.items() if value is not None
                }
                if name in SHARES and "num_images" in known:
                    known = (
                        vars(share_interval(results[f"eval_{name}"], known["num_images"])) | known
                    )
                found.append(Metric(name, results[f"eval_{name}"], dataset, split, **known))

    add(BY_TOKENS, {"num_tokens": "eval_tokens", **ENDS})
    add(("bits_per_dimension",), {"num_tokens": "eval_tokens", **ENDS})
    for task, names in BY_TASK.items():
        tokens = {"num_tokens": f"eval_{task}_tokens", **ENDS}
        add(tuple(f"{task}_{name}" for name in names), tokens)
    sentences = {"num_sentences": "eval_num_sentences", "signature": "eval_{}_signature"}
    add(BY_SENTENCES, {**sentences, **ENDS})
    add(BY_TEXTS, {"num_sentences": "eval_num_texts", "real": "eval_{}_real"})
    images = {"num_images": "eval_num_samples", "features": "features", "real": "eval_{}_real"}
    add(BY_IMAGES, images)
    return found
