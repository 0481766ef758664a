"""Validation of a sequence-to-sequence model: its loss, its translations, and their pictures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn
from transformers import PreTrainedModel

from hf_genmodels.attention_map import draw_attention, token_labels
from hf_genmodels.config.seq2seq import TrainSeq2SeqConfig
from hf_genmodels.data.buckets import evaluation_batches, pair_loader
from hf_genmodels.data.packing import IGNORED
from hf_genmodels.data.seq2seq import PairData, Tokenizers
from hf_genmodels.engine.logging import warn_if_failing
from hf_genmodels.engine.mean_loss import MeanLoss
from hf_genmodels.engine.publishing import results_of, training_facts
from hf_genmodels.engine.report import write_results, write_translations
from hf_genmodels.engine.run import Run
from hf_genmodels.errors import UserError
from hf_genmodels.hub.card import CardData, Translation
from hf_genmodels.hub.card_credit import credit_of
from hf_genmodels.hub.card_metrics import metrics_of
from hf_genmodels.metrics.translation import corpus_scores
from hf_genmodels.models.decoding import decode

logger = logging.getLogger("hf_genmodels")
MAX_DRAWN_TOKENS = 40


def validate(
    run: Run,
    config: TrainSeq2SeqConfig,
    model: nn.Module,
    bare_model: PreTrainedModel,
    tokenizers: Tokenizers,
    data: PairData,
    *,
    what: str = "",
) -> bool:
    """Measure loss and translations, log both, and write the report; all ranks call it.

    Args:
        run: The run.
        config: Its options.
        model: The prepared model.
        bare_model: The same without wrappers.
        tokenizers: The model's tokenizers.
        data: The pairs.
        what: What is validated, if not the weights of this step.

    Returns:
        Whether these are the best weights so far.
    """
    measured: dict[str, Any] = evaluate_loss(run, config, model, tokenizers, data)
    translations: list[dict[str, str]] = []
    if config.translate.num_pairs:
        translations = translate(run, config, bare_model, tokenizers, data)
        with warn_if_failing(f"The translations of step {run.state.step} were not scored"):
            measured |= _scores(config, translations)
    best_before = run.state.best_value
    metric = config.metric_for_best
    if f"eval_{metric}" in measured:
        run.state.record_eval(measured[f"eval_{metric}"], higher_is_better=metric != "loss")
    is_best = run.state.best_value != best_before
    numbers = {name: value for name, value in measured.items() if not isinstance(value, str)}
    if not what:
        run.metrics.write(run.state.step, numbers)
    _announce(run, measured, what, is_best=is_best)
    if run.is_main and (is_best or not what):
        shown = translations[: config.translate.show]
        results = {"step": run.state.step, "translations": shown, **measured}
        with warn_if_failing(f"The report of step {run.state.step} was not written", OSError):
            write_results(run.report_dir, results)
            if shown:
                write_translations(run.report_dir, run.state.step, shown)
    if translations:
        with warn_if_failing("No attention map was drawn", (UserError, OSError)):
            _draw_attention(run, bare_model, tokenizers, data)
    return is_best


@torch.no_grad()
def evaluate_loss(
    run: Run,
    config: TrainSeq2SeqConfig,
    model: nn.Module,
    tokenizers: Tokenizers,
    data: PairData,
) -> dict[str, float]:
    """Return the validation loss without smoothing and its perplexity with intervals; see `MeanLoss`."""
    pairs = data.validation
    batches = evaluation_batches(
        pairs.source_lengths,
        pairs.target_lengths,
        config.eval_batch_tokens or config.batch_tokens,
        rank=run.accelerator.process_index,
        world_size=run.accelerator.num_processes,
    )
    was_training = model.training
    model.eval()
    losses = MeanLoss()
    for batch in pair_loader(pairs, batches, pad_token_id=int(tokenizers.source.pad_token_id)):
        tokens = int((batch["labels"] != IGNORED).sum())
        output = model(
            **run.to_device(batch), return_logits=False, label_smoothing=0.0, num_items_in_batch=1
        )
        losses.add(output.loss.item(), tokens)
    model.train(was_training)
    return losses.over_ranks(run)


def translate(
    run: Run,
    config: TrainSeq2SeqConfig,
    bare_model: PreTrainedModel,
    tokenizers: Tokenizers,
    data: PairData,
) -> list[dict[str, str]]:
    """Translate validation pairs, each rank some of them.

    Returns:
        `source`, `reference` and `output` of each pair, in order, on all ranks.
    """
    pairs = data.validation
    # Evenly over the validation pairs, which often stand in the order of a book.
    count = min(config.translate.num_pairs, len(pairs))
    chosen = [number * len(pairs) // count for number in range(count)]
    rank, world_size = run.accelerator.process_index, run.accelerator.num_processes
    # The ranks of a sharded model must take the same steps, and so translate the same.
    mine = chosen if run.accelerator.is_fsdp2 else chosen[rank::world_size]
    was_training = bare_model.training
    bare_model.eval()
    found = decode(
        bare_model,
        [pairs.source(index).tolist() for index in mine],
        num_beams=config.translate.num_beams,
        do_sample=False,
        max_new_tokens=config.max_target_length,
    )
    bare_model.train(was_training)
    outputs = [(index, hypotheses[0].ids) for index, hypotheses in zip(mine, found, strict=True)]
    if len(mine) < count:
        outputs = sorted(gather_object(outputs))

    def text(tokenizer: Any, ids: Sequence[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=True)).strip()

    return [
        {
            "source": text(tokenizers.source, pairs.source(index).tolist()),
            "reference": text(tokenizers.target, pairs.target(index).tolist()),
            "output": text(tokenizers.target, ids),
        }
        for index, ids in outputs
    ]


def card_of(
    run: Run,
    config: TrainSeq2SeqConfig,
    model: PreTrainedModel,
    data: PairData,
) -> CardData:
    """Gather what the model card says."""
    results = results_of(run)
    counts = data.train.counts
    return CardData(
        name=run.output_dir.resolve().name,
        license=config.license,
        task=_task_of(config),
        source_language=config.source_lang,
        target_language=config.target_lang,
        base_model=config.model_name_or_path
        or config.refine_from
        or config.decoder_from
        or config.encoder_from,
        model_id=config.hub_model_id,
        datasets=[config.dataset_name] if config.dataset_name else [],
        training_data={
            "source": config.train_names,
            "pairs": f"{len(data.train):,}",
            "too long, left out": f"{counts.dropped:,}",
            "truncated": f"{counts.truncated:,}",
            "empty, left out": f"{counts.empty:,}",
        },
        credit=credit_of(config.train_file),
        training=training_facts(
            run, config.optim, config.schedule, config.batch_tokens * config.batches_per_step
        ),
        metrics=metrics_of(results, data.validation_name),
        translations=[Translation(**pair) for pair in results.get("translations", [])],
        num_parameters=sum(p.numel() for p in model.parameters()),
    )


def _task_of(config: TrainSeq2SeqConfig) -> str:
    """Return what the model does, as the Hub calls it."""
    return "translation" if config.source_lang and config.target_lang else config.task


def _scores(config: TrainSeq2SeqConfig, translations: list[dict[str, str]]) -> dict[str, Any]:
    scores = corpus_scores(
        [pair["output"] for pair in translations],
        [pair["reference"] for pair in translations],
        tokenize=config.translate.bleu_tokenizer,
    )
    return {f"eval_{name}": value for name, value in scores.items()}


def _announce(run: Run, measured: dict[str, Any], what: str, *, is_best: bool) -> None:
    scores = "".join(
        f"  {label} {measured[f'eval_{name}']:.2f}"
        for name, label in (("bleu", "BLEU"), ("chrf", "chrF"))
        if f"eval_{name}" in measured
    )
    logger.info(
        "step %d%s  validation loss %.4f  perplexity %.2f%s%s",
        run.state.step,
        f", {what}" if what else "",
        measured["eval_loss"],
        measured["eval_perplexity"],
        scores,
        "  (best so far)" if is_best else "",
    )


def _draw_attention(
    run: Run, bare_model: PreTrainedModel, tokenizers: Tokenizers, data: PairData
) -> None:
    """Draw where the model looked while it translated the first validation pair of a fair length."""
    has_attention = bare_model.config.to_dict().get("attention") != "none"
    if not run.is_main or run.accelerator.is_fsdp2 or not has_attention:
        return
    lengths = data.validation.source_lengths
    fair = [
        index for index in range(min(len(lengths), 200)) if 4 <= lengths[index] <= MAX_DRAWN_TOKENS
    ]
    if not fair:
        return
    source = data.validation.source(fair[0]).tolist()
    was_training = bare_model.training
    bare_model.eval()
    (found,) = decode(
        bare_model,
        [source],
        num_beams=1,
        do_sample=False,
        max_new_tokens=MAX_DRAWN_TOKENS,
        return_attention=True,
    )
    bare_model.train(was_training)
    weights = found[0].attention
    if weights is None or not found[0].ids:
        return
    draw_attention(
        run.report_dir / "attention.png",
        token_labels(tokenizers.source, source),
        token_labels(tokenizers.target, found[0].ids)[: len(weights)],
        weights,
    )
