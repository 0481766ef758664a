"""How much CPU time two recipes need to the same translations: Marian's and the preset `translation`.

Marian's recipe is transformers' MarianMTModel with Seq2SeqTrainer, batches grouped by length, AdamW,
inverse square root, label smoothing and dropout 0.1; batch size and warm-up were tuned for the time
that it gets. The preset is this package's. Same pairs, tokenizer, depth and width, both in fp32 on
one thread; measuring does not count. Every run is a process of its own, and seeds are interleaved.
BLEU is sacrebleu's on the test pairs; the loss is on the validation pairs, per token, unsmoothed.

    python benchmarks/seq2seq_quality.py --train_file train.jsonl ... --keep results_of_runs
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from seq2seq_common import (
    Clock,
    Pairs,
    bleu,
    data_flags,
    machine,
    marian_model,
    parser,
    quiet,
    show,
    token_batches,
    train_marian,
    translated,
    validation_loss,
    work_in_process,
)
from transformers import PreTrainedModel

from hf_genmodels.config.parser import parse_config
from hf_genmodels.config.seq2seq import TrainSeq2SeqConfig
from hf_genmodels.engine.kernels import bound_kernel_memory
from hf_genmodels.engine.optim import build_optimizer, build_schedule
from hf_genmodels.models.modeling_seq2seq import GenSeq2SeqForConditionalGeneration
from hf_genmodels.training.train_seq2seq import PRESETS

MARIAN = {"sampling": "group_by_length", "batch_size": 16, "lr": 1e-3, "warmup": 200}
SIDES = ("Marian's recipe", "translation")
SCORES = ("loss", "greedy", "beam5")


def measured(model: PreTrainedModel, pairs: Pairs, seconds: float) -> dict[str, float]:
    """Return the model's validation loss and BLEU at a time."""
    scores = {
        name: bleu(translated(model, pairs.test.source_ids, beams), pairs)
        for name, beams in (("greedy", 1), ("beam5", 5))
    }
    return {"seconds": seconds, "loss": validation_loss(model, pairs.validation), **scores}


def run_marian(pairs: Pairs, args: argparse.Namespace) -> dict[str, Any]:
    """Train Marian's recipe for the given time, measuring it at the end."""
    model = marian_model(args.size, pairs.tokenizer)
    curve: list[dict[str, float]] = []

    def measure(_step: int) -> None:
        curve.append(measured(model, pairs, clock.marks[-1]))

    clock = Clock(args.marian_seconds, [args.marian_seconds], measure)
    counts = train_marian(model, pairs, clock, max_steps=10**6, seed=args.seed, **MARIAN)
    if args.save:
        model.save_pretrained(args.save)
        pairs.tokenizer.save_pretrained(args.save)
    return {"curve": curve, "steps": len(counts), "tokens": sum(count[0] for count in counts)}


def preset(args: argparse.Namespace) -> TrainSeq2SeqConfig:
    """Return the preset with what was changed on the command line."""
    flags = ["--config=translation", f"--train_file={args.train_file}", *args.ours]
    config = parse_config(
        TrainSeq2SeqConfig, flags, command="benchmark", description="", presets=PRESETS
    )
    config.optim.muon_precision = "float32"  # nothing in bf16, as on a CPU without its units
    return config


def run_preset(pairs: Pairs, args: argparse.Namespace) -> dict[str, Any]:
    """Train the preset for a number of steps, measuring it at the end."""
    config, ids = preset(args), pairs.tokenizer
    model = GenSeq2SeqForConditionalGeneration(
        config.new_model_config(
            len(ids),
            bos_token_id=ids.bos_token_id,
            eos_token_id=ids.eos_token_id,
            pad_token_id=ids.pad_token_id,
            decoder_start_token_id=ids.bos_token_id,
        )
    )
    seconds, tokens = train_like(config, model, pairs, args.steps, args.seed)
    curve = [measured(model, pairs, seconds)]
    return {"curve": curve, "steps": args.steps, "tokens": tokens}


def train_like(
    config: TrainSeq2SeqConfig, model: PreTrainedModel, pairs: Pairs, steps: int, seed: int
) -> tuple[float, int]:
    """Train with the preset's optimiser and batches; return CPU seconds and target tokens."""
    bound_kernel_memory()
    optimizer = build_optimizer(model.train(), config.optim)
    schedule = build_schedule(optimizer, config.schedule, steps)
    counts: list[tuple[int, int, int]] = []
    batches, start = token_batches(pairs, config.batch_tokens, seed, counts), time.process_time()
    for _ in range(steps):
        model(**next(batches), use_cache=False).loss.backward()
        if config.optim.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.optim.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
    return time.process_time() - start, sum(count[0] for count in counts)


