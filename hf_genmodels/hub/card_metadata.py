"""The metadata on top of a model card, which the Hub reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from hf_genmodels.auto import FAMILIES
from hf_genmodels.hub.card_kinds import kind_of

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData
    from transformers import PreTrainedConfig

    from hf_genmodels.hub.card import CardData, Metric

METRIC_NAMES = {
    "bleu": "BLEU",
    "chrf": "chrF",
    "rouge_l": "ROUGE-L",
    "fid": "FID",
    "kid": "KID",
    "inception_score": "Inception score",
    "ngram_js": "n-gram Jensen-Shannon divergence",
    "distinct_2": "distinct-2",
    "self_bleu": "self-BLEU",
}


def metadata_of(card: CardData, config: PreTrainedConfig) -> ModelCardData:
    """Return a card's metadata; what is not known is left out.

    Args:
        card: What the card says.
        config: The model's configuration.
    """
    from huggingface_hub import ModelCardData

    kind = kind_of(config)
    task = card.task or kind.task
    ours = ["custom_code"] if config.model_type in FAMILIES else []
    tags = ["hf_genmodels", config.model_type, *kind.tags, *ours, *card.tags]
    languages = [card.source_language, card.target_language, *card.language]
    results = [_eval_result(metric, task) for metric in card.metrics]
    return ModelCardData(
        language=list(dict.fromkeys(filter(None, languages))) or None,
        license=card.license,
        library_name="transformers",
        pipeline_tag=task,
        tags=list(dict.fromkeys(tags)),
        datasets=[name for name in card.datasets if _is_on_hub(name)] or None,
        base_model=card.base_model if _is_on_hub(card.base_model) else None,
        model_name=card.name if results else None,
        eval_results=results or None,
    )


def metric_name(metric: Metric) -> str:
    """Return a metric's name as people write it, with the number of images that were drawn for it."""
    name = METRIC_NAMES.get(metric.type, metric.type.replace("_", " "))
    return name if metric.num_images is None else f"{name} of {metric.num_images:,} images"


def shown(name: str | None) -> str:
    """Return a name on the hub as it is, and the last part of a folder's path."""
    return str(name) if _is_on_hub(name) else Path(name or "").name


def _eval_result(metric: Metric, task: str) -> EvalResult:
    from huggingface_hub import EvalResult

    circumstances = {
        "signature": metric.signature or None,
        "confidence_interval_95": None if metric.low is None else [metric.low, metric.high],
        "num_tokens": metric.num_tokens,
        "num_sentences": metric.num_sentences,
        "num_images": metric.num_images,
        "features": metric.features or None,
        "real": metric.real,
    }
    known = {name: value for name, value in circumstances.items() if value is not None}
    return EvalResult(
        task_type=task,
        dataset_type=re.sub(r"[^\w./-]+", "-", metric.dataset).strip("-") or "text",
        dataset_name=metric.dataset,
        dataset_split=metric.split,
        metric_type=metric.type,
        metric_name=metric_name(metric),
        metric_value=metric.value,
        metric_args=known or None,
    )


def _is_on_hub(name: str | None) -> bool:
    """Tell a name on the hub from a folder of this machine, which is nobody else's business."""
    return bool(name) and not Path(str(name)).is_absolute() and not Path(str(name)).exists()
