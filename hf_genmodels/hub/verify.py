"""Prove that a published folder works for somebody who does not have this package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_genmodels.auto import FAMILIES
from hf_genmodels.errors import UserError
from hf_genmodels.hub.clean_process import pixels_of
from hf_genmodels.hub.folder import companion_names, processor_classes
from hf_genmodels.hub.loading import (
    load_image_processor_if_any,
    load_model,
    load_target_tokenizer,
    load_tokenizer_if_any,
    model_folder,
)
from hf_genmodels.hub.probe import (
    PICTURE,
    Call,
    Probe,
    output_of,
    pipeline_of,
    probe_of,
    written_by,
)

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

CLEAN_PROCESS = Path(__file__).with_name("clean_process.py")
TEXT = " Grüße, 世界!  3.14\n\té 🙂 "
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "TOKENIZERS_PARALLELISM": "false",
}
SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH")


@dataclass(frozen=True)
class VerifyReport:
    """What a clean process found.

    Attributes:
        folder: The folder that was checked.
        steps: What was done there, in order.
        output: What was compared: `logits`, or `images`.
        num_values: How many numbers of it were equal to the last bit.
        generated: What the pipelines wrote, or the digests of the images that they drew.
        versions: Versions of torch and transformers.
        warnings: Lines that the clean process wrote to standard error.
    """

    folder: Path
    steps: tuple[str, ...]
    output: str
    num_values: int
    generated: str
    versions: Mapping[str, str]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        """One line for the terminal."""
        what = "logits" if self.output == "logits" else f"numbers of {self.output}"
        return (
            f"verified {self.folder}: a clean offline process without hf_genmodels loaded it through "
            f"{', '.join(self.steps)}; {self.num_values:,} {what} equal to the last bit"
        )


def verify_folder(
    folder: str | Path, model: PreTrainedModel | None = None, *, timeout: float = 300.0
) -> VerifyReport:
    """Load a published folder in a clean interpreter and compare what it computes.

    The interpreter runs isolated and offline with an empty cache; it cannot import this package and
    cannot open a connection. It loads configuration, tokenizer, every Auto class of `auto_map`, the
    companions and the pipelines. Its logits on fixed tokens, or its images of fixed noise, must be
    those of the folder loaded here through our own classes, to the last bit, and so must the
    tokenizer's ids, the colours that its image processor sees, the text that a sequence-to-sequence
    model makes of a prompt, and what the pipelines of a model that draws make of theirs.

    Args:
        folder: The published folder.
        model: The model that was published, on any device: its weights must be those in the folder,
            to the last bit.
        timeout: Seconds after which the check is given up.

    Returns:
        What was found.

    Raises:
        UserError: If anything failed or differs, with what it was.
    """
    from safetensors.torch import load_file

    folder = model_folder(folder).resolve()
    loaded, tokenizer = load_model(folder), load_tokenizer_if_any(folder)
    processor = load_image_processor_if_any(folder)
    if model is not None:
        _compare_weights(folder, loaded, model)
    probe = probe_of(loaded)
    expected = output_of(loaded, probe)
    with tempfile.TemporaryDirectory(prefix="hf_genmodels-verify-") as scratch:
        request = _request(folder, probe, tokenizer is not None, Path(scratch))
        request["picture"] = PICTURE if processor is not None else None
        request["processors"] = processor_classes(folder) if processor is not None else []
        report, warnings = _run(folder, request, Path(scratch), timeout)
        if tokenizer is not None:
            _compare_tokenizer(folder, tokenizer, report)
        if processor is not None:
            _compare_processor(folder, processor, report)
        found = load_file(request["output_file"])["output"]
        _compare_output(folder, probe.output, expected, found)
    parts = {
        "tokenizer": tokenizer,
        "target_tokenizer": load_target_tokenizer(folder),
        "image_processor": processor,
    }
    for call, made in zip(probe.calls, report["generated"], strict=True):
        if call.is_exact:
            _compare_pipeline(folder, call, pipeline_of(call.task, loaded, **parts), made)
    return VerifyReport(
        folder=folder,
        steps=(
            "AutoConfig",
            *(["AutoTokenizer"] if tokenizer is not None else []),
            *request["processors"],
            *probe.auto_classes,
            *request["companions"],
            *(f"{call.task} pipeline" for call in probe.calls),
        ),
        output=probe.output,
        num_values=expected.numel(),
        generated="\n".join(line for lines in report["generated"] for line in lines),
        versions=report["versions"],
        warnings=warnings,
    )


def _request(folder: Path, probe: Probe, has_tokenizer: bool, scratch: Path) -> dict[str, Any]:
    """Write down what the clean process shall do."""
    import torch
    from safetensors.torch import save_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    is_ours = config["model_type"] in FAMILIES
    if is_ours and "auto_map" not in config:
        raise UserError(
            f"'{folder}' lacks the model's code: its config.json has no auto_map. Make it complete "
            f"with: genmodels export {folder} OUT"
        )
    inputs = {name: value.contiguous() for name, value in probe.inputs.items()}
    save_file(inputs, scratch / "inputs.safetensors")
    return {
        "folder": str(folder),
        "remote_code": is_ours,
        "companions": companion_names(folder),
        "auto_classes": probe.auto_classes,
        "head": probe.auto_classes[-1],
        "calls": [
            {"task": call.task, "prompt": call.prompt, "options": dict(call.options)}
            for call in probe.calls
        ],
        "inputs_file": str(scratch / "inputs.safetensors"),
        "output": probe.output,
        "output_file": str(scratch / "output.safetensors"),
        "text": TEXT if has_tokenizer else None,
        "num_threads": torch.get_num_threads(),
    }


def _run(
    folder: Path, request: dict[str, Any], scratch: Path, timeout: float
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Run the clean process and return its report and what it wrote to standard error."""
    request_file, report_file = scratch / "request.json", scratch / "report.json"
    request_file.write_text(json.dumps(request), encoding="utf-8")
    command = [sys.executable, "-I", str(CLEAN_PROCESS), str(request_file), str(report_file)]
    try:
        process = subprocess.run(
            command,
            env=_environment(scratch),
            cwd=scratch,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"Checking '{folder}' took longer than {timeout:g} seconds and was given up."
        ) from error
    lines = tuple(line for line in process.stderr.splitlines() if line.strip())
    if not report_file.is_file():
        last = lines[-1] if lines else f"exit status {process.returncode}"
        raise UserError(f"Checking '{folder}' ended without a result: {last}")
    report = json.loads(report_file.read_text(encoding="utf-8"))
    if report["error"]:
        raise UserError(
            f"'{folder}' does not work where hf_genmodels is not installed: {report['step']} failed: "
            f"{report['error']}"
        )
    return report, lines