def work(args: argparse.Namespace) -> None:
    """Train one side in this process and print the result as JSON."""
    quiet(args.threads, args.seed)
    run = {SIDES[0]: run_marian, SIDES[1]: run_preset}[args.work]
    print(json.dumps(run(Pairs(args), args)))


def result_of(side: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Run a side in a process of its own, or take what an earlier call of this command kept."""
    kept = args.keep / f"{side.split()[0]}-{seed}.json" if args.keep else None
    if kept and kept.exists():
        return json.loads(kept.read_text(encoding="utf-8"))
    flags = [
        *data_flags(args),
        f"--seed={seed}",
        f"--steps={args.steps}",
        f"--marian_seconds={args.marian_seconds}",
        *(f"--ours={flag}" for flag in args.ours),
        f"--work={side}",
    ]
    result = work_in_process(__file__, flags, args.threads)
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(result), encoding="utf-8")
    return result


def shown(result: dict[str, Any]) -> str:
    """Return the curve of a run: loss, greedy and beam BLEU at CPU seconds."""
    points = (
        f"{p['loss']:.3f}, {p['greedy']:.2f}, {p['beam5']:.2f} @ {p['seconds']:.0f}"
        for p in result["curve"]
    )
    return "; ".join(points)


def rows_of(results: dict[int, list[dict[str, Any]]]) -> list[str]:
    """Return the Markdown rows of all seeds and one sentence about all of them."""
    rows, ends = [], []
    for seed, (marian, ours) in results.items():
        before, after = marian["curve"][-1], ours["curve"][-1]
        ends.append((before, after))
        gains = " | ".join(f"{after[name] - before[name]:+.2f}" for name in SCORES)
        rows.append(
            f"| {seed} | {shown(marian)} | {marian['steps']} | {shown(ours)} | {ours['steps']} "
            f"| {after['seconds'] / before['seconds']:.2f} | {gains} |"
        )
    share = statistics.median(after["seconds"] / before["seconds"] for before, after in ends)
    middle = ", ".join(
        f"{name} {statistics.mean(b[name] for b, _ in ends):.2f} and "
        f"{statistics.mean(a[name] for _, a in ends):.2f}"
        for name in SCORES
    )
    return [
        *rows,
        "",
        f"The preset had {share:.2f} of Marian's CPU time (median); means: {middle}.",
    ]


def table(results: dict[int, list[dict[str, Any]]], args: argparse.Namespace) -> Sequence[str]:
    """Return the whole report."""
    recipe = ", ".join(f"{name} {value}" for name, value in MARIAN.items())
    return [
        f"{Path(args.train_file).name}; Marian's recipe: {recipe}. {args.threads} thread(s), fp32. "
        f"Each point is loss, BLEU greedy, BLEU with 5 beams @ CPU seconds. {machine()}",
        "",
        "| seed | Marian's recipe | steps | translation | steps | CPU time | loss | BLEU greedy | "
        "BLEU beam 5 |",
        "|---|---|---|---|---|---|---|---|---|",
        *rows_of(results),
    ]


def main() -> None:
    """Run both sides for every seed and print one table."""
    flags = parser(__doc__)
    flags.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    flags.add_argument("--marian_seconds", type=float, default=600.0)
    flags.add_argument("--steps", type=int, default=100, help="steps of the preset")
    flags.add_argument("--ours", action="append", default=[], help="change the preset: one flag")
    flags.add_argument("--keep", type=Path, help="keep each run's result in this folder, and reuse")
    flags.add_argument("--save", help=argparse.SUPPRESS)
    flags.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    flags.add_argument("--work", choices=SIDES, help=argparse.SUPPRESS)
    args = flags.parse_args()
    if args.work:
        work(args)
        return
    results = {}
    for seed in args.seeds:
        results[seed] = [result_of(side, seed, args) for side in SIDES]
        print(f"seed {seed}: {shown(results[seed][0])} | {shown(results[seed][1])}", flush=True)
    show(table(results, args), args.out)


if __name__ == "__main__":
    main()
