"""Compare translation on the CPU: MarianMTModel.generate, our decode in fp32 and int8, CTranslate2.

All engines hold the weights of one Marian checkpoint and translate the whole test file, greedily and
with 5 beams; rounds are interleaved, and time is CPU time of this process. `generate` gets batches of
32 in the order of the file, and once more sorted by length.

    python benchmarks/seq2seq_decoding.py --train_file train.jsonl ... [--model MARIAN_FOLDER]
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from seq2seq_common import (
    MAX_NEW_TOKENS,
    Pairs,
    bleu,
    machine,
    padded,
    parser,
    quiet,
    show,
    translated,
)
from seq2seq_quality import preset, train_like
from seq2seq_training import marian_shaped
from transformers import MarianConfig, MarianMTModel

from hf_genmodels.models.convert_marian import fields_to_marian, weights_to_marian
from hf_genmodels.models.modeling_seq2seq import GenSeq2SeqForConditionalGeneration

ROWS = 32
BASELINE = "transformers generate"
# From sources and a number of beams to translations without special tokens.
Engine = Callable[[Sequence[list[int]], int], list[list[int]]]


def generator_of(model: MarianMTModel, *, by_length: bool) -> Engine:
    """Return transformers' own generation, in batches of 32."""
    pad, eos = model.config.pad_token_id, model.config.eos_token_id

    @torch.inference_mode()
    def generate(sources: Sequence[list[int]], beams: int) -> list[list[int]]:
        outputs: list[list[int]] = [[] for _ in sources]
        order = list(range(len(sources)))
        if by_length:
            order.sort(key=lambda i: len(sources[i]))
        for start in range(0, len(order), ROWS):
            chosen = order[start : start + ROWS]
            ids = padded([sources[i] for i in chosen], pad)
            result = model.generate(
                input_ids=ids,
                attention_mask=ids.ne(pad).long(),
                num_beams=beams,
                do_sample=False,
                max_new_tokens=MAX_NEW_TOKENS,
            )
            for i, row in zip(chosen, result[:, 1:].tolist(), strict=True):
                end = row.index(eos) if eos in row else len(row)
                outputs[i] = [token for token in row[:end] if token != pad]
        return outputs

    return generate


def decoder_of(model: GenSeq2SeqForConditionalGeneration) -> Engine:
    """Return our decoding."""

    def decode(sources: Sequence[list[int]], beams: int) -> list[list[int]]:
        return translated(model, sources, beams)

    return decode


def ctranslate2_engine(
    model: GenSeq2SeqForConditionalGeneration, compute_type: str, threads: int, folder: Path
) -> Engine:
    """Write the model for CTranslate2 and return its translation; a token's name is its number."""
    import ctranslate2

    from hf_genmodels.hub.ctranslate2_spec import make_spec

    names = [str(token) for token in range(model.config.vocab_size)]
    folder.mkdir(exist_ok=True)
    make_spec(model, names, names).save(str(folder))
    translator = ctranslate2.Translator(
        str(folder), compute_type=compute_type, intra_threads=threads, inter_threads=1
    )

    def translate(sources: Sequence[list[int]], beams: int) -> list[list[int]]:
        results = translator.translate_batch(
            [[names[token] for token in source] for source in sources],
            beam_size=beams,
            max_batch_size=ROWS,
            max_decoding_length=MAX_NEW_TOKENS,
        )
        return [[int(token) for token in result.hypotheses[0]] for result in results]

    return translate


def build_engines(marian_folder: Path, threads: int, scratch: Path) -> dict[str, Engine]:
    """Return the engines by name, all with the same weights."""
    marian = MarianMTModel.from_pretrained(marian_folder).eval()
    load = GenSeq2SeqForConditionalGeneration.from_marian
    ours = load(marian_folder)
    engines = {
        BASELINE: generator_of(marian, by_length=False),
        "transformers generate, sorted": generator_of(marian, by_length=True),
        "hf_genmodels fp32": decoder_of(ours),
        "hf_genmodels int8": decoder_of(load(marian_folder).quantize_int8()),
    }
    if importlib.util.find_spec("ctranslate2"):
        for kind in ("float32", "int8"):
            engines[f"CTranslate2 {kind}"] = ctranslate2_engine(
                ours, kind, threads, scratch / "ctranslate2"
            )
    return engines


