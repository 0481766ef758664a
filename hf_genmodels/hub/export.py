"""Write a model to a new folder: complete in Hub format, or as GPT-2 of transformers.

genmodels export OUT my-model
genmodels export OUT my-gpt2 --format gpt2
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_genmodels.auto import FAMILIES
from hf_genmodels.config.commands import parse_command
from hf_genmodels.errors import UserError, suggest
from hf_genmodels.hub import verify
from hf_genmodels.hub.card import PICTURES, CardData
from hf_genmodels.hub.folder import no_progress_bars, publish_folder
from hf_genmodels.hub.loading import (
    is_checkpoint,
    load_model,
    load_tokenizer,
    model_folder,
    run_folder,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

FORMATS = ("hub", "gpt2")
# Logits of the same network in another order of operations, relative to their largest value.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote and how it was checked.

    Attributes:
        folder: The folder.
        format: Its format.
        largest_difference: Largest absolute difference of the logits to those of the source.
        text: What was checked, in words.
    """

    folder: Path
    format: str
    largest_difference: float
    text: str


def export(
    source_dir: str | Path, out_dir: str | Path, format: str = "hub", *, overwrite: bool = False
) -> ExportReport:
    """Write a model to a folder of its own and check what was written.

    Args:
        source_dir: Output folder of a run, published folder, or one of a run's checkpoints.
        out_dir: New or empty folder.
        format: `hub`: everything that the Auto classes need, with the model's code, verified in a
            clean process. `gpt2`: what `GPT2LMHeadModel` loads without any code of ours.
        overwrite: Replace a model in `out_dir`; other files in it stay.

    Returns:
        What was written and how it compares.

    Raises:
        UserError: If the source cannot be loaded, the format does not fit it (with every reason),
            the folder is in use, or the check finds a difference.
    """
    if format not in FORMATS:
        raise UserError(
            f"--format {format} is unknown. {suggest(format, FORMATS)}Choose from: "
            f"{', '.join(FORMATS)}."
        )
    source, out = model_folder(source_dir), Path(out_dir).expanduser()
    _check_out(source, out, overwrite)
    model, tokenizer = load_model(source), load_tokenizer(source)
    if model.config.model_type not in FAMILIES:
        raise UserError(
            f"'{source}' holds a model of type {model.config.model_type!r}; only models of this "
            f"package can be exported ({', '.join(FAMILIES)})."
            + (
                " GenGPTForCausalLM.from_gpt2(folder) makes one of it."
                if model.config.model_type == "gpt2"
                else ""
            )
        )
    if format == "gpt2":
        return _export_gpt2(model, tokenizer, out)
    return _export_hub(source, model, tokenizer, out)


def _export_hub(
    source: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, out: Path
) -> ExportReport:
    card_folder = run_folder(source) if is_checkpoint(source) else source
    out.mkdir(parents=True, exist_ok=True)
    for name in ("README.md", *PICTURES):
        if (card_folder / name).is_file() and not is_checkpoint(source):
            (out / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(card_folder / name, out / name)
    publish_folder(model, tokenizer, out)
    report = verify.verify_folder(out, model)
    return ExportReport(out, "hub", 0.0, str(report))


def _export_gpt2(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, out: Path
) -> ExportReport:
    from transformers import GPT2Config, GPT2LMHeadModel

    from hf_genmodels.models.convert_gpt2 import fields_to_gpt2, weights_to_gpt2

    try:
        config = GPT2Config(**fields_to_gpt2(model.config))
    except ValueError as error:
        raise UserError(str(error)) from error
    gpt2: Any = GPT2LMHeadModel(config)
    gpt2.to(model.dtype)
    gpt2.load_state_dict(weights_to_gpt2(model.state_dict(), config.n_layer))
    gpt2.tie_weights()
    gpt2.generation_config = model.generation_config
    summary = (
        "A compact language model that continues a given text, written as GPT-2: "
        "`GPT2LMHeadModel` of transformers and whatever else reads GPT-2 loads it."
    )
    name = out.resolve().name
    publish_folder(gpt2, tokenizer, out, CardData(name=name, summary=summary))
    return _compare_gpt2(model, tokenizer, out)


def _compare_gpt2(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, out: Path
) -> ExportReport:
    """Load what was written as a plain GPT-2 and compare it with the source."""
    from transformers import AutoTokenizer, GPT2LMHeadModel

    with no_progress_bars():
        loaded: Any = GPT2LMHeadModel.from_pretrained(out, output_loading_info=True)
    written, info = loaded
    if info["missing_keys"] or info["unexpected_keys"] or info["mismatched_keys"]:
        raise UserError(f"'{out}' is not a complete GPT-2: {info}.")
    if AutoTokenizer.from_pretrained(out)(verify.TEXT) != tokenizer(verify.TEXT):
        raise UserError(f"The tokenizer in '{out}' gives other tokens than that of the source.")
    token_ids = verify.fixed_tokens(model)
    expected = verify.reference_logits(model, token_ids)
    found = verify.reference_logits(written.eval(), token_ids)
    difference = (found - expected).abs().max().item()
    if not difference <= TOLERANCE * expected.abs().max().item():
        raise UserError(
            f"'{out}' computes other logits than its source: largest difference {difference:.3g}."
        )
    text = (
        f"checked {out}: GPT2LMHeadModel loads it without remote code; largest difference of "
        f"{expected.numel():,} logits to the source: {difference:.3g}"
    )
    return ExportReport(out, "gpt2", difference, text)


def _check_out(source: Path, out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"'{out}' is a file. Name a new folder.")
    if not out.is_dir():
        return
    if out.resolve() == source.resolve():
        raise UserError(f"'{out}' is the source itself. Name another folder.")
    names = sorted(path.name for path in out.iterdir())
    if (out / "checkpoints").is_dir() or (out / "config.yaml").is_file():
        raise UserError(f"'{out}' is the output folder of a training run. Name another folder.")
    if names and not overwrite:
        listed = ", ".join(names[:3]) + (", ..." if names[3:] else "")
        raise UserError(
            f"'{out}' is not empty ({listed}). Name a new folder, or replace the model in it with "
            "--overwrite."
        )


@dataclass
class ExportOptions:
    """Options of `genmodels export`."""

    source: str
    """Folder of the model."""

    out: str
    """Folder to write."""

    format: str = "hub"
    """hub: complete, with the model's code; gpt2: what GPT2LMHeadModel loads without any code."""

    overwrite: bool = False
    """Replace a model that stands in the folder."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run `genmodels export`.

    Args:
        argv: Arguments after the command; `None`: those of the process.
    """
    options = parse_command(
        ExportOptions,
        argv,
        command="genmodels export",
        description="Write a model to a folder of its own and check what was written.",
        positionals={
            "source": "Output folder of a run, published folder, or OUT/checkpoints/step-...",
            "out": "New folder.",
        },
    )
    report = export(options.source, options.out, options.format, overwrite=options.overwrite)
    sys.stdout.write(f"wrote {report.folder} (format {report.format})\n{report.text}\n")


if __name__ == "__main__":
    from hf_genmodels.cli import run_command

    run_command(main)
