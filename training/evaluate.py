"""Measure a trained model: a language model on a text, a sequence-to-sequence model on pairs.

genmodels evaluate my-model --file held-out.txt
genmodels evaluate my-model --file stories.jsonl --text_column story --generate 50 --output results.json
genmodels evaluate my-translator --file test.jsonl --source_lang en --target_lang es --num_beams 5
genmodels evaluate my-translator --source_file test.en --target_file test.es --metrics bleu chrf rouge_l
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hf_genmodels.config.commands import parse_command
from hf_genmodels.config.evaluate import EvaluateOptions
from hf_genmodels.errors import UserError
from hf_genmodels.hub.loading import model_kind
from hf_genmodels.inference import language_scores

__all__ = ["EvaluateOptions", "evaluate", "main"]

DESCRIPTION = """\
Measure a trained model of either family. A language model is measured on a text: loss, perplexity, bits per
byte. A sequence-to-sequence model is measured on pairs: loss and perplexity without label smoothing, and its
results beside the references (BLEU, chrF and more) with 95 % confidence intervals by bootstrap. What a flag is
for, if not for both, stands before it."""


def evaluate(options: EvaluateOptions) -> dict[str, Any]:
    """Measure a model on a text or on pairs; see `language_scores` and `seq2seq_scores`.

    Raises:
        UserError: If the model or the data cannot be read, or the options do not fit the model.
    """
    if not (options.file or options.dataset_name or options.source_file or options.target_file):
        raise UserError("There is nothing to measure on. Give --file FILE.")
    if model_kind(options.model) != "seq2seq":
        return language_scores.evaluate(options)
    from hf_genmodels.inference.seq2seq_scores import evaluate as evaluate_pairs

    return evaluate_pairs(options)


def table(results: dict[str, Any]) -> str:
    """Return the results of either family as lines for a terminal."""
    if "num_pairs" not in results:
        return language_scores.table(results)
    from hf_genmodels.inference.seq2seq_scores import table as table_of_pairs

    return table_of_pairs(results)


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
    print(table(results))
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
