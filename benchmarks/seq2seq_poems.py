"""What the contrastive loss and unlikelihood change in models that write poems on.

Models of the preset `poems` are trained with the same pairs, steps, order and seed: with neither loss,
with one of them, with both. A variant is CONTRASTIVE:UNLIKELIHOOD, the weights, or with a temperature
CONTRASTIVE:UNLIKELIHOOD:TEMPERATURE.

    python benchmarks/seq2seq_poems.py                                     bundled poems
    python benchmarks/seq2seq_poems.py --variants 0:0 1:0:0.05 1:0:0.2     other weights
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from hf_genmodels.config.parser import parse_config
from hf_genmodels.config.seq2seq import TrainSeq2SeqConfig
from hf_genmodels.data.buckets import evaluation_batches, pair_loader
from hf_genmodels.data.pair_cache import PairCache
from hf_genmodels.data.seq2seq import Counts, PairBatches, PairData, count_items, load_pair_data
from hf_genmodels.engine.objective import compute_losses
from hf_genmodels.engine.optim import build_optimizer, build_schedule
from hf_genmodels.engine.seq2seq import build_tokenizers, new_or_pretrained_model
from hf_genmodels.inference.seq2seq_scores import target_losses
from hf_genmodels.inference.text_to_text import TextToText
from hf_genmodels.losses.contrastive import pooled
from hf_genmodels.metrics.distinct_n.distinct_counts import distinct_n, self_repetition
from hf_genmodels.metrics.grouped import neighbour_agreement, preference
from hf_genmodels.metrics.translation import corpus_scores
from hf_genmodels.training.train_seq2seq import PRESETS

VARIANTS = ("0:0", "0.1:0", "0:0.1", "0.1:0.1")
CHOICES = 8  # continuations, or openings, of which one is the true one
SAMPLING = {"do_sample": True, "top_k": 0, "top_p": 0.9, "temperature": 1.0, "num_beams": 1}
COLUMNS = {
    "loss": ("loss", "{:.3f}"),
    "chrf": ("chrF", "{:.2f}"),
    "bleu": ("BLEU", "{:.2f}"),
    "distinct_1": ("distinct-1", "{:.3f}"),
    "distinct_2": ("distinct-2", "{:.3f}"),
    "repetition": ("repeated", "{:.3f}"),
    "sampled_distinct_2": ("sampled: distinct-2", "{:.3f}"),
    "sampled_repetition": ("repeated", "{:.3f}"),
    "continuation": ("continuation of 8", "{:.1%}"),
    "opening": ("opening of 8", "{:.1%}"),
    "neighbour": ("neighbour's author", "{:.1%}"),
    "seconds": ("CPU s", "{:.0f}"),
}


@dataclass(frozen=True)
class Poems:
    """The pairs of all variants, and for each validation pair some of other authors.

    Attributes:
        data: Training and validation pairs.
        system: The tokenizers, and the model that is measured.
        others: (N, CHOICES - 1) indices of validation pairs of other authors, whose continuations
            have about as many characters.
    """

    data: PairData
    system: TextToText
    others: np.ndarray


def weights_of(variant: str) -> tuple[str, str, str]:
    """Return the contrastive weight, the weight of unlikelihood and the temperature."""
    contrastive, unlikelihood, *temperature = variant.split(":")
    return contrastive, unlikelihood, *(temperature or ["0.1"])


def name_of(variant: str) -> str:
    """Return a variant in words."""
    contrastive, unlikelihood, temperature = weights_of(variant)
    parts = [f"contrastive {contrastive} at {temperature}"] if float(contrastive) else []
    parts += [f"unlikelihood {unlikelihood}"] if float(unlikelihood) else []
    return ", ".join(parts) or "neither"


def config_of(args: argparse.Namespace, folder: str, variant: str) -> TrainSeq2SeqConfig:
    """Return the preset with the losses of a variant."""
    contrastive, unlikelihood, temperature = weights_of(variant)
    flags = [
        "--config=poems",
        f"--output_dir={folder}/run",
        f"--cache_dir={folder}/cache",
        f"--max_steps={args.steps}",
        f"--batch_tokens={args.batch_tokens}",
        f"--loss.contrastive_weight={contrastive}",
        f"--loss.contrastive_temperature={temperature}",
        f"--loss.unlikelihood_weight={unlikelihood}",
    ]
    if args.train_file:
        flags += [f"--train_file={args.train_file}", f"--validation_file={args.validation_file}"]
        flags.append(f"--max_eval_pairs={args.max_eval_pairs}")
    return parse_config(
        TrainSeq2SeqConfig, flags, command="benchmark", description="", presets=PRESETS
    )


def load_poems(config: TrainSeq2SeqConfig, folder: str) -> Poems:
    """Train the tokenizer, tokenise the poems, and choose what they are compared with."""
    tokenizers = build_tokenizers(config, Path(folder) / "tokenizer", show_progress=False)
    data = load_pair_data(config, tokenizers, show_progress=False)
    system = TextToText(None, tokenizers)
    return Poems(data, system, others_of(data.validation, system))


def others_of(pairs: PairCache, system: TextToText) -> np.ndarray:
    """Return for each pair those of other authors that are nearest in length, ties by lot."""
    length = np.array([len(system.decode_target(pairs.target(i))) for i in range(len(pairs))])
    lot = np.random.default_rng(0).random((len(pairs), len(pairs)))
    apart = np.abs(length[:, None] - length) + lot
    apart[pairs.groups[:, None] == pairs.groups] = np.inf
    return apart.argsort(axis=1)[:, : CHOICES - 1]


def train(config: TrainSeq2SeqConfig, poems: Poems, precision: str) -> tuple[Any, float]:
    """Return a trained model and the CPU seconds of its training."""
    torch.manual_seed(config.seed)
    tokenizers = poems.system.tokenizers
    model = new_or_pretrained_model(config, tokenizers).train()
    optimizer = build_optimizer(model, config.optim)
    schedule = build_schedule(optimizer, config.schedule, config.max_steps)
    batches = PairBatches(
        config,
        poems.data.train,
        pad_token_id=int(tokenizers.source.pad_token_id),
        seed=config.seed,
        with_groups=config.loss.uses_groups,
    )
    start = time.process_time()
    for _ in range(config.max_steps):
        batch = next(batches)
        counts: Counts = count_items(batch)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            losses = compute_losses(model, model, batch, counts, config.loss)
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optim.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
    return model.eval(), time.process_time() - start


def choices(system: TextToText, pairs: PairCache, others: np.ndarray) -> dict[str, float]:
    """Return how often the true continuation is the likeliest of 8, and the true opening.

    The first compares log p(continuation | opening) per token among continuations, whose common and
    rare characters matter too; the second compares it among openings, where only the opening does.
    """
    candidates = np.column_stack([np.arange(len(pairs)), others])  # (N, CHOICES)
    rows = np.repeat(np.arange(len(pairs)), CHOICES)
    columns = candidates.reshape(-1)

    def likelihoods(openings: np.ndarray, continuations: np.ndarray) -> np.ndarray:
        sources = [pairs.source(i).tolist() for i in openings]
        targets = [pairs.target(i).tolist() for i in continuations]
        losses = np.array(target_losses(system, sources, targets))
        return (-losses / pairs.target_lengths[continuations]).reshape(candidates.shape)

    of_continuations = likelihoods(rows, columns)
    lengths = pairs.target_lengths
    return {
        "loss": float(-(of_continuations[:, 0] * lengths).sum() / lengths.sum()),
        "continuation": preference(of_continuations).share,
        "opening": preference(likelihoods(columns, rows)).share,
    }


def encodings(system: TextToText, pairs: PairCache) -> np.ndarray:
    """Return the mean encoder state of each opening, (N, D)."""
    batches = evaluation_batches(pairs.source_lengths, pairs.target_lengths, 2048)
    vectors: list[torch.Tensor] = [torch.empty(0)] * len(pairs)
    pad = int(system.tokenizers.source.pad_token_id)
    loader = pair_loader(pairs, batches, pad_token_id=pad)
    for indices, batch in zip(batches, loader, strict=True):
        mask = batch["attention_mask"]
        states = system.model.get_encoder()(input_ids=batch["input_ids"], attention_mask=mask)
        found = pooled(states.last_hidden_state, mask)
        for index, vector in zip(indices, found, strict=True):
            vectors[index] = vector
    return torch.stack(vectors).numpy()


def variety(texts: Sequence[str]) -> dict[str, float]:
    """Return how various texts are, in characters."""
    return {
        "distinct_1": distinct_n(texts, 1, "character"),
        "distinct_2": distinct_n(texts, 2, "character"),
        "repetition": self_repetition(texts, 2, "character"),
    }


@torch.inference_mode()
def measure(model: Any, poems: Poems, seed: int, shown: int) -> dict[str, float]:
    """Return every figure of a model, and print some of its poems."""
    system = TextToText(model, poems.system.tokenizers)
    pairs = poems.data.validation
    sources = [pairs.source(i).tolist() for i in range(len(pairs))]
    references = [system.decode_target(pairs.target(i)) for i in range(len(pairs))]

    def written(**settings: Any) -> list[str]:
        torch.manual_seed(seed)
        found = system.search(sources, {"max_new_tokens": 96, **settings})
        return [system.decode_target(best[0].ids) for best in found]

    beams, sampled = written(num_beams=4, do_sample=False), written(**SAMPLING)
    for i in range(shown):
        opening = system.tokenizers.source.decode(sources[i], skip_special_tokens=True)
        print(f"  {opening} | true: {references[i]} | beam: {beams[i]} | sampled: {sampled[i]}")
    scores = corpus_scores(beams, references, tokenize="char", bootstrap=0)
    return {
        **choices(system, pairs, poems.others),
        "chrf": scores["chrf"],
        "bleu": scores["bleu"],
        **variety(beams),
        **{f"sampled_{name}": value for name, value in variety(sampled).items()},
        "neighbour": neighbour_agreement(encodings(system, pairs), pairs.groups).share,
    }


def cell(name: str, values: Sequence[float]) -> str:
    """Return the mean of a figure over seeds, and how far the seeds are apart."""
    form = COLUMNS[name][1]
    mean = form.format(statistics.mean(values))
    if len(values) < 2:
        return mean
    return f"{mean} ± {form.format((max(values) - min(values)) / 2)}"


def compare(args: argparse.Namespace, folder: str) -> list[str]:
    """Train and measure the variants seed by seed, and return the table."""
    poems = load_poems(config_of(args, folder, args.variants[0]), folder)
    pairs = poems.data.validation
    results: dict[str, list[dict[str, float]]] = {name: [] for name in args.variants}
    for seed in args.seeds:
        for name in args.variants:
            config = config_of(args, folder, name)
            config.seed = seed
            model, seconds = train(config, poems, args.precision)
            print(f"seed {seed}, {name_of(name)}", flush=True)
            found = measure(model, poems, seed, args.shown) | {"seconds": seconds}
            print(
                "  " + ", ".join(f"{key} {value:.4f}" for key, value in found.items()), flush=True
            )
            results[name].append(found)
    heads = [head for head, _ in COLUMNS.values()]
    lines = [
        f"{len(poems.data.train):,} training pairs, {len(pairs):,} validation pairs.",
        "",
        "| losses | " + " | ".join(heads) + " |",
        "|---" * (len(heads) + 1) + "|",
    ]
    for name, found in results.items():
        cells = [cell(column, [one[column] for one in found]) for column in COLUMNS]
        lines.append(f"| {name_of(name)} | " + " | ".join(cells) + " |")
    truth = variety([poems.system.decode_target(pairs.target(i)) for i in range(len(pairs))])
    chance = {
        "continuation": 1 / CHOICES,
        "opening": 1 / CHOICES,
        "neighbour": neighbour_agreement(np.ones((len(pairs), 1)), pairs.groups).chance,
    }
    for name, values in {"the true continuations": truth, "chance": chance}.items():
        cells = [cell(c, [values[c]]) if c in values else "" for c in COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Run the comparison and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--train_file", help="poems as JSON lines; the bundled ones by default")
    parser.add_argument("--validation_file", help="goes with --train_file")
    parser.add_argument("--max_eval_pairs", type=int, default=300, help="goes with --train_file")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), metavar="WEIGHTS")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch_tokens", type=int, default=1024)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--precision", choices=("no", "bf16"), default="bf16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shown", type=int, default=3, help="poems to print of each model")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    args = parser.parse_args()
    if bool(args.train_file) != bool(args.validation_file):
        parser.error("--train_file and --validation_file go together")
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()

    with tempfile.TemporaryDirectory() as folder:
        lines = compare(args, folder)
    heading = (
        f"Preset poems, {args.steps} steps of {args.batch_tokens:,} tokens, precision "
        f"{args.precision}, seeds {', '.join(map(str, args.seeds))}. {args.threads} thread(s), torch "
        f"{torch.__version__}, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}."
    )
    result = "\n".join([heading, "", *lines]) + "\n"
    print(result)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(result, encoding="utf-8")


if __name__ == "__main__":
    main()
