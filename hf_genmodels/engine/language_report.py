"""What people are told of a language model's run: what is trained on what, and its card."""

from __future__ import annotations

import logging
from typing import Any

from transformers import PreTrainedModel

from hf_genmodels.config.lm import TrainLMConfig
from hf_genmodels.config.run import file_names
from hf_genmodels.data.language import TextData
from hf_genmodels.data.pixels import PixelData
from hf_genmodels.engine.estimate import format_count
from hf_genmodels.engine.pixels import GRID
from hf_genmodels.engine.publishing import results_of, training_facts
from hf_genmodels.engine.run import Run
from hf_genmodels.hub.card import CardData, Sample
from hf_genmodels.hub.card_credit import credit_of
from hf_genmodels.hub.card_metrics import metrics_of

logger = logging.getLogger("hf_genmodels")


def describe(
    run: Run, config: TrainLMConfig, model: PreTrainedModel, data: TextData | PixelData
) -> None:
    """Say what is going to be trained on what."""
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    logger.info(
        "model: %s parameters%s, vocabulary %s, context %d, precision %s",
        format_count(total),
        "" if trained == total else f" ({format_count(trained)} trained)",
        f"{model.config.vocab_size:,}",
        config.block_size,
        run.accelerator.mixed_precision,
    )
    logger.info("data: %s", _data_in_words(config, data))
    logger.info(
        "%d steps of %s tokens on %d process%s, into %s%s",
        config.max_steps,
        f"{config.global_batch_size * config.block_size:,}",
        run.accelerator.num_processes,
        "es" if run.accelerator.num_processes > 1 else "",
        run.output_dir,
        f"; going on after step {run.state.step}" if run.state.step else "",
    )


def _data_in_words(config: TrainLMConfig, data: TextData | PixelData) -> str:
    """Return how much there is to train and to validate on."""
    if isinstance(data, PixelData):
        return data.in_words
    tokens = f"{len(data.windows):,} windows" if data.windows is not None else "a stream"
    validation = f"{len(data.validation):,} windows" if data.validation is not None else "none"
    return f"{tokens} of {config.block_size} tokens to train on, {validation} to validate on"


def card_of(
    run: Run, config: TrainLMConfig, model: PreTrainedModel, data: TextData | PixelData
) -> CardData:
    """Gather what the model card says."""
    results = results_of(run)
    source = config.dataset_name or file_names(config.train_file)
    step_tokens = config.global_batch_size * config.block_size
    return CardData(
        name=run.output_dir.resolve().name,
        license=config.license,
        base_model=config.model_name_or_path,
        model_id=config.hub_model_id,
        datasets=[config.dataset_name] if config.dataset_name else [],
        training_data={"source": source, **_data_facts(config, data)},
        credit=credit_of(config.train_file),
        training=training_facts(run, config.optim, config.schedule, step_tokens),
        metrics=metrics_of(results, data.validation_name),
        samples=[Sample(**sample) for sample in results.get("samples", [])],
        prompt=next(iter(results.get("prompts", [])), ""),
        num_parameters=sum(p.numel() for p in model.parameters()),
    )


def _data_facts(config: TrainLMConfig, data: TextData | PixelData) -> dict[str, Any]:
    """Return facts about the training data, for the card."""
    if isinstance(data, PixelData):
        return data.facts
    windows = "a stream" if data.windows is None else f"{len(data.windows):,}"
    return {"windows": windows, "window": config.block_size}


def example_of(data: TextData | PixelData) -> list[str]:
    """Return arguments of `genmodels generate` to try the model with."""
    if isinstance(data, PixelData):
        return [*data.prompts(1), "--num_images", "16", "--grid", "grid.png"]
    return ["Once upon a time"]


def picture_of(data: TextData | PixelData) -> str:
    """Return what to look at in the report."""
    return GRID if isinstance(data, PixelData) else "loss_curve.png"
