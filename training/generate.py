"""Generate with a trained model: continue prompts, translate, summarise and answer sources, draw images.

genmodels generate my-model "It was a dark" --num_return_sequences 3 --top_k 50 --temperature 0.8
genmodels generate my-model --file prompts.txt --output texts.jsonl
genmodels generate my-translator "Good morning." --num_beams 5 --attention map.png
genmodels generate my-translator --file english.txt --output spanish.txt
genmodels generate my-gan --label sneaker --num_images 64 --grid sneakers.png --seed 1 --truncation 0.8
genmodels generate my-gan --interpolate sneaker bag --grid between.gif
genmodels generate my-pixel-model sneaker bag --guidance_scale 2 --top_p 0.9 --grid drawn.png
genmodels generate my-pixel-model --complete shoe.png --keep 0.5 --grid completed.png
genmodels generate my-pixel-model --enlarge small.png --grid enlarged.png
genmodels generate my-pixel-model --describe shoe.png
genmodels generate my-text-gan "a red heart" "a cat" --output drawings
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TextIO

from hf_genmodels.auto import Kind
from hf_genmodels.config.commands import parse_command
from hf_genmodels.config.generate import GenerateOptions
from hf_genmodels.errors import UserError
from hf_genmodels.hub.card_text import printable
from hf_genmodels.hub.loading import model_kind, refuse_companion
from hf_genmodels.inference.language_texts import Text, generate

__all__ = ["GenerateOptions", "generate", "main"]

DESCRIPTION = """\
Generate with a trained model of any family. A language model continues prompts and draws at random;
--greedy and --num_beams turn that off. A sequence-to-sequence model makes one text of another (translates,
continues, summarises, answers) and searches the best one, as its generation_config.json says or by --num_beams;
--temperature, --top_k, --top_p or --min_p let it draw. A GAN draws images of labels or texts into --grid FILE.png
or into PNG files in the folder --output; so does a language model that draws, which also completes (--complete),
enlarges (--enlarge) and describes (--describe) pictures. What a flag is for, if not for all models, stands before it."""


def continue_prompts(options: GenerateOptions, output: Path | None) -> None:
    """Print what a language model writes, or write it to a file as JSON lines."""
    texts = generate(options)
    first = next(texts)  # what cannot work shows before the file is touched
    with output.open("w", encoding="utf-8") if output else nullcontext() as file:
        for number, text in enumerate(itertools.chain([first], texts), start=1):
            if file is not None:
                _write_text(text, file)
            else:
                _print_text(text, number, options)
    if output is not None:
        print(f"wrote {number:,} texts to {output}")


def rewrite_sources(options: GenerateOptions, output: Path | None) -> None:
    """Print what a sequence-to-sequence model makes of each source, or write it to a file."""
    from hf_genmodels.inference.seq2seq_texts import rewrite, rewrite_into

    if output is not None:
        print(rewrite_into(options, output))
        return
    for number, result in enumerate(rewrite(options), start=1):
        lines = result.lines()
        if len(lines) > 1 and number > 1:
            print()
        print(_shown("\n".join(lines)), flush=True)
    if options.attention is not None:
        print(f"drew {options.attention}")


def draw_images(options: GenerateOptions, output: Path | None) -> None:
    """Write the images that a generator draws."""
    from hf_genmodels.inference.images import draw

    for line in draw(options, output):
        print(_shown(line), flush=True)


def draw_pictures(options: GenerateOptions, output: Path | None) -> None:
    """Write the pictures that a language model draws, or print what it writes about pictures."""
    from hf_genmodels.inference.pixels import describe, draw

    if not options.describe:
        for line in draw(options, output):
            print(_shown(line), flush=True)
        return
    texts = describe(options)
    if output is None:
        for file, text in texts:
            print(_shown(f"{file}: {text}" if len(options.describe) > 1 else text), flush=True)
        return
    lines = [json.dumps({"file": file, "text": text}, ensure_ascii=False) for file, text in texts]
    output.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    print(f"wrote {len(lines):,} texts to {output}")


RUNS: dict[Kind, Callable[[GenerateOptions, Path | None], None]] = {
    "language model": continue_prompts,
    "pixel model": draw_pictures,
    "seq2seq": rewrite_sources,
    "gan": draw_images,
}


def _write_text(text: Text, file: TextIO) -> None:
    line = {
        "prompt": text.prompt,
        "text": text.prompt + text.continuation,
        "continuation": text.continuation,
        "num_tokens": text.num_tokens,
    }
    file.write(json.dumps(line, ensure_ascii=False) + "\n")
    file.flush()


def _print_text(text: Text, number: int, options: GenerateOptions) -> None:
    many = options.num_return_sequences > 1 or len(options.prompts) > 1 or options.file
    if many:
        print(f"--- {number}" if number == 1 else f"\n--- {number}")
    shown = text.prompt + text.continuation
    print(_shown(shown), flush=True)


def _shown(text: str) -> str:
    """Return a text as it may be printed: a terminal would obey control characters that were learned."""
    return printable(text) if sys.stdout.isatty() else text


def main(argv: Sequence[str] | None = None) -> None:
    """Run `genmodels generate`.

    Args:
        argv: Arguments after the command; `None`: those of the process.

    Raises:
        UserError: If what was asked for cannot work.
    """
    options = parse_command(
        GenerateOptions,
        argv,
        command="genmodels generate",
        description=DESCRIPTION,
        positionals={
            "model": "Folder or hub id of the model.",
            "prompts": "Texts to continue, to read or to draw, or labels to draw; for a language model, "
            "none or an empty one starts a new text.",
        },
    )
    output = Path(options.output).expanduser() if options.output else None
    if output is not None and not output.absolute().parent.is_dir():
        raise UserError(f"--output {output}: there is no folder {output.parent}.")
    refuse_companion(options.model)
    kind = model_kind(options.model)
    if kind not in RUNS:
        raise UserError(f"'{options.model}' is a {kind}: it generates nothing.")
    RUNS[kind](options, output)


if __name__ == "__main__":
    from hf_genmodels.cli import run_command

    run_command(main)
