"""`make demo`: from bundled data to published models, and what they write.

Trains a tokenizer and a language model, then a small translator, then a GAN, each in a few minutes.
Processes that cannot import this package then load the published folders: `pipeline("text-generation")`
draws three samples, `pipeline("text-to-text")` translates ten verses that were held out, and
`pipeline("class-to-image")` draws eight pictures of each class.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from hf_genmodels.cli import run_command
from hf_genmodels.data.text_files import expand_files
from hf_genmodels.training import train_gan, train_lm, train_seq2seq

OUTPUT_DIR = Path("runs/demo")
TRANSLATOR_DIR = Path("runs/demo_translator")
GAN_DIR = Path("runs/demo_gan")
PICTURE = "drawn.png"
PROMPTS = ("She was", "It was a", '"My dear')
NUM_TRANSLATIONS = 10
# Importing our package fails in a process that begins so.
STRANGER = """
import json, sys
sys.modules["hf_genmodels"] = None
import transformers
transformers.utils.logging.disable_progress_bar()
transformers.set_seed(1)
texts = json.loads(sys.stdin.read())
run = transformers.pipeline(TASK, model=sys.argv[1], trust_remote_code=True, device="cpu")
"""
WRITE = """
for prompt in texts:
    text = run(prompt, max_new_tokens=80)[0]["generated_text"]
    print(f"--- {prompt!r}\\n{text}\\n")
"""
TRANSLATE = """
outputs = run([text["en"] for text in texts], num_beams=4)
for text, output in zip(texts, outputs):
    print(f"English      {text['en']}\\nreference    {text['es']}")
    print(f"translation  {output[0]['generated_text']}\\n")
"""
DRAW = """
from PIL import Image
folder, columns, side = texts
names = run.model.config.id2label.values()
picture = Image.new("L", (columns * side, len(names) * side))
for row, name in enumerate(names):
    for column, image in enumerate(run(name, num_images=columns, seed=0)):
        picture.paste(image.resize((side, side)), (column * side, row * side))
picture.save(folder)
print("rows:", ", ".join(names))
"""


def main(
    output_dir: Path = OUTPUT_DIR,
    translator_dir: Path = TRANSLATOR_DIR,
    gan_dir: Path = GAN_DIR,
    extra: Sequence[str] = (),
    translator_extra: Sequence[str] = (),
    gan_extra: Sequence[str] = (),
) -> None:
    """Train all three, or go on with a demo that was stopped, and show what they make.

    Args:
        output_dir: Folder of the language model's run.
        translator_dir: Folder of the translator's run.
        gan_dir: Folder of the GAN's run.
        extra: More flags for the language model's training.
        translator_extra: More flags for the translator's training.
        gan_extra: More flags for the GAN's training.
    """
    text = {
        "--train_file": "sample:english/train.txt",
        "--validation_file": "sample:english/validation.txt",
    }
    _train(train_lm.main, output_dir, [*(f"{k}={v}" for k, v in text.items()), *extra])
    print("\nThree samples from a process without this package:\n", flush=True)
    show_samples(output_dir, PROMPTS)
    _train(train_seq2seq.main, translator_dir, translator_extra)
    print("\nTen verses that it has not seen, from a process without this package:\n", flush=True)
    show_translations(translator_dir, NUM_TRANSLATIONS)
    _train(train_gan.main, gan_dir, gan_extra, preset="modern-fashion")
    print("\nEight pictures of each class, from a process without this package:\n", flush=True)
    show_pictures(gan_dir, 8)
    print()
    for name, folder in (("language model", output_dir), ("translator", translator_dir)):
        print(f"{name:<15} {folder}, loss curve {folder / 'report' / 'loss_curve.png'}")
    print(f"{'attention map':<15} {translator_dir / 'report' / 'attention.png'}")
    print(f"{'GAN':<15} {gan_dir}, pictures {gan_dir / 'report' / PICTURE}")


def show_samples(folder: Path, prompts: Sequence[str]) -> None:
    """Let a clean, offline interpreter continue prompts with a published folder.

    Args:
        folder: The folder.
        prompts: Beginnings of texts.
    """
    _run_clean("text-generation", WRITE, folder, prompts)


def show_translations(folder: Path, count: int) -> None:
    """Let a clean, offline interpreter translate bundled test verses with a published folder.

    Args:
        folder: The folder.
        count: How many verses, evenly over the test part.
    """
    (file,) = expand_files(["sample:english_spanish/test.jsonl"])
    lines = file.read_text(encoding="utf-8").splitlines()
    chosen = [lines[number * len(lines) // count] for number in range(count)]
    verses = [json.loads(line)["translation"] for line in chosen]
    _run_clean("text-to-text", TRANSLATE, folder, verses)


def show_pictures(folder: Path, columns: int, side: int = 56) -> None:
    """Let a clean, offline interpreter draw each class with a published folder.

    Args:
        folder: The folder; the picture goes into its report.
        columns: Pictures of each class.
        side: Height and width that each is enlarged to, in pixels.
    """
    path = str((folder / "report" / PICTURE).resolve())
    _run_clean("class-to-image", DRAW, folder, [path, columns, side])


def _train(
    train: Callable[[Sequence[str]], None],
    output_dir: Path,
    flags: Sequence[str],
    preset: str = "demo",
) -> None:
    if (output_dir / "config.yaml").is_file():
        train(["--resume", str(output_dir), *flags])
    else:
        train([f"--config={preset}", f"--output_dir={output_dir}", *flags])


def _run_clean(task: str, code: str, folder: Path, texts: Sequence[object]) -> None:
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": cache}
        program = f"TASK = {task!r}\n{STRANGER}{code}"
        command = [sys.executable, "-I", "-c", program, str(folder.resolve())]
        subprocess.run(command, env=environment, check=True, input=json.dumps(texts), text=True)


if __name__ == "__main__":
    run_command(main)
