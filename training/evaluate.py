"""Measure a trained model on a text, on pairs of texts or on real images.

genmodels evaluate my-model --file held-out.txt
genmodels evaluate my-model --file stories.jsonl --text_column story --generate 50 --output results.json
genmodels evaluate my-translator --file test.jsonl --source_lang en --target_lang es --num_beams 5
genmodels evaluate my-translator --source_file test.en --target_file test.es --metrics bleu chrf rouge_l
genmodels evaluate my-gan --file my_images --judge my-judge
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_genmodels.config.commands import parse_command
from hf_genmodels.config.evaluate import EvaluateOptions
from hf_genmodels.errors import UserError
from hf_genmodels.hub.loading import model_kind, refuse_companion

FAMILIES = {
    "language model": "language_scores",
    "seq2seq": "seq2seq_scores",
    "gan": "image_scores",
    "pixel model": "pixel_scores",
}
__all__ = ["EvaluateOptions", "evaluate", "main"]

DESCRIPTION = """\
Measure a trained model of any family. A language model is measured on a text: loss, perplexity, bits per byte. A
sequence-to-sequence model is measured on pairs: loss and perplexity without label smoothing, and its results
beside the references (BLEU, chrF and more) with 95 % confidence intervals by bootstrap. A generator of images is
measured against real ones by the features of a judge: distances, precision and recall, accuracy, copies, how
well images match their captions; results.json and pictures are written into its folder. A language model that
draws is measured like it, and on held-out images by its likelihood, its captions and the pictures that it
enlarges. What a flag is for, if
not for all, stands before it."""


def evaluate(options: EvaluateOptions) -> dict[str, Any]:
    """Measure a model; see `language_scores`, `seq2seq_scores` and `image_scores`.

    Raises:
        UserError: If the model or the data cannot be read, or the options do not fit the model.
    """
    refuse_companion(options.model)
    kind = model_kind(options.model)
    given = options.file or options.dataset_name or options.source_file or options.target_file
    if not given and kind not in (
        "gan",
        "pixel model",
    ):  # whose folder tells what it was trained on
        raise UserError("There is nothing to measure on. Give --file FILE.")
    return _family(kind).evaluate(options)


def table(kind: str, results: dict[str, Any]) -> str:
    """Return the results of a model of some kind as lines for a terminal."""
    return _family(kind).table(results)


def _family(kind: str) -> Any:
    """Return the module that measures models of a kind.

    Raises:
        UserError: If there is none.
    """
    if kind == "judge":
        raise UserError(
            "A judge is no generator. Give the folder of the generator, and the judge with --judge."
        )
    if kind not in FAMILIES:
        raise UserError(f"A {kind} is no generator: there is nothing to be measured.")
    return importlib.import_module(f"hf_genmodels.inference.{FAMILIES[kind]}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run `genmodels evaluate`.

    Args:
        argv: Arguments after the command; `None`: those of the process.

    Raises:
        UserError: If what was asked for cannot work.
    """
    options = parse_command(
        EvaluateOptions,
        argv,
        command="genmodels evaluate",
        description=DESCRIPTION,
        positionals={"model": "Folder of the model."},
    )
    output = Path(options.output).expanduser() if options.output else None
    if output is not None and not output.absolute().parent.is_dir():
        raise UserError(f"--output {output}: there is no folder {output.parent}.")
    results = evaluate(options)
    print(table(model_kind(options.model), results))
    if output is not None:
        described = {
            "model": options.model,
            "text": options.file or options.dataset_name or options.source_file,
            **results,
        }
        staging = output.with_name(f".{output.name}.tmp")
        staging.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        staging.replace(output)
        print(f"wrote {output}")


if __name__ == "__main__":
    from hf_genmodels.cli import run_command

    run_command(main)
