"""Compare training speed and memory: transformers' GPT-2 with Trainer and in a bare loop, and ours.

The same architecture, batch, optimiser and random tokens on all sides. Every measurement is a process
of its own, so that its peak memory is its own; rounds are interleaved, and time is CPU time.

    python benchmarks/lm_training.py --out benchmarks/results/lm_training.md
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import transformers
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from hf_genmodels import GenGPTForCausalLM
from hf_genmodels.config.optim import OptimConfig
from hf_genmodels.engine.optim import build_optimizer
from hf_genmodels.models.configuration_gpt import GenGPTConfig
from hf_genmodels.models.convert_gpt2 import fields_from_gpt2

SIZES = {
    "small": {
        "config": {"vocab_size": 8192, "n_embd": 256, "n_layer": 4, "n_head": 4},
        "block_size": 256,
        "batch_size": 16,
        "steps": 5,
    },
    "124m": {"config": {}, "block_size": 512, "batch_size": 2, "steps": 3},
}
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
WARMUP = 2
BASELINE = "transformers Trainer"


def gpt2_config(size: str) -> GPT2Config:
    """Return the configuration that all sides train."""
    return GPT2Config(
        **SIZES[size]["config"],
        **NO_DROPOUT,
        n_positions=SIZES[size]["block_size"],
        use_cache=False,
        bos_token_id=0,
        eos_token_id=0,
    )


def batches(size: str) -> Iterator[torch.Tensor]:
    """Yield the same random tokens to every side, (B, T)."""
    generator = torch.Generator().manual_seed(0)
    shape = (SIZES[size]["batch_size"], SIZES[size]["block_size"])
    while True:
        yield torch.randint(gpt2_config(size).vocab_size, shape, generator=generator)


def bare_loop(
    size: str, steps: int, model: nn.Module, optimizer: torch.optim.Optimizer, precision: str
) -> list[float]:
    """Train and return the process's CPU seconds after every step."""
    model.train()
    marks = []
    for ids, _ in zip(batches(size), range(steps), strict=False):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        marks.append(time.process_time())
    return marks


def transformers_bare(size: str, steps: int, precision: str) -> list[float]:
    """Train transformers' GPT-2 in a plain loop with fused AdamW."""
    model = GPT2LMHeadModel(gpt2_config(size))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, fused=True)
    return bare_loop(size, steps, model, optimizer, precision)


def ours_bare(size: str, steps: int, precision: str) -> list[float]:
    """Train our model with GPT-2's configuration in the same plain loop."""
    model = GenGPTForCausalLM(GenGPTConfig(**fields_from_gpt2(gpt2_config(size))))
    return bare_loop(size, steps, model, build_optimizer(model, OptimConfig(lr=1e-3)), precision)


def transformers_trainer(size: str, steps: int, precision: str) -> list[float]:
    """Train transformers' GPT-2 with Trainer and its default optimiser, fused AdamW."""
    marks: list[float] = []

    class Marks(transformers.TrainerCallback):
        def on_step_end(self, *_args: object, **_kwargs: object) -> None:
            marks.append(time.process_time())

    source = batches(size)
    rows = [row for _ in range(steps) for row in next(source)]
    with tempfile.TemporaryDirectory() as folder:
        trainer = transformers.Trainer(
            model=GPT2LMHeadModel(gpt2_config(size)),
            args=transformers.TrainingArguments(
                folder,
                per_device_train_batch_size=SIZES[size]["batch_size"],
                max_steps=steps,
                learning_rate=1e-3,
                weight_decay=0.1,
                bf16=precision == "bf16",
                use_cpu=True,
                dataloader_pin_memory=False,
                logging_strategy="no",
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
            ),
            train_dataset=[{"input_ids": row, "labels": row} for row in rows],
            callbacks=[Marks()],
        )
        trainer.train()
    return marks


