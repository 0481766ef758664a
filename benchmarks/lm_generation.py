"""Compare generation on the CPU: transformers' GPT-2, our model in fp32 and int8, CTranslate2.

All engines hold the same random weights and decode greedily; rounds are interleaved, so that other
work on the machine slows all of them alike, and time is CPU time of this process. The last rows say
how fast the weights can be read at all.

    python benchmarks/lm_generation.py --out benchmarks/results/lm_generation.md
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from hf_genmodels.models.modeling_gpt import GenGPTForCausalLM

SIZES = {
    "5m": {"vocab_size": 8192, "n_embd": 256, "n_layer": 4, "n_head": 4, "n_positions": 1024},
    "124m": {},
}
PROMPT = 32
BASELINE = "transformers GPT-2 fp32"
Engine = Callable[[torch.Tensor, int], torch.Tensor]


def generator_of(model: transformers.PreTrainedModel) -> Engine:
    """Return a function from prompts (B, T) and a number of tokens to these tokens."""

    def generate(prompts: torch.Tensor, count: int) -> torch.Tensor:
        output = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=False,
            max_new_tokens=count,
            min_new_tokens=count,
        )
        return output[:, prompts.shape[1] :]

    return generate


def ctranslate2_generator(gpt2_folder: Path, compute_type: str, threads: int) -> Engine:
    """Convert a GPT-2 folder and return a function as `generator_of` does."""
    import ctranslate2

    folder = gpt2_folder.with_name("ctranslate2")
    ctranslate2.converters.TransformersConverter(str(gpt2_folder)).convert(str(folder), force=True)
    engine = ctranslate2.Generator(
        str(folder), compute_type=compute_type, intra_threads=threads, inter_threads=1
    )

    def generate(prompts: torch.Tensor, count: int) -> torch.Tensor:
        tokens = [[str(token) for token in row] for row in prompts.tolist()]
        results = engine.generate_batch(
            tokens,
            max_length=count,
            min_length=count,
            sampling_topk=1,
            include_prompt_in_result=False,
            end_token=[],
        )
        return torch.tensor([result.sequences_ids[0] for result in results])

    return generate


def save_gpt2(model: GPT2LMHeadModel, folder: Path) -> None:
    """Save the model with a tokenizer whose tokens are the numbers of the ids."""
    model.save_pretrained(folder)
    words = {str(token): token for token in range(model.config.vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="0"))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="0", eos_token="0", unk_token="0"
    ).save_pretrained(folder)


def build_engines(size: str, threads: int, scratch: Path) -> tuple[dict[str, Engine], int]:
    """Return the engines by name, all with the same weights, and their number of weights."""
    torch.manual_seed(0)
    config = GPT2Config(**SIZES[size], bos_token_id=None, eos_token_id=None, pad_token_id=0)
    gpt2 = GPT2LMHeadModel(config).eval()
    save_gpt2(gpt2, scratch / "gpt2")
    engines = {
        BASELINE: generator_of(gpt2),
        "hf_genmodels fp32": generator_of(GenGPTForCausalLM.from_gpt2(scratch / "gpt2")),
        "hf_genmodels int8": generator_of(
            GenGPTForCausalLM.from_gpt2(scratch / "gpt2").quantize_int8()
        ),
    }
    if importlib.util.find_spec("ctranslate2"):
        for kind in ("float32", "int8"):
            engines[f"CTranslate2 {kind}"] = ctranslate2_generator(scratch / "gpt2", kind, threads)
    positions = gpt2.transformer.wpe.weight.numel()
    return engines, gpt2.num_parameters() - positions


def race(
    engines: dict[str, Engine], batch: int, new_tokens: int, rounds: int, vocab_size: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return each engine's CPU seconds per round, and its share of tokens equal to the baseline's."""
    prompts = torch.randint(1, vocab_size, (batch, PROMPT))
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    outputs = {name: generate(prompts, new_tokens) for name, generate in engines.items()}
    for _ in range(rounds):
        for name, generate in engines.items():
            start = time.process_time()
            generate(prompts, new_tokens)
            seconds[name].append(time.process_time() - start)
    equal = {name: (o == outputs[BASELINE]).float().mean().item() for name, o in outputs.items()}
    return seconds, equal


def read_bandwidth(threads: int, megabytes: int = 512, rounds: int = 5) -> float:
    """Return the bytes of memory that `threads` threads read in a second, at best."""
    memory = torch.zeros(megabytes << 18)
    torch.set_num_threads(threads)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        memory.sum()
        times.append(time.perf_counter() - start)
    return memory.nbytes / min(times)


def table_rows(size: str, batch: int, new_tokens: int, seconds: dict, equal: dict) -> list[str]:
    """Return the Markdown rows of one race."""
    base = statistics.median(seconds[BASELINE])
    rows = []
    for name, times in seconds.items():
        median, best = statistics.median(times), min(times)
        ratio, best_ratio = base / median, min(seconds[BASELINE]) / best
        rows.append(
            f"| {size} | {batch} | {name} | {median:.3f} | {best:.3f} | "
            f"{batch * new_tokens / median:.0f} | {ratio:.2f} | {best_ratio:.2f} | "
            f"{equal[name]:.0%} |"
        )
    return rows


def bandwidth_rows(sizes: dict[str, int], threads: int) -> list[str]:
    """Return the Markdown rows of the limit that memory sets at batch 1."""
    rows = []
    for count in sorted({1, threads, 2}):
        speed = read_bandwidth(count)
        for size, weights in sizes.items():
            fp32, int8 = speed / (4 * weights), speed / weights
            rows.append(f"| {size} | {count} | {speed / 1e9:.1f} | {fp32:.0f} | {int8:.0f} |")
    return rows


def main() -> None:
    """Run the races and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--new_tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    lines = [
        f"Greedy decoding, prompt {PROMPT}, {args.new_tokens} new tokens, {args.threads} thread(s), "
        f"{args.rounds} interleaved rounds. torch {torch.__version__}, transformers "
        f"{transformers.__version__}, {platform.machine()}, "
        f"{torch.backends.cpu.get_cpu_capability()}.",
        "",
        "| size | batch | engine | median CPU s | min CPU s | tokens / CPU s | speed-up (median) | "
        "speed-up (min) | same tokens |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    weights = {}
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as scratch:
            engines, weights[size] = build_engines(size, args.threads, Path(scratch))
            vocab_size = SIZES[size].get("vocab_size", GPT2Config().vocab_size)
            for batch in args.batches:
                result = race(engines, batch, args.new_tokens, args.rounds, vocab_size)
                lines += table_rows(size, batch, args.new_tokens, *result)
    lines += [
        "",
        "Limit by memory: tokens per second at batch 1 if reading the weights were all the work "
        "(small models can exceed it, as their weights stay in the caches).",
        "",
        "| size | threads | GB/s read | fp32 tokens/s | int8 tokens/s |",
        "|---|---|---|---|---|",
        *bandwidth_rows(weights, args.threads),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
