"""Write the golden checkpoints of this release, which every later one must load and resume.

    python -m tests.golden.write           # those that are not there yet
    python -m tests.golden.write pixels    # this one, anew

They are written once, in the root of the repository, and never again: what a later release cannot
read is a mistake of that release. A new format gets new folders beside the old ones.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import runs

GOLDEN = Path(__file__).parent
KEPT = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json", "preprocessor_config.json", "config.yaml", "checkpoints", "discriminator", "metrics.jsonl")  # fmt: skip
STEPS, MORE_STEPS = 2, 4
COMMON: dict[str, Any] = {
    "max_steps": STEPS, "save_every": STEPS, "keep_checkpoints": 1, "schedule__name": "constant",
    "ema_decay": 0.9,
}  # fmt: skip
SMALL: dict[str, Any] = {
    "tokenizer_vocab_size": 280, "model__hidden_size": 8, "model__num_attention_heads": 2,
    "model__residual_dropout": 0.1,
}  # fmt: skip
PIXELS: dict[str, Any] = {
    "tokenizer_vocab_size": 280, "pixels__caption": 0.25, "pixels__super_resolution": 0.25,
    "model__hidden_size": 8, "model__residual_dropout": 0.1, "model__zero_init_residual": "false",
}  # fmt: skip
CLIPS: dict[str, Any] = {
    "model__architecture": "dcgan", "model__hidden_size": 8, "model__num_hidden_layers": 1,
    "model__generator_width": 2, "model__discriminator_width": 2,
    "model__video_discriminator_width": 2,
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
    "pixels": lambda folder: runs.tiny_pixels(
        "sample:digits/test.parquet", output_dir=folder, **PIXELS, **COMMON
    ),
    "lm-adversarial": lambda folder: runs.tiny_lm_adversarial(
        "tests/golden/train.txt", output_dir=folder, model_name_or_path="tests/golden/lm",
        discriminator__hidden_size=8, discriminator__dropout=0.1, **COMMON,
    ),
    "clips": lambda folder: runs.tiny_clips(
        "sample:digits/test.parquet", output_dir=folder, validation_file="sample:digits/test.parquet",
        label_column="label", max_train_images=40, **CLIPS, **COMMON,
    ),
}  # fmt: skip


def made_by(family: str, folder: Path) -> list[float]:
    """Return what the published models of a folder make: logits, grey values or colours."""
    import hf_genmodels  # noqa: F401 - registers the models

    return MADE[family](folder)


def text_logits(folder: Path) -> list[float]:
    """Return logits of a language model after a text."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    return model(torch.tensor(TEXT)).logits[0, -1, ::10].tolist()


def target_logits(folder: Path) -> list[float]:
    """Return logits of a sequence-to-sequence model."""
    import torch
    from transformers import AutoModelForSeq2SeqLM

    ids = torch.tensor(TEXT)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    return model(input_ids=ids, decoder_input_ids=ids).logits[0, -1, ::10].tolist()


def images(folder: Path) -> list[float]:
    """Return every fourth row and column of two images."""
    import torch

    from hf_genmodels import GenGANGenerator

    random = torch.Generator().manual_seed(3)
    model = GenGANGenerator.from_pretrained(folder)
    drawn = model.sample(2, class_labels=torch.tensor([3, 8]), generator=random)
    return drawn[:, 0, ::4, ::4].flatten().tolist()


def pixel_logits(folder: Path) -> list[float]:
    """Return the colours of a picture in both sizes, and logits within it after a prompt and its copy."""
    import torch
    from transformers import AutoImageProcessor, AutoModelForCausalLM, AutoTokenizer

    from hf_genmodels.models.pixel_sampling import picture_prompt

    processor = AutoImageProcessor.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    given = torch.arange(0, 256, 4, dtype=torch.uint8).view(1, 1, 8, 8)
    colours, small = (processor(given, size)["pixel_ids"][0].tolist() for size in (0, 1))
    words = tokenizer(processor.labels[3], add_special_tokens=False)["input_ids"]
    first, count = model.config.palette_token_id, model.config.palette_size
    tokens = [*picture_prompt(model.config, words, small), *(first + c for c in colours[:40])]
    logits = model(torch.tensor([tokens])).logits[0, [-41, -20, -1], first : first + count]
    return [*colours, *small, *logits.flatten().tolist()]


def verdicts(folder: Path) -> list[float]:
    """Return logits of a language model and what its adversary says of a text."""
    import torch

    from hf_genmodels import GenTextDiscriminator

    discriminator = GenTextDiscriminator.from_pretrained(folder / "discriminator").eval()
    said = discriminator(torch.tensor(TEXT))
    return [*text_logits(folder), said.logits.item(), *said.token_logits[0].tolist()]


def clips(folder: Path) -> list[float]:
    """Return pixels of a clip, and what its discriminator says of it."""
    import torch
    from transformers import AutoTokenizer

    from hf_genmodels import GenGANDiscriminator, GenGANGenerator

    text = AutoTokenizer.from_pretrained(folder)("three moving left", return_tensors="pt")
    condition = {name: text[name] for name in ("input_ids", "attention_mask")}
    random = torch.Generator().manual_seed(3)
    drawn = GenGANGenerator.from_pretrained(folder).sample(1, generator=random, **condition)
    discriminator = GenGANDiscriminator.from_pretrained(folder / "discriminator").eval()
    said = discriminator(drawn, **condition).logits
    return [*drawn[..., ::4, ::4].flatten().tolist(), *said.flatten().tolist()]


TEXT = [[70, 71, 72, 73]]
MADE: dict[str, Callable[[Path], list[float]]] = {
    "lm": text_logits,
    "seq2seq": target_logits,
    "gan": images,
    "pixels": pixel_logits,
    "lm-adversarial": verdicts,
    "clips": clips,
}


def losses_of(folder: Path) -> list[float]:
    """Return the losses of all steps in a folder's metrics."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [line[name] for line in lines for name in ("loss", "d_loss") if name in line]


def write(family: str) -> None:
    """Train, keep what belongs to a run and its model, and record what it makes and how it goes on."""
    folder = GOLDEN / family
    shutil.rmtree(folder, ignore_errors=True)
    runs.call(COMMANDS[family](folder.relative_to(Path.cwd()))).succeeded()
    for path in folder.iterdir():
        if path.name not in KEPT:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    longer = folder.with_name(f".{family}")
    shutil.copytree(folder, longer)
    runs.call(runs.resume_of(family, longer, max_steps=MORE_STEPS)).succeeded()
    expected = {"made": made_by(family, folder), "losses": losses_of(longer)}
    shutil.rmtree(longer)
    (folder / "expected.json").write_text(json.dumps(expected) + "\n", encoding="utf-8")


def main() -> None:
    """Write the checkpoints that are named, or all that are missing."""
    from hf_genmodels.engine import publishing

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    missing = [family for family in COMMANDS if not (GOLDEN / family).is_dir()]
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=", ".join(COMMANDS))
    publishing.verify_folder = lambda _folder: "not verified"
    for family in parser.parse_args().families or missing:
        write(family)


if __name__ == "__main__":
    main()