def _environment(scratch: Path) -> dict[str, str]:
    """Return this process's environment, offline, with empty caches and without secrets."""
    environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
    environment |= OFFLINE
    environment |= {"HOME": str(scratch), "HF_HOME": str(scratch / "hf")}
    for name in ("HF_HUB_CACHE", "HF_MODULES_CACHE", "TRANSFORMERS_CACHE", "XDG_CACHE_HOME"):
        environment.pop(name, None)
    return environment


def _compare_weights(folder: Path, loaded: PreTrainedModel, model: PreTrainedModel) -> None:
    """Compare the weights in the folder with those of the model that was published."""
    found, expected = loaded.state_dict(), model.state_dict()
    for name in sorted(found.keys() | expected.keys()):
        if name not in found or name not in expected:
            where = "the model" if name in expected else "the folder"
            raise UserError(f"The weights in '{folder}' are others: {name} is only in {where}.")
        theirs = expected[name].to(device="cpu", dtype=found[name].dtype)
        if not same_bits(found[name], theirs):
            raise UserError(
                f"The weights in '{folder}' are not those of the model: {name} differs."
            )


def same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Tell whether two tensors on the CPU have one type, one shape and equal bytes."""
    import torch

    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    first, second = first.contiguous().flatten(), second.contiguous().flatten()
    return bool(torch.equal(first.view(torch.uint8), second.view(torch.uint8)))


def _compare_tokenizer(
    folder: Path, tokenizer: PreTrainedTokenizerFast, report: dict[str, Any]
) -> None:
    ids = tokenizer(TEXT, verbose=False)["input_ids"]  # may be longer than the model reads
    if report["text_ids"] != ids or report["decoded"] != tokenizer.decode(ids):
        raise UserError(f"The tokenizer in '{folder}' gives other tokens in a clean process.")


def _compare_processor(folder: Path, processor: Any, report: dict[str, Any]) -> None:
    expected = pixels_of(processor, PICTURE)
    for name, pixels in report["pixels"].items():
        if pixels != expected:
            raise UserError(
                f"The image processor in '{folder}' gives other pixels in a clean process that loads "
                f"it by {name}."
            )


def _compare_pipeline(folder: Path, call: Call, pipe: Any, found: list[str]) -> None:
    """Compare what a pipeline made there with what it makes here."""
    expected = written_by(pipe, call)
    if found != expected:
        what = "draws other images" if "seed" in call.options else "writes another text"
        raise UserError(
            f"The pipeline in '{folder}' {what} where hf_genmodels is not installed: {found!r} "
            f"instead of {expected!r}."
        )


def _compare_output(folder: Path, name: str, expected: torch.Tensor, found: torch.Tensor) -> None:
    if not same_bits(expected, found):
        difference = "their type or shape differs"
        if expected.shape == found.shape:
            difference = f"largest difference {(expected - found).abs().max().item():.3g}"
        raise UserError(
            f"'{folder}' computes other {name} where hf_genmodels is not installed: {difference}."
        )
