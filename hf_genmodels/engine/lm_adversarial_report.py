"""How texts of a generator compare with real ones while it is trained, its curves, and its health."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hf_genmodels.config.lm_adversarial import TrainLMAdversarialConfig
from hf_genmodels.data.language import TextData
from hf_genmodels.data.packing import PackedWindows, collate
from hf_genmodels.data.sampling import validation_loader
from hf_genmodels.data.seeding import mix_seed
from hf_genmodels.engine.evaluation import evaluate_language_model, sample_texts
from hf_genmodels.engine.lm_adversarial_step import evaluating
from hf_genmodels.engine.logging import warn_if_failing
from hf_genmodels.engine.report import (
    draw_lines,
    plot_training,
    read_metrics,
    write_results,
    write_samples,
)
from hf_genmodels.engine.run import Run
from hf_genmodels.engine.text_writing import beginnings_of, end_of_text, write
from hf_genmodels.errors import require_extra
from hf_genmodels.metrics.distinct_n.distinct_counts import distinct_n
from hf_genmodels.metrics.ngram_divergence.ngram_distributions import js_divergence, ngram_counts
from hf_genmodels.metrics.self_bleu.overlap import self_bleu
from hf_genmodels.metrics.text_health import text_health
from hf_genmodels.plots import new_figure, save_figure

logger = logging.getLogger("hf_genmodels")
CURVES = "curves.png"
MAX_N = 3
_SAMPLE_STREAM = 62


def validate(
    run: Run,
    config: TrainLMAdversarialConfig,
    generator: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    data: TextData,
) -> None:
    """Measure, write samples, judge the run's health, and report all of it; all ranks call it.

    Args:
        run: The run; it is stopped if it is unhealthy and that is asked for.
        config: Its options.
        generator: The generator, with the weights that would be published.
        tokenizer: Its tokenizer.
        data: The text.
    """
    measured = _measure(run, config, generator, tokenizer, data)
    if measured:
        run.state.record_eval(measured["eval_ngram_js"])
        run.metrics.write(run.state.step, measured)
        _announce(run, measured)
    prompts = config.sample.prompts if config.sample.max_new_tokens else []
    seed = config.seed + run.state.step
    texts = sample_texts(generator, tokenizer, prompts, config.sample, seed=seed) if prompts else []
    line = judge_health(run, config)
    if not run.is_main:
        return
    logger.info("step %d  health %s", run.state.step, line)
    samples = [{"prompt": p, "text": t} for p, t in zip(prompts, texts, strict=True)]
    results = {"step": run.state.step, "samples": samples, "health": line, **measured}
    with warn_if_failing(f"The report of step {run.state.step} was not written", OSError):
        if texts:
            write_samples(run.report_dir, run.state.step, prompts, texts)
        write_results(run.report_dir, results)


def judge_health(run: Run, config: TrainLMAdversarialConfig) -> str:
    """Say how a run is doing, and let it end if it is unhealthy and that is asked for; all ranks call it."""
    line, stops = "", False
    if run.is_main:
        history = read_metrics(run.output_dir / "metrics.jsonl")
        health = text_health(history, config.adversarial.leash)
        line, stops = health.line, health.status == "collapsed"
    line, stops = run.broadcast((line, stops))
    if stops and config.adversarial.stop_if_unhealthy:
        run.stop_reason, run.is_complete = f"health {line}", True
    return line


def continuations(
    generator: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    windows: PackedWindows,
    places: Sequence[int],
    config: TrainLMAdversarialConfig,
    temperature: float | None = None,
) -> list[tuple[str, str, str]]:
    """Let a generator go on from the beginnings of validation windows.

    Args:
        generator: The generator; its mode is restored.
        tokenizer: Its tokenizer.
        windows: Windows of real text.
        places: Numbers of the windows; the noise follows from seed and number alone.
        config: Lengths, temperature, seed and size of a batch.
        temperature: Another temperature.

    Returns:
        Beginning, how it really goes on, and what was written, for each.
    """
    options, eos = config.adversarial, end_of_text(generator)
    size = config.per_device_eval_batch_size or config.per_device_train_batch_size
    found: list[tuple[str, str, str]] = []
    for first in range(0, len(places), size):
        own = places[first : first + size]
        batch = collate(windows.__getitems__(list(own)))
        batch = {name: value.to(generator.device) for name, value in batch.items()}
        start = beginnings_of(batch, options.prompt_tokens, options.sample_tokens, eos)
        seeds = [mix_seed(config.seed, _SAMPLE_STREAM, place) >> 1 for place in own]
        with evaluating(generator):
            written = write(
                generator,
                start,
                options.sample_tokens,
                [torch.Generator().manual_seed(seed) for seed in seeds],
                temperature=temperature or options.temperature,
            )
        parts = (
            _decoded(tokenizer, start.ids, start.mask),
            _decoded(tokenizer, start.real_ids, start.real_kept),
            _decoded(tokenizer, written.ids, written.kept),
        )
        found += zip(*parts, strict=True)
    return found


def _decoded(
    tokenizer: PreTrainedTokenizerFast, ids: torch.Tensor, kept: torch.Tensor
) -> list[str]:
    rows = (row[mask] for row, mask in zip(ids, kept, strict=True))
    return [str(tokenizer.decode(row, skip_special_tokens=True)) for row in rows]


def spread(windows: PackedWindows, count: int) -> list[int]:
    """Return the numbers of so many windows at even distances, fewer if there are not as many."""
    return np.unique(np.linspace(0, len(windows) - 1, count).round().astype(int)).tolist()


def compare(texts: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return how written texts differ from real ones, and how varied both are.

    Returns:
        `ngram_js`, the mean Jensen-Shannon divergence in bits of words, pairs and triples of words;
        `distinct_2` and `self_bleu`, and the same of the real texts with `_real` behind the name.
    """
    return {
        "ngram_js": fmean(_divergence(texts, references, n) for n in range(1, MAX_N + 1)),
        "distinct_2": distinct_n(texts, 2),
        "distinct_2_real": distinct_n(references, 2),
        "self_bleu": self_bleu(texts),
        "self_bleu_real": self_bleu(references),
    }


