"""How much CPU time two recipes need to the same validation loss: GPT-2's and the preset `modern`.

GPT-2's recipe is transformers' GPT2LMHeadModel with fused AdamW, cosine decay, no dropout and a tuned
learning rate, in a bare loop. `modern` is this package's preset. Same text, tokenizer, depth, width
and windows; evaluation does not count. Seeds are interleaved.

    python benchmarks/lm_time_to_loss.py --train_file austen.train.txt --validation_file austen.valid.txt
    python benchmarks/lm_time_to_loss.py --parts ...     what each part of `modern` contributes
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path

import torch
import transformers
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from hf_genmodels.config.lm import TrainLMConfig
from hf_genmodels.config.optim import ScheduleConfig
from hf_genmodels.config.parser import parse_config
from hf_genmodels.data.cache import build_token_cache
from hf_genmodels.data.packing import PackedWindows
from hf_genmodels.data.sampling import PositionSampler, train_loader, validation_loader
from hf_genmodels.data.sources import TextSource
from hf_genmodels.engine.optim import build_optimizer, build_schedule
from hf_genmodels.models.modeling_gpt import GenGPTForCausalLM
from hf_genmodels.tokenization import train_bpe
from hf_genmodels.training.train_lm import PRESETS

VOCABULARY, BLOCK, BATCH = 4096, 256, 12
# Change -> flags that make it. First what the preset has is taken away, then something is added.
CHANGES = {
    "modern as it is": [],
    "AdamW instead of Muon": ["--optim.name=adamw", "--optim.lr=1e-3"],
    "embedding rate as the head's": ["--optim.embedding_lr=0.008"],
    "head tied to the embedding": ["--model.tie_word_embeddings=true"],
    "learned positions": ["--model.position_embedding=learned"],
    "no QK-norm": ["--model.qk_norm=false"],
    "LayerNorm with weights": ["--model.norm=layernorm", "--model.norm_affine=true"],
    "GELU": ["--model.hidden_act=gelu_new"],
    "no zero-initialised projections": ["--model.zero_init_residual=false"],
    "biases": ["--model.use_bias=true"],
    "cosine schedule": ["--schedule.name=cosine"],
    "and logits capped at 15": ["--model.logit_softcap=15"],
    "and a value embedding": ["--model.num_value_embeddings=1"],
    "and a zero-initialised head": ["--model.zero_init_head=true"],
}


class Text:
    """The windows that all recipes share."""

    def __init__(self, train_file: str, validation_file: str, folder: Path):
        source = TextSource(files=[train_file])
        self.tokenizer = train_bpe(source.texts(), vocab_size=VOCABULARY)
        self.train = build_token_cache(source, self.tokenizer, folder, show_progress=False)
        valid = build_token_cache(
            TextSource(files=[validation_file]), self.tokenizer, folder, show_progress=False
        )
        self.validation = PackedWindows(valid, BLOCK)

    def batches(self, seed: int) -> Iterator[dict[str, torch.Tensor]]:
        """Return endless training batches."""
        windows = PackedWindows(self.train, BLOCK, shift=True, seed=seed)
        sampler = PositionSampler(len(windows), batch_size=BATCH, seed=seed)
        return iter(train_loader(windows, sampler))


def validation_loss(model: nn.Module, text: Text) -> float:
    """Return the mean loss per validation token, in fp32."""
    model.eval()
    total, tokens = 0.0, 0
    with torch.no_grad():
        for batch in validation_loader(text.validation, 32):
            count = int((batch["labels"] != -100).sum())
            total += count * model(**batch, use_cache=False).loss.item()
            tokens += count
    model.train()
    return total / tokens


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: ScheduleConfig,
    text: Text,
    *,
    steps: int,
    seed: int,
    precision: str,
    max_norm: float,
    evaluate_at: Sequence[int],
) -> list[tuple[float, float]]:
    """Train and return (CPU seconds of training, validation loss) at the given steps."""
    scheduler = build_schedule(optimizer, schedule, steps)
    batches = text.batches(seed)
    model.train()
    curve, seconds = [], 0.0
    for step in range(1, steps + 1):
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = model(**next(batches), use_cache=False).loss
        loss.backward()
        if max_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)
        seconds += time.process_time() - start
        if step in evaluate_at:
            curve.append((seconds, validation_loss(model, text)))
    return curve


def run_gpt2(text: Text, args: argparse.Namespace, seed: int) -> list[tuple[float, float]]:
    """Train GPT-2's recipe."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=len(text.tokenizer),
        n_embd=256,
        n_layer=4,
        n_head=4,
        n_positions=BLOCK,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=args.gpt2_lr,
        betas=(0.9, 0.95),
        fused=True,
    )
    schedule = ScheduleConfig(name="cosine", warmup_steps=20, min_lr_ratio=0.0)
    steps = args.gpt2_steps
    return train(
        model,
        optimizer,
        schedule,
        text,
        steps=steps,
        seed=seed,
        precision=args.precision,
        max_norm=1.0,
        evaluate_at=[steps // 2, 3 * steps // 4, steps],
    )


def run_modern(
    text: Text, args: argparse.Namespace, seed: int, flags: Sequence[str] = ()
) -> list[tuple[float, float]]:
    """Train the preset, with some flags changed."""
    torch.manual_seed(seed)
    config = parse_config(
        TrainLMConfig,
        ["--config=modern", f"--train_file={args.train_file}", *flags],
        command="benchmark",
        description="",
        presets=PRESETS,
    )
    if args.precision == "no":  # nothing in bf16, as on a CPU without its units
        config.optim.muon_precision = "float32"
    model = GenGPTForCausalLM(config.new_model_config(len(text.tokenizer)))
    steps = args.modern_steps
    return train(
        model,
        build_optimizer(model, config.optim),
        config.schedule,
        text,
        steps=steps,
        seed=seed,
        precision=args.precision,
        max_norm=config.optim.max_grad_norm,
        evaluate_at=[steps // 2, 3 * steps // 4, steps],
    )


def shown(curve: list[tuple[float, float]]) -> str:
    """Return a curve as `loss @ seconds`."""
    return ", ".join(f"{loss:.3f} @ {seconds:.0f}" for seconds, loss in curve)


def race(text: Text, args: argparse.Namespace) -> list[str]:
    """Return the table of both recipes over all seeds."""
    lines = [
        "| seed | GPT-2's recipe: loss @ CPU s | modern: loss @ CPU s | CPU time | loss |",
        "|---|---|---|---|---|",
    ]
    ratios = []
    for seed in args.seeds:
        gpt2, modern = run_gpt2(text, args, seed), run_modern(text, args, seed)
        ratio = gpt2[-1][0] / modern[-1][0]
        ratios.append(ratio)
        lines.append(
            f"| {seed} | {shown(gpt2)} | {shown(modern)} | 1/{ratio:.1f} "
            f"| {modern[-1][1] - gpt2[-1][1]:+.3f} |"
        )
        print(lines[-1], flush=True)
    lines += ["", f"modern needed 1/{statistics.median(ratios):.1f} of the CPU time (median)."]
    return lines


def contributions(text: Text, args: argparse.Namespace) -> list[str]:
    """Return the table of what changes when one part is taken away."""
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in CHANGES}
    for seed in args.seeds:
        for name, flags in CHANGES.items():
            results[name].append(run_modern(text, args, seed, flags)[-1])
            print(f"seed {seed}  {name}: {shown(results[name][-1:])}", flush=True)
    base_seconds, base_loss = (
        statistics.mean(v) for v in zip(*results["modern as it is"], strict=True)
    )
    lines = ["| change | loss | against it | CPU s | against it |", "|---|---|---|---|---|"]
    for name, measured in results.items():
        seconds, loss = (statistics.mean(values) for values in zip(*measured, strict=True))
        lines.append(
            f"| {name} | {loss:.3f} | {loss - base_loss:+.3f} | {seconds:.1f} "
            f"| {seconds / base_seconds - 1:+.0%} |"
        )
    return lines


def main() -> None:
    """Run one comparison and print its table."""
    bundled = resources.files("hf_genmodels.samples") / "english"
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--train_file", default=str(bundled / "train.txt"))
    parser.add_argument("--validation_file", default=str(bundled / "validation.txt"))
    parser.add_argument("--precision", choices=("no", "bf16"), default="no")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpt2_steps", type=int, default=300)
    parser.add_argument("--gpt2_lr", type=float, default=2e-3)
    parser.add_argument("--modern_steps", type=int, default=48)
    parser.add_argument("--parts", action="store_true", help="measure the parts of modern instead")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()

    compare: Callable[[Text, argparse.Namespace], list[str]] = contributions if args.parts else race
    with tempfile.TemporaryDirectory() as folder:
        text = Text(args.train_file, args.validation_file, Path(folder))
        lines = compare(text, args)
    heading = (
        f"{Path(args.train_file).name}, {VOCABULARY} tokens, 4 layers, 256 wide, {BATCH} windows of "
        f"{BLOCK}, precision {args.precision}, {args.threads} thread(s); GPT-2's recipe "
        f"{args.gpt2_steps} steps at {args.gpt2_lr:g}, modern {args.modern_steps} steps. torch "
        f"{torch.__version__}, {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}."
    )
    result = "\n".join([heading, "", *lines]) + "\n"
    print(result)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(result, encoding="utf-8")


if __name__ == "__main__":
    main()
