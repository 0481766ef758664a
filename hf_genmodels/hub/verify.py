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
from hf_genmodels.hub.loading import (
    load_model,
    load_target_tokenizer,
    load_tokenizer,
    model_folder,
)

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

CLEAN_PROCESS = Path(__file__).with_name("clean_process.py")
PROMPT = "Once upon a time"
TEXT = " Grüße, 世界!  3.14\n\té 🙂 "
MAX_CHECKED_TOKENS = 32
NEW_TOKENS = 8
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
        num_logits: How many logits were equal to the last bit.
        generated: What the pipeline wrote.
        versions: Versions of torch and transformers.
        warnings: Lines that the clean process wrote to standard error.
    """

    folder: Path
    steps: tuple[str, ...]
    num_logits: int
    generated: str
    versions: Mapping[str, str]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        """One line for the terminal."""
        return (
            f"verified {self.folder}: a clean offline process without hf_genmodels loaded it through "
            f"{', '.join(self.steps)}; {self.num_logits:,} logits equal to the last bit"
        )


def verify_folder(
    folder: str | Path, model: PreTrainedModel | None = None, *, timeout: float = 300.0
) -> VerifyReport:
    """Load a published folder in a clean interpreter and compare what it computes.

    The interpreter runs isolated and offline with an empty cache; it cannot import this package and
    cannot open a connection. It loads configuration, tokenizer, every Auto class of `auto_map` and
    the pipeline. Its logits on fixed tokens must be those of the folder loaded here through our own
    classes, to the last bit, and so must the tokenizer's ids, and the text that a
    sequence-to-sequence model makes of a prompt.

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
    loaded, tokenizer = load_model(folder), load_tokenizer(folder)
    if model is not None:
        _compare_weights(folder, loaded, model)
    token_ids = fixed_tokens(loaded)
    target_ids = fixed_targets(loaded)
    logits = reference_logits(loaded, token_ids, target_ids)
    with tempfile.TemporaryDirectory(prefix="hf_genmodels-verify-") as scratch:
        request = _request(folder, token_ids, target_ids, Path(scratch))
        report, warnings = _run(folder, request, Path(scratch), timeout)
        _compare_tokenizer(folder, tokenizer, report)
        _compare_logits(folder, logits, load_file(request["logits_file"])["logits"])
        if target_ids is not None and request["task"]:
            _compare_text(folder, loaded, tokenizer, report["generated"])
    return VerifyReport(
        folder=folder,
        steps=(
            "AutoConfig",
            "AutoTokenizer",
            *request["auto_classes"],
            *([f"{request['task']} pipeline"] if request["task"] else []),
        ),
        num_logits=logits.numel(),
        generated=report["generated"],
        versions=report["versions"],
        warnings=warnings,
    )


def fixed_tokens(model: PreTrainedModel) -> torch.Tensor:
    """Return ids of tokens that a model reads, shape (2, T); they depend on its sizes only."""
    values = model.config.to_dict()
    return _fixed_ids(model, values.get("source_vocab_size") or model.config.vocab_size, seed=0)


def fixed_targets(model: PreTrainedModel) -> torch.Tensor | None:
    """Return ids of tokens that a decoder begins with, shape (2, T), if the model has one."""
    if not model.config.is_encoder_decoder:
        return None
    return _fixed_ids(model, model.config.vocab_size, seed=1)


def _fixed_ids(model: PreTrainedModel, vocab_size: int, seed: int) -> torch.Tensor:
    import torch

    from hf_genmodels.models.decoding import max_positions

    length = min(MAX_CHECKED_TOKENS, max_positions(model) or MAX_CHECKED_TOKENS)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(vocab_size, (2, length), generator=generator)


def reference_logits(
    model: PreTrainedModel, token_ids: torch.Tensor, target_ids: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the model's logits, shape (B, T, V).

    Args:
        model: The model in eval mode.
        token_ids: Tokens, shape (B, T); with a decoder, those of the source.
        target_ids: Tokens that the decoder reads, shape (B, T), if the model has one.
    """
    import torch

    targets = {} if target_ids is None else {"decoder_input_ids": target_ids}
    with torch.no_grad():
        return model(token_ids, **targets).logits


def _request(
    folder: Path, token_ids: torch.Tensor, target_ids: torch.Tensor | None, scratch: Path
) -> dict[str, Any]:
    import torch

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] in FAMILIES and "auto_map" not in config:
        raise UserError(
            f"'{folder}' lacks the model's code: its config.json has no auto_map. Make it complete "
            f"with: genmodels export {folder} OUT"
        )
    family = FAMILIES.get(config["model_type"])
    # Of transformers' own pipelines, none makes one text of another.
    auto_classes, task = ["AutoModel", "AutoModelForCausalLM"], "text-generation"
    if target_ids is not None:
        auto_classes, task = ["AutoModelForSeq2SeqLM"], ""
    if family:
        auto_classes, task = list(family.models), family.task
    return {
        "folder": str(folder),
        "remote_code": family is not None,
        "auto_classes": auto_classes,
        "head": auto_classes[-1],
        "task": task,
        "token_ids": token_ids.tolist(),
        "target_ids": None if target_ids is None else target_ids.tolist(),
        "text": TEXT,
        "prompt": PROMPT,
        "new_tokens": NEW_TOKENS,
        "num_threads": torch.get_num_threads(),
        "logits_file": str(scratch / "logits.safetensors"),
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
    ids = tokenizer(TEXT)["input_ids"]
    if report["text_ids"] != ids or report["decoded"] != tokenizer.decode(ids):
        raise UserError(f"The tokenizer in '{folder}' gives other tokens in a clean process.")


def _compare_text(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, found: str
) -> None:
    """Compare what the pipeline wrote there with what it writes here."""
    from hf_genmodels.models.pipeline_text_to_text import TextToTextPipeline

    pipe = TextToTextPipeline(
        model=model,
        tokenizer=tokenizer,
        target_tokenizer=load_target_tokenizer(folder),
        device="cpu",
    )
    expected = pipe(PROMPT, max_new_tokens=NEW_TOKENS)[0]["generated_text"]
    if found != expected:
        raise UserError(
            f"The pipeline in '{folder}' writes another text where hf_genmodels is not installed: "
            f"{found!r} instead of {expected!r}."
        )


def _compare_logits(folder: Path, expected: torch.Tensor, found: torch.Tensor) -> None:
    if not same_bits(expected, found):
        difference = "their type or shape differs"
        if expected.shape == found.shape:
            difference = f"largest difference {(expected - found).abs().max().item():.3g}"
        raise UserError(
            f"'{folder}' computes other logits where hf_genmodels is not installed: {difference}."
        )