def _divergence(texts: Sequence[str], references: Sequence[str], n: int) -> float:
    """Return the Jensen-Shannon divergence of n-grams; 1 where texts are too short to have any."""
    own, real = ngram_counts(texts, n), ngram_counts(references, n)
    return js_divergence(own, real) if own and real else 1.0


def plot_adversarial(metrics_path: Path, report_dir: Path) -> None:
    """Draw the curves of a language model, and `curves.png`: scores, entropy, divergences.

    Args:
        metrics_path: The run's `metrics.jsonl`.
        report_dir: Where the pictures go.

    Raises:
        UserError: If matplotlib is not installed.
    """
    require_extra("matplotlib", "plots")
    plot_training(metrics_path, report_dir)
    records = read_metrics(metrics_path)
    train = [record for record in records if "d_loss" in record]
    measured = [record for record in records if "eval_ngram_js" in record]
    if not train:
        return
    figure = new_figure(10.0, 7.0)
    (scores, accuracy), (own, distance) = figure.subplots(2, 2)
    draw_lines(scores, train, "Mean verdicts", {"real_score": "real", "fake_score": "written"})
    draw_lines(accuracy, train, "Pairs told apart", {"d_accuracy": "discriminator"})
    draw_lines(own, train, "Nats per token", {"entropy": "entropy", "kl": "KL from the start"})
    title = "n-gram divergence from real text (bits)"
    draw_lines(distance, measured, title, {"eval_ngram_js": "validation"})
    save_figure(figure, report_dir / CURVES)


def _measure(
    run: Run,
    config: TrainLMAdversarialConfig,
    generator: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    data: TextData,
) -> dict[str, float]:
    """Return `eval_loss` and how texts compare, the same on all ranks; nothing without validation text."""
    if data.validation is None:
        return {}
    rank, world_size = run.accelerator.process_index, run.accelerator.num_processes
    size = config.per_device_eval_batch_size or config.per_device_train_batch_size
    loader = validation_loader(data.validation, size, rank=rank, world_size=world_size)
    measured = evaluate_language_model(run, generator, loader, data.bytes_per_token)
    places = spread(data.validation, config.adversarial.eval_texts)[rank::world_size]
    rows = continuations(generator, tokenizer, data.validation, places, config)
    if world_size > 1:
        rows = gather_object(rows)
    rows.sort()  # the same whichever rank wrote them
    found = compare([row[2] for row in rows], [row[1] for row in rows])
    return {
        **measured,
        **{f"eval_{name}": value for name, value in found.items()},
        "eval_num_texts": len(rows),
    }


def _announce(run: Run, measured: dict[str, Any]) -> None:
    logger.info(
        "step %d  validation perplexity %.2f  n-gram divergence %.4f  distinct-2 %.3f (real %.3f)  "
        "self-BLEU %.3f (real %.3f)%s",
        run.state.step,
        *(measured[f"eval_{name}"] for name in ("perplexity", "ngram_js", "distinct_2")),
        *(measured[f"eval_{name}"] for name in ("distinct_2_real", "self_bleu", "self_bleu_real")),
        "  (best so far)" if run.state.best_step == run.state.step else "",
    )
