"""Does adversarial training help a language model? Cross-entropy alone against both methods.

All go on from one checkpoint for the same CPU seconds, on the same windows with the same learning rate,
and write texts behind the same beginnings at several temperatures.

python benchmarks/lm_adversarial.py --start runs/demo
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from hf_genmodels.config.lm_adversarial import TrainLMAdversarialConfig
from hf_genmodels.config.parser import parse_config
from hf_genmodels.data.language import TextData, load_text_data
from hf_genmodels.data.packing import PackedWindows
from hf_genmodels.data.sampling import validation_loader
from hf_genmodels.engine.adversarial import frozen, update
from hf_genmodels.engine.evaluation import evaluate_language_model
from hf_genmodels.engine.lm_adversarial import training_batches
from hf_genmodels.engine.lm_adversarial_models import build_networks, build_optimizer
from hf_genmodels.engine.lm_adversarial_report import compare, continuations, spread
from hf_genmodels.engine.lm_adversarial_step import AdversarialObjective
from hf_genmodels.engine.run import Run, make_accelerator
from hf_genmodels.hub.loading import load_tokenizer
from hf_genmodels.metrics.real_or_generated import real_or_generated
from hf_genmodels.training.train_lm_adversarial import PRESETS

HERE = Path(__file__).parent
NAMES = {
    "start": "the starting checkpoint",
    "mle": "cross-entropy only",
    "gumbel": "`gumbel`",
    "reinforce": "`reinforce`",
    "gumbel-cold": "`gumbel`, trained at 0.7",
    "reinforce-cold": "`reinforce`, trained at 0.7",
}
COLD = 0.7  # a temperature at which the starting checkpoint is easily told from real text


def config_of(start: Path, name: str, seed: int) -> TrainLMAdversarialConfig:
    """Return the preset of a method; that of gumbel for what has none."""
    preset, _, cold = name.partition("-")
    preset = preset if preset in ("gumbel", "reinforce") else "gumbel"
    flags = {"config": preset, "model_name_or_path": start, "output_dir": "unused", "seed": seed}
    if cold:
        flags["adversarial.temperature"] = COLD
    argv = [f"--{key}={value}" for key, value in flags.items()]
    return parse_config(
        TrainLMAdversarialConfig, argv, command="benchmark", description="", presets=PRESETS
    )


class Trial:
    """The loop of `train_lm_adversarial.py` without its reports and files, on one process.

    Args:
        config: Options of a run.
        name: What trains.
        tokenizer: The model's tokenizer.
        data: The text.
    """

    def __init__(self, config: TrainLMAdversarialConfig, name: str, tokenizer: Any, data: TextData):
        torch.manual_seed(config.seed)
        self.config, self.name = config, name
        self.run = Run(config, make_accelerator(config), Path())
        self.networks = build_networks(config, None)
        self.optimizer = build_optimizer(self.networks, config.optim)
        self.batches = training_batches(self.run, config, data, tokenizer, None)
        self.objective = AdversarialObjective(config, self.networks, self.run)
        self.networks.train()
        self.steps = self.generator_steps = 0
        self.seconds = 0.0
        self.records: list[dict[str, float]] = []

    def train(self, seconds: float) -> None:
        """Train for so many CPU seconds; the learning rate is constant."""
        started = time.process_time()
        while self.seconds < seconds:
            if self.name == "mle":
                self.step_of_cross_entropy()
            else:
                self.step()
            self.steps += 1
            self.seconds = time.process_time() - started

    def step_of_cross_entropy(self) -> None:
        """Update the generator by real text alone."""
        with self.run.accelerator.autocast():
            loss = self.networks.generator(**next(self.batches), use_cache=False).loss
        self.run.accelerator.backward(loss)
        update(self.run, self.networks.generator, self.optimizer)
        self.generator_steps += 1

    def step(self) -> None:
        """Update both networks once, or the discriminator alone while it learns first."""
        run, networks, objective = self.run, self.networks, self.objective
        with run.accelerator.autocast():
            place = objective.place(self.steps, 0, 0)
            texts = objective.write(next(self.batches), place, self.steps, last_turn=True)
            found = objective.discriminator_losses(texts)
        run.accelerator.backward(found["d_loss"])
        update(run, networks.discriminator, self.optimizer)
        if objective.trains_generator(self.steps):
            with frozen(networks.discriminator):
                with run.accelerator.autocast():
                    own = objective.generator_losses(texts)
                run.accelerator.backward(own["g_loss"])
            update(run, networks.generator, self.optimizer)
            found |= own
            self.generator_steps += 1
        self.records.append({key: float(value.detach()) for key, value in found.items()})

    def recent(self, key: str, count: int = 20) -> float | None:
        """Return the mean of the last records."""
        values = [record[key] for record in self.records if key in record][-count:]
        return statistics.fmean(values) if values else None


def measure(
    trial: Trial, tokenizer: Any, data: TextData, temperatures: list[float], classified: int
) -> list[dict[str, Any]]:
    """Return a row for each temperature."""
    run, config, generator = trial.run, trial.config, trial.networks.generator
    config = dataclasses.replace(config, per_device_eval_batch_size=64, seed=0)
    assert data.validation is not None
    assert data.windows is not None
    loader = validation_loader(data.validation, 16, rank=0, world_size=1)
    found = evaluate_language_model(run, generator, loader, data.bytes_per_token)
    training = PackedWindows(data.windows.cache, config.block_size)
    rows = []
    for temperature in temperatures:
        args = (config, temperature)
        learned = continuations(generator, tokenizer, training, spread(training, classified), *args)
        places = list(range(len(data.validation)))
        held_out = continuations(generator, tokenizer, data.validation, places, *args)
        contexts, real, written = zip(*learned, *held_out, strict=True)
        share = len(held_out) / len(real)
        told = real_or_generated(real, written, held_out=share, contexts=contexts)
        rows.append(
            {
                "name": trial.name,
                "temperature": temperature,
                "steps": trial.steps,
                "generator_steps": trial.generator_steps,
                "seconds": trial.seconds,
                "perplexity": math.exp(found["eval_loss"]),
                **compare([row[2] for row in held_out], [row[1] for row in held_out]),
                **dataclasses.asdict(told),
                **{key: trial.recent(key) for key in ("d_accuracy", "kl", "entropy")},
                "sample": [held_out[-1][0], held_out[-1][2]],
            }
        )
    return rows


def limit(config: TrainLMAdversarialConfig, tokenizer: Any, data: TextData) -> dict[str, float]:
    """Return how as many windows of the training text compare: what real text reaches."""
    assert data.validation is not None
    assert data.windows is not None
    training = PackedWindows(data.windows.cache, config.block_size)
    first = config.adversarial.prompt_tokens
    last = first + config.adversarial.sample_tokens

    def texts(windows: PackedWindows, places: list[int]) -> list[str]:
        rows = windows.__getitems__(places)
        return [tokenizer.decode(row["input_ids"][first:last]) for row in rows]

    size = len(data.validation)
    references = texts(data.validation, list(range(size)))
    return compare(texts(training, spread(training, size)), references)


def table(rows: list[dict[str, Any]], real: dict[str, float], told_with: int) -> str:
    """Return the report."""
    cpu = f"{platform.machine()}, torch {torch.__version__}"
    first = rows[0]
    lines = [
        "# Adversarial training of a language model",
        "",
        "Made by `python benchmarks/lm_adversarial.py --start runs/demo` on a machine that did much other work at the same "
        f"time ({cpu}); CPU seconds of one process with one thread, one seed. All models go on from the "
        "checkpoint of `make demo` (5.2 M parameters, 300 steps on the bundled novels) with the options "
        "of the presets and a constant learning rate. Texts are "
        f"continuations of {first['num_pairs']} held-out windows. Perplexity is that of the held-out text, "
        "in windows of 64 tokens. n-gram JS: mean Jensen-Shannon divergence of words, pairs and triples from "
        "the real continuations, in bits. The classifier is trained afterwards on "
        f"{told_with} other pairs and measured on these; 0.5 is perfect.",
        "",
        "| trained by | CPU s | generator steps | temperature | perplexity | n-gram JS | distinct-2 | self-BLEU | classifier: accuracy (95 %) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        accuracy = f"{row['accuracy']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
        lines.append(
            f"| {NAMES[row['name']]} | {row['seconds']:.0f} | {row['generator_steps']} "
            f"| {row['temperature']:g} | {row['perplexity']:.2f} | {row['ngram_js']:.4f} "
            f"| {row['distinct_2']:.3f} | {row['self_bleu']:.3f} | {accuracy} |"
        )
    lines += [
        f"| real text (training windows) | | | | | {real['ngram_js']:.4f} | {real['distinct_2']:.3f} "
        f"| {real['self_bleu']:.3f} | |",
        f"| real text (these windows) | | | | | 0 | {real['distinct_2_real']:.3f} "
        f"| {real['self_bleu_real']:.3f} | |",
        "",
        "At the end of the training, means of 20 steps:",
        "",
        "| trained by | pairs the discriminator orders rightly | KL from the start (nats per token) | entropy (nats per token) |",
        "|---|---|---|---|",
    ]
    for row in {row["name"]: row for row in rows if row["kl"] is not None}.values():
        lines.append(
            f"| {NAMES[row['name']]} | {row['d_accuracy']:.2f} | {row['kl']:.3f} | {row['entropy']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train and measure what has not been measured yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--start", type=Path, required=True, help="folder of a trained gen_gpt model"
    )
    parser.add_argument("--seconds", type=float, default=100.0, help="CPU seconds of each training")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.7, 0.85, 1.0])
    parser.add_argument(
        "--classified", type=int, default=1000, help="pairs the classifier learns from"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--lines", type=Path, default=HERE / "results" / "lm_adversarial.jsonl")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "lm_adversarial.md")
    args = parser.parse_args()
    tokenizer = load_tokenizer(args.start)
    config = config_of(args.start, "gumbel", args.seed)
    data = load_text_data(config, tokenizer, seed=args.seed, show_progress=False)
    known = args.lines.read_text(encoding="utf-8") if args.lines.is_file() else ""
    rows = [json.loads(line) for line in known.splitlines()]
    for name in args.only:
        if any(row["name"] == name for row in rows):
            continue
        trial = Trial(config_of(args.start, name, args.seed), name, tokenizer, data)
        if name != "start":
            trial.train(args.seconds)
        print(f"{name}: {trial.steps} steps, {trial.seconds:.0f} CPU s", flush=True)
        temperatures = [COLD] if name.endswith("-cold") else args.temperatures
        rows += measure(trial, tokenizer, data, temperatures, args.classified)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        args.lines.write_text(text, encoding="utf-8")
        print(json.dumps(rows[-1]), flush=True)
    real = limit(config, tokenizer, data)
    args.out.write_text(table(rows, real, args.classified), encoding="utf-8")


if __name__ == "__main__":
    main()
