"""Write the golden checkpoints of this release, which every later one must load and resume.

    python -m tests.golden.write

They are written once, in the root of the repository, and never again: what a later release cannot
read is a mistake of that release. A new format gets new folders beside the old ones.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests import runs

GOLDEN = Path(__file__).parent
KEPT = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json", "config.yaml", "checkpoints", "discriminator", "metrics.jsonl")  # fmt: skip
STEPS, MORE_STEPS = 2, 4
COMMON: dict[str, Any] = {
    "max_steps": STEPS, "save_every": STEPS, "keep_checkpoints": 1, "schedule__name": "constant",
    "ema_decay": 0.9,
}  # fmt: skip
SMALL: dict[str, Any] = {
    "tokenizer_vocab_size": 280, "model__hidden_size": 8, "model__num_attention_heads": 2,
    "model__residual_dropout": 0.1,
}  # fmt: skip
COMMANDS = {
    "lm": lambda folder: runs.tiny_run(
        "tests/golden/train.txt", output_dir=folder, model__num_hidden_layers=1, **SMALL, **COMMON
    ),
    "seq2seq": lambda folder: runs.tiny_translation(
        "tests/golden/pairs.jsonl", output_dir=folder, model__encoder_layers=1,
        model__decoder_layers=1, **SMALL, **COMMON,
    ),
    "gan": lambda folder: runs.tiny_gan(
        "sample:digits/test.parquet", output_dir=folder, validation_file="sample:digits/test.parquet",
        label_column="label", model__architecture="dcgan", max_train_images=40, model__generator_width=2,
        model__discriminator_width=2, **COMMON,
    ),
}  # fmt: skip


def made_by(family: str, folder: Path) -> list[Any]:
    """Return what the published model of a folder makes: token ids, or grey values."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    from hf_genmodels import GenGANGenerator

    if family == "gan":
        random = torch.Generator().manual_seed(3)
        model = GenGANGenerator.from_pretrained(folder)
        images = model.sample(2, class_labels=torch.tensor([3, 8]), generator=random)
        return images[:, 0, ::4, ::4].flatten().tolist()
    ids = torch.tensor([[70, 71, 72, 73]])
    if family == "lm":
        logits = AutoModelForCausalLM.from_pretrained(folder).eval()(ids).logits
    else:
        model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
        logits = model(input_ids=ids, decoder_input_ids=ids).logits
    return logits[0, -1, ::10].tolist()


def losses_of(folder: Path) -> list[float]:
    """Return the losses of all steps in a folder's metrics."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [line[name] for line in lines for name in ("loss", "d_loss") if name in line]


def write(family: str) -> None:
    """Train, keep what belongs to a run and its model, and record what it makes and how it goes on."""
    import hf_genmodels  # noqa: F401 - registers the models

    folder = GOLDEN / family
    shutil.rmtree(folder, ignore_errors=True)
    runs.call(COMMANDS[family](folder.relative_to(Path.cwd()))).succeeded()
    for path in folder.iterdir():
        if path.name not in KEPT:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    longer = folder.with_name(f".{family}")
    shutil.copytree(folder, longer)
    runs.call(["train", family, "--resume", longer, "--max_steps", MORE_STEPS]).succeeded()
    expected = {"made": made_by(family, folder), "losses": losses_of(longer)}
    shutil.rmtree(longer)
    (folder / "expected.json").write_text(json.dumps(expected) + "\n", encoding="utf-8")


if __name__ == "__main__":
    from hf_genmodels.engine import publishing

    publishing.verify_folder = lambda _folder: "not verified"
    for name in COMMANDS:
        write(name)
