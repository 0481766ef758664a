"""Write a model as ONNX graphs, which run without PyTorch."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_genmodels.errors import UserError, require_extra
from hf_genmodels.hub.export_report import ExportReport
from hf_genmodels.hub.export_staging import staged_folder
from hf_genmodels.hub.folder import TARGET_TOKENIZER
from hf_genmodels.hub.onnx_parts import Part, parts_of
from hf_genmodels.hub.onnx_readme import onnx_readme
from hf_genmodels.tokenization.saving import save_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

EXTRA = "export"
LIBRARIES = ("onnx", "onnxscript", "onnxruntime")
_INT64 = 7  # onnx.TensorProto.INT64


def export_onnx(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast | None,
    target_tokenizer: PreTrainedTokenizerFast | None,
    out: Path,
) -> ExportReport:
    """Write graphs that onnxruntime runs, with the tokenizer and how to run them, and compare.

    Batches and lengths may have any size. Weights are written as fp32.

    Args:
        model: A language model, an encoder-decoder Transformer or a generator of ours.
        tokenizer: Its tokenizer, if it reads texts.
        target_tokenizer: Tokenizer of what it writes, if that is another one.
        out: Folder to write.

    Raises:
        UserError: If a library is missing, the model has a part without an ONNX form, with every
            reason, or the graphs compute something else.
    """
    for library in LIBRARIES:
        require_extra(library, EXTRA)
    reasons = differences_from_onnx(model.config)
    if reasons:
        raise UserError("This model cannot be written as ONNX: " + "; ".join(reasons) + ".")
    family = parts_of(model.float().eval())
    with staged_folder(out) as staging:
        for part in family.parts:
            _write(part, staging / f"{part.name}.onnx")
        if tokenizer is not None:
            save_tokenizer(tokenizer, staging)
        if target_tokenizer is not None:
            save_tokenizer(target_tokenizer, staging / TARGET_TOKENIZER)
        card = onnx_readme(model.config, out.resolve().name, target_tokenizer is not None)
        (staging / "README.md").write_text(card, encoding="utf-8")
        model.config.save_pretrained(staging)
        sessions = {part.name: _session(staging / f"{part.name}.onnx") for part in family.parts}
        difference, text = family.compare(staging, sessions)
    return ExportReport(out, "onnx", difference, f"checked {out}: {text}")


def differences_from_onnx(config: Any) -> list[str]:
    """Return in words what a model has and ONNX graphs of this export cannot have.

    Args:
        config: Its configuration.
    """
    values = config.to_dict()
    reasons = []
    if values.get("image_sizes"):
        reasons.append("its pictures need rows and columns of pixels, which the graphs do not take")
    if values.get("cross_attention") == "bidirectional":
        reasons.append(
            "cross_attention='bidirectional' needs operations that onnxruntime does not have"
        )
    if values.get("refinement_decoder"):
        reasons.append(
            "refinement_decoder=True writes a text in two passes, which are not one graph"
        )
    return reasons


def _write(part: Part, file: Path) -> None:
    """Trace a part and write it as a graph with its weights."""
    import torch

    with torch.no_grad(), _quiet():
        try:
            program: Any = torch.onnx.export(
                part.module.eval(),
                part.arguments,
                dynamo=True,
                custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
                dynamic_shapes=part.dynamic_shapes,
                input_names=list(part.inputs),
                output_names=list(part.outputs),
                verbose=False,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            raise UserError(
                f"This model cannot be written as ONNX: its {part.name} cannot be traced "
                f"({_first_line(error)})."
            ) from error
    program.save(str(file))


def _stable_sort(values: Any, stable: bool, dim: int = -1, descending: bool = False) -> Any:
    """Sort booleans or whole numbers in ONNX; of equal ones TopK gives the first one first."""
    from onnxscript import opset18 as op

    del stable  # it always is
    as_numbers = op.Cast(values, to=_INT64)
    size = op.Gather(op.Shape(values), op.Constant(value_ints=[dim]))
    found, order = op.TopK(as_numbers, size, axis=dim, largest=int(descending), sorted=1)
    return op.CastLike(found, values), order


def _session(file: Path) -> Any:
    onnxruntime = require_extra("onnxruntime", EXTRA)
    try:
        return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    except Exception as error:  # it has its own class for each of a dozen mistakes, under no name
        raise UserError(
            f"This model cannot be written as ONNX: onnxruntime refuses {file.name} "
            f"({_first_line(error)})."
        ) from error


def _first_line(error: Exception) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines: Sequence[str] = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[0] if lines else type(cause).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from speaking of what a user cannot change."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