def ours_command(size: str, steps: int, precision: str) -> list[float]:
    """Train with the loop behind `genmodels train lm`, on the bundled text."""
    from importlib import resources

    from hf_genmodels.engine import run
    from hf_genmodels.training import train_lm

    marks: list[float] = []
    tick = run.Clock.tick

    def marked_tick(clock: run.Clock, tokens: int) -> None:
        marks.append(time.process_time())
        tick(clock, tokens)

    run.Clock.tick = marked_tick
    config, text = SIZES[size]["config"], resources.files("hf_genmodels.samples") / "english"
    with tempfile.TemporaryDirectory() as folder:
        train_lm.main(
            [
                "--config=gpt2-mini",
                f"--train_file={text / 'train.txt'}",
                f"--output_dir={folder}/out",
                f"--cache_dir={folder}/cache",
                f"--max_steps={steps}",
                f"--per_device_train_batch_size={SIZES[size]['batch_size']}",
                f"--block_size={SIZES[size]['block_size']}",
                f"--tokenizer_vocab_size={config['vocab_size']}",
                f"--model.hidden_size={config['n_embd']}",
                f"--model.num_hidden_layers={config['n_layer']}",
                f"--model.num_attention_heads={config['n_head']}",
                f"--mixed_precision={precision}",
                "--eval_every=1000",
                "--save_every=1000",
                "--max_eval_windows=1",
                "--sample.max_new_tokens=0",
            ]
        )
    return marks


CONTESTANTS: dict[str, Callable[[str, int, str], list[float]]] = {
    BASELINE: transformers_trainer,
    "transformers bare loop": transformers_bare,
    "hf_genmodels bare loop": ours_bare,
    "hf_genmodels train lm": ours_command,
}


def work(name: str, size: str, precision: str) -> None:
    """Measure one contestant in this process and print the result as JSON."""
    torch.manual_seed(0)
    transformers.logging.set_verbosity_error()
    marks = CONTESTANTS[name](size, WARMUP + SIZES[size]["steps"], precision)
    seconds = statistics.median(
        after - before for before, after in zip(marks[WARMUP - 1 :], marks[WARMUP:], strict=False)
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "megabytes": peak}))


def measure(name: str, size: str, precision: str, threads: int) -> dict[str, float]:
    """Measure one contestant in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, "--work", name, "--sizes", size, "--precision", precision]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if output.returncode:
        raise SystemExit(f"{name} failed:\n{output.stderr[-2000:]}")
    return json.loads(output.stdout.splitlines()[-1])


def table(size: str, precision: str, results: dict[str, list[dict[str, float]]]) -> list[str]:
    """Return the Markdown rows of one size."""
    tokens = SIZES[size]["batch_size"] * SIZES[size]["block_size"]
    base = {
        key: statistics.median(r[key] for r in results[BASELINE])
        for key in ("seconds", "megabytes")
    }
    rows = []
    for name, measured in results.items():
        seconds = statistics.median(r["seconds"] for r in measured)
        best = min(r["seconds"] for r in measured)
        peak = statistics.median(r["megabytes"] for r in measured)
        rows.append(
            f"| {size} | {precision} | {name} | {seconds:.3f} | {best:.3f} | {tokens / seconds:,.0f} "
            f"| {base['seconds'] / seconds:.2f} | {peak:,.0f} | {peak / base['megabytes']:.2f} |"
        )
    return rows


def main() -> None:
    """Run the contestants in turn and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--precision", nargs="+", choices=("no", "bf16"), default=["no"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    parser.add_argument("--work", choices=CONTESTANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.work:
        work(args.work, args.sizes[0], args.precision[0])
        return

    lines = [
        f"Training, {args.threads} thread(s), {args.rounds} interleaved rounds, a process each; CPU "
        f"seconds of a step (median of a run). torch {torch.__version__}, transformers "
        f"{transformers.__version__}, {platform.machine()}, "
        f"{torch.backends.cpu.get_cpu_capability()}.",
        "",
        "| size | precision | who | median CPU s | min CPU s | tokens / CPU s | speed-up | peak MB | "
        "of the Trainer's |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for size in args.sizes:
        # The bundled text is too short for GPT-2's vocabulary of 50,257 tokens.
        names = [n for n in CONTESTANTS if size == "small" or n != "hf_genmodels train lm"]
        for precision in args.precision:
            results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
            for _ in range(args.rounds):
                for name in names:
                    results[name].append(measure(name, size, precision, args.threads))
            lines += table(size, precision, results)
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