def trained_marian(pairs: Pairs, args: argparse.Namespace, folder: Path) -> Path:
    """Train Marian's shape with our preset's recipe, which learns sooner, and save it as Marian."""
    model = GenSeq2SeqForConditionalGeneration(marian_shaped(args.size, pairs.tokenizer))
    seconds, _ = train_like(preset(args), model, pairs, args.train_steps, seed=0)
    print(f"trained for {seconds:.0f} CPU s", file=sys.stderr)
    marian = MarianMTModel(MarianConfig(**fields_to_marian(model.config)))
    marian.load_state_dict(weights_to_marian(model.state_dict(), model.config), strict=False)
    marian.save_pretrained(folder)
    return folder


def race(
    engines: dict[str, Engine], sources: Sequence[list[int]], beams: int, rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[list[int]]]]:
    """Return each engine's CPU seconds per round and its translations."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    outputs = {}
    for translate in engines.values():
        translate(sources[:ROWS], beams)
    for number in range(rounds):
        for name, translate in engines.items():
            start = time.process_time()
            outputs[name] = translate(sources, beams)
            seconds[name].append(time.process_time() - start)
            print(
                f"{beams} beams, round {number}, {name}: {seconds[name][-1]:.1f}", file=sys.stderr
            )
    return seconds, outputs


def table_rows(beams: int, seconds: dict, outputs: dict, pairs: Pairs) -> list[str]:
    """Return the Markdown rows of one race."""
    base, count, rows = seconds[BASELINE], len(pairs.test.sources), []
    for name, times in seconds.items():
        median, best = statistics.median(times), min(times)
        equal = sum(a == b for a, b in zip(outputs[name], outputs[BASELINE], strict=True))
        rows.append(
            f"| {beams} | {name} | {median:.2f} | {best:.2f} | {count / median:.1f} "
            f"| {statistics.median(base) / median:.2f} | {min(base) / best:.2f} "
            f"| {bleu(outputs[name], pairs):.2f} | {equal / count:.1%} |"
        )
    return rows


def main() -> None:
    """Run the races and print one table."""
    flags = parser(__doc__)
    flags.add_argument("--model", type=Path, help="folder of a Marian model; else one is trained")
    flags.add_argument("--train_steps", type=int, default=200, help="steps of that training")
    flags.add_argument("--ours", action="append", default=[], help="change its recipe: one flag")
    flags.add_argument("--beams", nargs="+", type=int, default=[1, 5])
    flags.add_argument("--rounds", type=int, default=3)
    args = flags.parse_args()
    quiet(args.threads)

    pairs = Pairs(args)
    rows: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folder = args.model or trained_marian(pairs, args, scratch / "marian")
        engines: dict[str, Any] = build_engines(folder, args.threads, scratch)
        for beams in args.beams:
            rows += table_rows(
                beams, *race(engines, pairs.test.source_ids, beams, args.rounds), pairs
            )
    count = len(pairs.test.sources)
    show(
        [
            f"{Path(args.test_file).name}, {count} sources, at most {MAX_NEW_TOKENS} new tokens, "
            f"{args.threads} thread(s), {args.rounds} interleaved rounds. {machine()}",
            "",
            "| beams | engine | median CPU s | min CPU s | sentences / CPU s | speed-up (median) | "
            "speed-up (min) | BLEU | equal outputs |",
            "|---|---|---|---|---|---|---|---|---|",
            *rows,
        ],
        args.out,
    )


if __name__ == "__main__":
    main()
