"""Compare training speed and memory: transformers' Marian with Seq2SeqTrainer, ours, and eole.

The same architecture (post-norm, one tied embedding), label smoothing, dropout, pairs and tokens on
all sides. The Trainer has a fixed number of pairs in a batch, the others a budget of tokens. Every
measurement is a process of its own, so that its peak memory is its own; rounds are interleaved, and
time is CPU time. The Trainer's group_by_length sorts 50 batches at a time, the longest first; only
some of its epoch's batches are trained on, evenly spaced, so that short and long ones have their share.

    python benchmarks/seq2seq_training.py --train_file train.jsonl ... [--eole_python PYTHON]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from seq2seq_common import (
    MAX_TOKENS,
    SIZES,
    Clock,
    Pairs,
    data_flags,
    machine,
    marian_model,
    parser,
    quiet,
    show,
    token_batches,
    train_marian,
    work_in_process,
)
from transformers import PreTrainedTokenizerBase

from hf_genmodels.config.optim import OptimConfig
from hf_genmodels.engine.kernels import bound_kernel_memory
from hf_genmodels.engine.optim import build_optimizer
from hf_genmodels.models.configuration_seq2seq import GenSeq2SeqConfig
from hf_genmodels.models.modeling_seq2seq import GenSeq2SeqForConditionalGeneration

BATCH_SIZE, TOKEN_BUDGET = 64, 2048
WARMUP = 2
SORTED_BATCHES = 50  # that group_by_length sorts together
RECIPE = {"batch_size": BATCH_SIZE, "lr": 1e-3, "warmup": 250}
BASELINE = "transformers Trainer, group_by_length"
# CPU seconds since the start, and target tokens, real tokens and slots of every step.
Marks = tuple[list[float], list[tuple[int, int, int]]]


def marian_shaped(size: str, tokenizer: PreTrainedTokenizerBase) -> GenSeq2SeqConfig:
    """Return our configuration with Marian's mathematics."""
    shape = SIZES[size]
    return GenSeq2SeqConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape["d_model"],
        encoder_layers=shape["layers"],
        decoder_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        intermediate_size=shape["ffn"],
        max_position_embeddings=256,
        attention_dropout=0.0,
        residual_dropout=0.1,
        embedding_dropout=0.1,
        label_smoothing=0.1,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )


def trainer(sampling: str) -> Callable[[argparse.Namespace], Marks]:
    """Return a function that trains Marian with the Trainer's sampling strategy."""

    def train(args: argparse.Namespace) -> Marks:
        pairs = Pairs(args)
        model = marian_model(args.size, pairs.tokenizer)
        clock = Clock(float("inf"), [], lambda _step: None)
        counts = train_marian(
            model,
            pairs,
            clock,
            sampling=sampling,
            max_steps=WARMUP + args.steps,
            seed=args.seed,
            stride=max(1, round(SORTED_BATCHES / (WARMUP + args.steps))),
            **RECIPE,
        )
        return clock.marks, counts

    return train


