"""Write a model to a new folder: complete in Hub format, or for those who do not have this package.

genmodels export OUT my-model
genmodels export OUT my-gpt2 --format gpt2
genmodels export OUT my-marian --format marian
genmodels export OUT my-fast-model --format ctranslate2
genmodels export OUT my-graphs --format onnx
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hf_genmodels.auto import FAMILIES
from hf_genmodels.config.commands import parse_command
from hf_genmodels.errors import UserError, suggest
from hf_genmodels.hub import verify
from hf_genmodels.hub.card import PICTURES
from hf_genmodels.hub.export_ctranslate2 import export_ctranslate2
from hf_genmodels.hub.export_gpt2 import export_gpt2
from hf_genmodels.hub.export_marian import export_marian
from hf_genmodels.hub.export_report import ExportReport
from hf_genmodels.hub.folder import companion_names, publish_folder
from hf_genmodels.hub.loading import (
    is_checkpoint,
    load_companion,
    load_image_processor_if_any,
    load_model,
    load_target_tokenizer,
    load_tokenizer_if_any,
    model_folder,
    run_folder,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

# Format -> the model types that have it; `hub` is for all.
FORMATS: dict[str, tuple[str, ...]] = {
    "hub": tuple(FAMILIES),
    "gpt2": ("gen_gpt",),
    "marian": ("gen_seq2seq",),
    "ctranslate2": ("gen_seq2seq",),
    "onnx": ("gen_gpt", "gen_seq2seq", "gen_gan"),
}
# Format and model type -> why there is none.
REFUSED = {
    ("onnx", "gen_rnn_seq2seq"): "It branches on the lengths of the rows and packs them by length, "
    "where torch.export stops: such a branch depends on the data.",
}
# Types of transformers' own -> what makes a model of this package of one.
IMPORTERS = {
    "gpt2": "GenGPTForCausalLM.from_gpt2",
    "marian": "GenSeq2SeqForConditionalGeneration.from_marian",
}


def export(
    source_dir: str | Path, out_dir: str | Path, format: str = "hub", *, overwrite: bool = False
) -> ExportReport:
    """Write a model to a folder of its own and check what was written.

    Args:
        source_dir: Output folder of a run, published folder, or one of a run's checkpoints.
        out_dir: New or empty folder.
        format: `hub`: everything that the Auto classes need, with the model's code, verified in a
            clean process. `gpt2`, `marian`: what `GPT2LMHeadModel` or `MarianMTModel` loads without
            any code of ours. `ctranslate2`: what `ctranslate2.Translator` loads. `onnx`: graphs for
            onnxruntime, with how to run them.
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
    model, tokenizer = load_model(source), load_tokenizer_if_any(source)
    _check_type(source, model.config.model_type, format)
    if format == "hub":
        return _export_hub(source, model, tokenizer, out)
    if format == "onnx":
        from hf_genmodels.hub.export_onnx import export_onnx

        return export_onnx(model, tokenizer, load_target_tokenizer(source), out)
    if tokenizer is None:
        raise UserError(f"--format {format} needs a tokenizer, and there is none in '{source}'.")
    if format == "gpt2":
        return export_gpt2(model, tokenizer, out)
    export_pairs = export_marian if format == "marian" else export_ctranslate2
    return export_pairs(model, tokenizer, load_target_tokenizer(source), out)


def _check_type(source: Path, model_type: str, format: str) -> None:
    if model_type not in FAMILIES:
        importer = IMPORTERS.get(model_type)
        raise UserError(
            f"'{source}' holds a model of type {model_type!r}; only models of this package can be "
            f"exported ({', '.join(FAMILIES)})."
            + (f" {importer}(folder) makes one of it." if importer else "")
        )
    if model_type not in FORMATS[format]:
        fitting = [name for name, types in FORMATS.items() if model_type in types]
        raise UserError(
            f"--format {format} is for models of type {', '.join(FORMATS[format])}, and '{source}' "
            f"holds one of type {model_type}. {REFUSED.get((format, model_type), '')}".rstrip()
            + f" Choose from: {', '.join(fitting)}."
        )


def _export_hub(
    source: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast | None, out: Path
) -> ExportReport:
    card_folder = run_folder(source) if is_checkpoint(source) else source
    out.mkdir(parents=True, exist_ok=True)
    for name in ("README.md", *PICTURES):
        if (card_folder / name).is_file() and not is_checkpoint(source):
            (out / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(card_folder / name, out / name)
    found = {name: load_companion(source, name) for name in companion_names(source)}
    companions = {name: one for name, one in found.items() if one is not None}
    publish_folder(
        model,
        tokenizer,
        out,
        target_tokenizer=load_target_tokenizer(source),
        companions=companions,
        image_processor=load_image_processor_if_any(source),
    )
    report = verify.verify_folder(out, model)
    return ExportReport(out, "hub", 0.0, f"{report}; largest difference 0")


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
    """hub: complete, with the model's code, for every family; gpt2: what GPT2LMHeadModel loads without any
    code of ours, for language models; marian: what MarianMTModel loads without, for encoder-decoder
    Transformers; ctranslate2: what ctranslate2.Translator loads, for the same; onnx: graphs for onnxruntime,
    for language models, encoder-decoder Transformers and generators of images."""

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
