"""Measure a sequence-to-sequence model on pairs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from hf_genmodels.config.commands import refuse_options
from hf_genmodels.config.evaluate import OF_GANS, OF_LANGUAGE_MODELS, OF_PIXELS, EvaluateOptions
from hf_genmodels.config.parser import read_yaml
from hf_genmodels.data.buckets import collate_pairs
from hf_genmodels.data.packing import IGNORED
from hf_genmodels.data.pairs import Pair, PairSource
from hf_genmodels.errors import UserError
from hf_genmodels.hub.loading import is_checkpoint, run_folder
from hf_genmodels.inference.text_to_text import (
    Encoded,
    TextToText,
    chunks,
    load_text_to_text,
    moving,
)
from hf_genmodels.metrics.bootstrap import bootstrap_scores, interval
from hf_genmodels.metrics.distinct_n.distinct_counts import distinct_n
from hf_genmodels.metrics.rouge_l.common_subsequence import rouge_l
from hf_genmodels.metrics.translation import check_tokenize, corpus_scores
from hf_genmodels.models.decoding import batches_by_tokens

CHUNK = 2048
LOSS_BATCH_TOKENS = 2048
MAX_DISTINCT = 4
COLUMNS = ("source_column", "target_column", "source_lang", "target_lang", "text_column")
TRANSLATED = ("bleu", "chrf")


@dataclass
class Measured:
    """What was found out about pairs, in their order.

    Attributes:
        outputs: What the model made of the sources.
        references: The targets, as they stand in the data.
        losses: Summed negative log-likelihood of each target, in nats.
        tokens: Number of tokens of each target, its end included.
        empty: Pairs with an empty side, which were left out.
        cut_sources: Sources that were cut to the model's positions.
        cut_targets: Targets that were cut for the loss.
    """

    outputs: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    empty: int = 0
    cut_sources: int = 0
    cut_targets: int = 0


def evaluate(options: EvaluateOptions) -> dict[str, Any]:
    """Measure a model on pairs.

    Args:
        options: The model, the pairs and how to measure.

    Returns:
        `loss` (nats per target token, without label smoothing) and `perplexity`; for each metric its
        values; `num_pairs`, `num_tokens`, and how many pairs were left out or cut. `..._low` and
        `..._high` are 95 % confidence intervals by bootstrap over pairs.

    Raises:
        UserError: If the model or the pairs cannot be read, or they do not fit together.
    """
    refuse_options(
        options, {**OF_LANGUAGE_MODELS, **OF_GANS, **OF_PIXELS}, "a sequence-to-sequence model"
    )
    if any(name in TRANSLATED for name in options.metrics):
        check_tokenize(options.bleu_tokenizer)
    source = pair_source(options)
    system = load_text_to_text(options.model).placed(options.device, int8=options.int8)
    measured = measure(system, source, options)
    if not measured.outputs:
        raise UserError(
            f"There is nothing to measure on: all {measured.empty:,} pairs have an empty side."
        )
    return {
        **_loss(measured, options.seed),
        **_scores(measured, options),
        "num_pairs": len(measured.outputs),
        "num_tokens": sum(measured.tokens),
        "num_empty": measured.empty,
        "num_cut_sources": measured.cut_sources,
        "num_cut_targets": measured.cut_targets,
        "max_positions": system.limit,
    }


def pair_source(options: EvaluateOptions) -> PairSource:
    """Return where the pairs come from, checked.

    Where neither columns nor languages are named, they are those that the model was trained on, if its
    folder tells and the data have them.

    Raises:
        UserError: If the pairs cannot be read.
    """

    def source(names: dict[str, Any]) -> PairSource:
        found = PairSource(
            dataset_name=options.dataset_name,
            dataset_config_name=options.dataset_config_name,
            split=options.split,
            files=options.file,
            source_files=options.source_file,
            target_files=options.target_file,
            **names,
        )
        try:
            found.check()
        except UserError as error:
            # The flags of training have the same names behind `train_`.
            raise UserError(str(error).replace("--train_", "--")) from error
        return found

    given = {name: getattr(options, name) for name in (*COLUMNS, "split_at")}
    if not any(given[name] for name in COLUMNS) and not options.source_file:
        trained_on = _names_of_run(options.model)
        if any(trained_on.get(name) for name in COLUMNS):
            # These pairs may have other columns; what is wrong otherwise is found again below.
            with suppress(UserError):
                return source({**given, **trained_on})
    return source(given)


@torch.inference_mode()
def measure(system: TextToText, source: PairSource, options: EvaluateOptions) -> Measured:
    """Compute the loss of each target, and what the model makes of each source.

    Raises:
        UserError: If a text is too long and must not be cut, or the settings are impossible.
    """
    asked = {"num_beams": options.num_beams, "max_new_tokens": options.max_new_tokens}
    settings = {name: value for name, value in asked.items() if value is not None}
    settings["do_sample"] = False
    measured = Measured()
    read = 0
    with tqdm(total=_count(system, source, options), unit=" pairs", disable=None) as progress:
        for chunk in _chunks(source, options):
            numbers = [read + place for place, pair in enumerate(chunk, start=1) if not pair.empty]
            pairs = [pair for pair in chunk if not pair.empty]
            sources, targets = _encode(system, pairs, options, numbers)
            measured.losses += target_losses(system, sources.ids, targets.ids)
            measured.tokens += map(len, targets.ids)
            move = moving(progress)
            found = system.search(sources.ids, settings, progress=move)
            move(len(chunk))
            measured.outputs += [system.decode_target(best[0].ids) for best in found]
            measured.references += [pair.target for pair in pairs]
            measured.empty += len(chunk) - len(pairs)
            measured.cut_sources += sources.cut
            measured.cut_targets += targets.cut
            read += len(chunk)
    return measured


def target_losses(
    system: TextToText, sources: list[list[int]], targets: list[list[int]]
) -> list[float]:
    """Return the negative log-likelihood of each target given its source, in nats.

    Args:
        system: The model.
        sources: Token ids of each source.
        targets: Token ids of each target.
    """
    losses = [0.0] * len(sources)
    lengths = [max(map(len, pair)) for pair in zip(sources, targets, strict=True)]
    for rows in batches_by_tokens(lengths, LOSS_BATCH_TOKENS):
        examples = [
            {"source": np.asarray(sources[row]), "target": np.asarray(targets[row])} for row in rows
        ]
        batch = collate_pairs(examples, int(system.tokenizers.source.pad_token_id or 0))
        batch = {name: tensor.to(system.model.device) for name, tensor in batch.items()}
        logits = system.model(**batch).logits  # (B, T, V)
        labels = batch["labels"]
        each = cross_entropy(
            logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="none"
        )
        for row, loss in zip(rows, each.view_as(labels).double().sum(dim=1).tolist(), strict=True):
            losses[row] = loss
    return losses


def table(results: dict[str, Any]) -> str:
    """Return the results of `evaluate` as lines for a terminal."""
    lines = [
        f"loss            {results['loss']:.4f} nats per token{_around(results, 'loss', 4)}",
        f"perplexity      {results['perplexity']:.2f}{_around(results, 'perplexity', 2)}",
    ]
    for name, label in (("bleu", "BLEU"), ("chrf", "chrF")):
        if name in results:
            signature = results[f"{name}_signature"]
            lines.append(
                f"{label:<15} {results[name]:.2f}{_around(results, name, 2)}   {signature}"
            )
    if "rouge_l" in results:
        lines.append(f"ROUGE-L         {results['rouge_l']:.4f}{_around(results, 'rouge_l', 4)}")
    if "distinct_1" in results:
        ours, real = (
            " ".join(f"{results[f'{kind}_{n}']:.3f}" for n in range(1, MAX_DISTINCT + 1))
            for kind in ("distinct", "real_distinct")
        )
        lines.append(f"distinct 1-{MAX_DISTINCT}    {ours}   (the references: {real})")
    lines.append(
        f"measured        {results['num_pairs']:,} pairs, {results['num_tokens']:,} target tokens"
    )
    if results["num_empty"]:
        lines.append(f"left out        {results['num_empty']:,} pairs with an empty side")
    if results["num_cut_sources"] or results["num_cut_targets"]:
        lines.append(
            f"cut             {results['num_cut_sources']:,} sources and, for the loss, "
            f"{results['num_cut_targets']:,} targets, to {results['max_positions']:,} tokens"
        )
    return "\n".join(lines)


def _around(results: dict[str, Any], name: str, digits: int) -> str:
    low, high = (results[f"{name}_{end}"] for end in ("low", "high"))
    return f"   (95 %: {low:.{digits}f} to {high:.{digits}f})"


def _loss(measured: Measured, seed: int) -> dict[str, float]:
    """Return loss and perplexity, every token counting the same, with their intervals."""
    values = _mean("loss", measured.losses, measured.tokens, seed)
    return values | {
        name.replace("loss", "perplexity"): math.exp(min(value, 700.0))
        for name, value in values.items()
    }


def _mean(name: str, sums: Sequence[float], counts: Sequence[int], seed: int) -> dict[str, float]:
    """Return a mean over pairs, each with its count, and its interval."""
    statistics = np.array([sums, counts], dtype=np.float64).T
    around = interval(bootstrap_scores(statistics, lambda both: both[0] / both[1], seed=seed))
    mean = math.fsum(sums) / sum(counts)
    return {name: mean, f"{name}_low": around.low, f"{name}_high": around.high}


def _scores(measured: Measured, options: EvaluateOptions) -> dict[str, Any]:
    """Return the metrics that were asked for."""
    outputs, references = measured.outputs, measured.references
    results: dict[str, Any] = {}
    if any(name in TRANSLATED for name in options.metrics):
        scores = corpus_scores(outputs, references, options.bleu_tokenizer, seed=options.seed)
        results |= {
            name: value for name, value in scores.items() if name.split("_")[0] in options.metrics
        }
    if "rouge_l" in options.metrics:
        each = [
            rouge_l(output, [reference], options.unit)["f"]
            for output, reference in zip(outputs, references, strict=True)
        ]
        results |= _mean("rouge_l", each, [1] * len(each), options.seed)
    if "distinct_n" in options.metrics:
        for n in range(1, MAX_DISTINCT + 1):
            results[f"distinct_{n}"] = distinct_n(outputs, n, options.unit)
            results[f"real_distinct_{n}"] = distinct_n(references, n, options.unit)
    return results


def _names_of_run(model: str) -> dict[str, Any]:
    """Return the columns and languages that a run was given; nothing if this is no run's folder."""
    folder = Path(model).expanduser()
    file = (run_folder(folder) if is_checkpoint(folder) else folder) / "config.yaml"
    if not file.is_file():
        return {}
    values = read_yaml(file)
    return {name: values[name] for name in (*COLUMNS, "split_at") if name in values}


def _chunks(source: PairSource, options: EvaluateOptions) -> Iterator[list[Pair]]:
    return chunks(itertools.islice(source.all_pairs(), options.max_pairs), CHUNK)


def _encode(
    system: TextToText, pairs: Sequence[Pair], options: EvaluateOptions, numbers: Sequence[int]
) -> tuple[Encoded, Encoded]:
    """Return the tokens of both sides."""
    return (
        system.encode_sources([pair.source for pair in pairs], options.overlong, numbers),
        system.encode_targets([pair.target for pair in pairs], options.overlong, numbers),
    )


def _count(system: TextToText, source: PairSource, options: EvaluateOptions) -> int:
    """Return how many pairs there are; reads all of them, and so finds what cannot be read."""
    total = 0
    for chunk in _chunks(source, options):
        if options.overlong == "error":
            _encode(system, chunk, options, range(total + 1, total + len(chunk) + 1))
        total += len(chunk)
    return total