def ours_bare(args: argparse.Namespace) -> Marks:
    """Train our model with Marian's shape in a plain loop."""
    bound_kernel_memory()
    pairs = Pairs(args)
    model = GenSeq2SeqForConditionalGeneration(marian_shaped(args.size, pairs.tokenizer)).train()
    optimizer = build_optimizer(model, OptimConfig(lr=1e-3, weight_decay=0.0))
    marks: list[float] = []
    counts: list[tuple[int, int, int]] = []
    start = time.process_time()
    batches = token_batches(pairs, TOKEN_BUDGET, args.seed, counts)
    for _ in range(WARMUP + args.steps):
        batch = next(batches)
        model(**batch, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        marks.append(time.process_time() - start)
    return marks, counts


def ours_command(args: argparse.Namespace) -> Marks:
    """Train with the loop behind `genmodels train seq2seq`, which prepares the pairs itself."""
    from hf_genmodels.engine import run
    from hf_genmodels.training import train_seq2seq

    marks: list[float] = []
    counts: list[tuple[int, int, int]] = []
    tick = run.Clock.tick

    def marked_tick(clock: run.Clock, tokens: int) -> None:
        marks.append(time.process_time())
        counts.append((tokens, 0, 0))
        tick(clock, tokens)

    run.Clock.tick = marked_tick
    shape = SIZES[args.size]
    with tempfile.TemporaryDirectory() as folder:
        train_seq2seq.main(
            [
                f"--train_file={args.train_file}",
                f"--validation_file={args.validation_file}",
                "--source_lang=en",
                "--target_lang=es",
                f"--output_dir={folder}/out",
                f"--cache_dir={folder}/cache",
                f"--max_steps={WARMUP + args.steps}",
                f"--batch_tokens={TOKEN_BUDGET}",
                f"--max_source_length={MAX_TOKENS}",
                f"--max_target_length={MAX_TOKENS}",
                f"--tokenizer_vocab_size={shape['vocabulary']}",
                f"--seed={args.seed}",
                "--mixed_precision=no",
                "--eval_every=1000",
                "--save_every=1000",
                "--max_eval_pairs=1",
                "--translate.num_pairs=0",
                "--optim.name=adamw",
                "--optim.lr=1e-3",
                "--optim.head_lr=1e-3",
                "--optim.embedding_lr=1e-3",
                *(f"--model.{name}={value}" for name, value in marian_switches(shape).items()),
            ]
        )
    return marks, counts


def marian_switches(shape: dict[str, int]) -> dict[str, object]:
    """Return the model options of the preset that make it Marian's."""
    return {
        "hidden_size": shape["d_model"],
        "encoder_layers": shape["layers"],
        "decoder_layers": shape["layers"],
        "num_attention_heads": shape["heads"],
        "intermediate_size": shape["ffn"],
        "position_embedding": "sinusoidal",
        "norm": "layernorm",
        "norm_position": "post",
        "norm_affine": "true",
        "hidden_act": "relu",
        "use_bias": "true",
        "qk_norm": "false",
        "scale_embedding": "true",
        "zero_init_residual": "false",
        "embedding_dropout": 0.1,
        "tie_word_embeddings": "true",
    }


CONTESTANTS: dict[str, Callable[[argparse.Namespace], Marks]] = {
    "transformers Trainer, random": trainer("random"),
    BASELINE: trainer("group_by_length"),
    "hf_genmodels bare loop": ours_bare,
    "hf_genmodels train seq2seq": ours_command,
}


def work(args: argparse.Namespace) -> None:
    """Measure one contestant in this process and print the result as JSON."""
    quiet(args.threads, args.seed)
    marks, counts = CONTESTANTS[args.work](args)
    tokens, real, slots = (sum(column) for column in zip(*counts[WARMUP:], strict=True))
    seconds = marks[-1] - marks[WARMUP - 1]
    print(json.dumps(summary(tokens / seconds, 1 - real / slots if slots else None)))


def summary(speed: float, padding: float | None) -> dict[str, float | None]:
    """Return the figures of one run with this process's peak memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"speed": speed, "padding": padding, "megabytes": peak}


# Runs in eole's environment: notes CPU seconds and tokens at every step, and prints the summary.
EOLE_RUNNER = """
import json, resource, sys, time
from eole.utils.report_manager import ReportMgrBase
marks = []
def note(self, step, num_steps, learning_rate, patience, stats, multigpu=False):
    marks.append((time.process_time(), stats.n_tokens, stats.n_src_tokens))
    return type(stats)()
ReportMgrBase.report_training = note
from eole.bin.main import main
sys.argv = ["eole", "train", "-c", sys.argv[1]]
main()
seconds = marks[-1][0] - marks[WARMUP - 1][0]
targets, sources = (sum(m[i] for m in marks[WARMUP:]) for i in (1, 2))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print()
print(json.dumps({"speed": targets / seconds, "padding": None, "megabytes": peak}))
""".replace("WARMUP", str(WARMUP))


def eole_settings(folder: Path, size: str, steps: int, seed: int) -> str:
    """Return eole's configuration of the same model and recipe, as YAML."""
    shape = SIZES[size]
    settings = {
        "save_data": str(folder / "data"),
        "overwrite": True,
        "src_vocab": str(folder / "vocab"),
        "tgt_vocab": str(folder / "vocab"),
        "share_vocab": True,
        "src_vocab_size": shape["vocabulary"],
        "tgt_vocab_size": shape["vocabulary"],
        "seed": seed + 1,
        "report_every": 1,
        "transforms": [],
        "data": {
            "pairs": {
                "path_src": str(folder / "source"),
                "path_tgt": str(folder / "target"),
                "transforms": [],
            }
        },
        "training": {
            "model_path": str(folder / "model"),
            "world_size": 0,
            "gpu_ranks": [],
            "num_workers": 0,
            "bucket_size": 32768,
            "prefetch_factor": 1,
            "batch_type": "tokens",
            "batch_size": TOKEN_BUDGET,
            "train_steps": WARMUP + steps,
            "valid_steps": 100000,
            "save_checkpoint_steps": 100000,
            "compute_dtype": "fp32",
            "optim": "adamw",
            "learning_rate": 1e-3,
            "warmup_steps": 250,
            "decay_method": "rsqrt",
            "max_grad_norm": 1.0,
            "label_smoothing": 0.1,
            "dropout": [0.1],
            "attention_dropout": [0.0],
            "normalization": "tokens",
            "log_attention_entropy": False,
        },
        "model": {
            "architecture": "transformer",
            "hidden_size": shape["d_model"],
            "layers": shape["layers"],
            "heads": shape["heads"],
            "transformer_ff": shape["ffn"],
            "share_embeddings": True,
            "share_decoder_embeddings": True,
            "embeddings": {
                "word_vec_size": shape["d_model"],
                "position_encoding_type": "SinusoidalInterleaved",
            },
        },
    }
    return json.dumps(settings)  # YAML contains JSON


def eole(pairs: Pairs, args: argparse.Namespace, seed: int) -> dict[str, float]:
    """Measure eole, which lives in an environment of its own, on the same token ids."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for side, rows in (("source", pairs.train.source_ids), ("target", pairs.train.target_ids)):
            lines = (" ".join(map(str, row[:-1])) + "\n" for row in rows)
            (folder / side).write_text("".join(lines), encoding="utf-8")
        words = "".join(f"{token}\t1\n" for token in range(len(pairs.tokenizer)))
        (folder / "vocab").write_text(words, encoding="utf-8")
        settings = folder / "settings.yaml"
        settings.write_text(eole_settings(folder, args.size, args.steps, seed), encoding="utf-8")
        output = subprocess.run(
            [args.eole_python, "-c", EOLE_RUNNER, str(settings)],
            env={**os.environ, "OMP_NUM_THREADS": str(args.threads)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return json.loads(output.stdout.splitlines()[-1])


def measure(pairs: Pairs, name: str, args: argparse.Namespace, seed: int) -> dict[str, float]:
    """Measure one contestant in a process of its own."""
    if name == "eole":
        return eole(pairs, args, seed)
    flags = [*data_flags(args), f"--steps={args.steps}", f"--seed={seed}", f"--work={name}"]
    return work_in_process(__file__, flags, args.threads)


def table(results: dict[str, list[dict[str, float]]]) -> list[str]:
    """Return the Markdown rows of all contestants."""
    middle = {
        name: {
            key: statistics.median(r[key] for r in rounds) if rounds[0][key] is not None else None
            for key in ("speed", "padding", "megabytes")
        }
        for name, rounds in results.items()
    }
    base, rows = middle[BASELINE], []
    for name, values in middle.items():
        every = " / ".join(f"{r['speed']:,.0f}" for r in results[name])
        padding = "" if values["padding"] is None else f"{values['padding']:.1%}"
        rows.append(
            f"| {name} | {values['speed']:,.0f} ({every}) | {values['speed'] / base['speed']:.2f} "
            f"| {padding} | {values['megabytes']:,.0f} "
            f"| {values['megabytes'] / base['megabytes']:.2f} |"
        )
    return rows


def main() -> None:
    """Run the contestants in turn and print one table."""
    flags = parser(__doc__)
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--steps", type=int, default=12, help="steps that are measured")
    flags.add_argument("--eole_python", help="Python of an environment that has eole")
    flags.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    flags.add_argument("--work", choices=CONTESTANTS, help=argparse.SUPPRESS)
    args = flags.parse_args()
    if args.work:
        work(args)
        return

    names = [*CONTESTANTS, *(["eole"] if args.eole_python else [])]
    pairs = Pairs(args)
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for seed in range(args.rounds):
        for name in names:
            results[name].append(measure(pairs, name, args, seed))
            print(f"round {seed}  {name}: {results[name][-1]}", file=sys.stderr, flush=True)
    show(
        [
            f"{Path(args.train_file).name}, pairs of up to {MAX_TOKENS} tokens a side; Trainer: "
            f"{BATCH_SIZE} pairs a batch, others: {TOKEN_BUDGET} tokens. {args.threads} thread(s), "
            f"{args.rounds} interleaved rounds of {args.steps} steps, a process each. {machine()}",
            "",
            "| who | target tokens / CPU s (median, all) | speed-up | padding | peak MB | of the "
            "grouped Trainer's |",
            "|---|---|---|---|---|---|",
            *table(results),
        ],
        args.out,
    )


if __name__ == "__main__":
    main()
