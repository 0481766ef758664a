"""`make demo`: from bundled text to a published language model, and what it writes.

Trains a tokenizer and a language model in a few minutes, then starts a process that cannot import
this package and lets `pipeline("text-generation")` draw three samples from the published folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from hf_genmodels.cli import run_command
from hf_genmodels.training import train_lm

OUTPUT_DIR = Path("runs/demo")
PROMPTS = ("She was", "It was a", '"My dear')
STRANGER = """
import sys
sys.modules["hf_genmodels"] = None  # importing our package fails from here on
import transformers
transformers.utils.logging.disable_progress_bar()
transformers.set_seed(1)
write = transformers.pipeline(
    "text-generation", model=sys.argv[1], trust_remote_code=True, device="cpu"
)
for prompt in sys.argv[2:]:
    text = write(prompt, max_new_tokens=80)[0]["generated_text"]
    print(f"--- {prompt!r}\\n{text}\\n")
"""


def main(output_dir: Path = OUTPUT_DIR, extra: Sequence[str] = ()) -> None:
    """Train, or go on with a demo that was stopped, and show samples.

    Args:
        output_dir: Folder of the run.
        extra: More flags for the training script.
    """
    bundled = resources.files("hf_genmodels.samples").joinpath("english")
    if (output_dir / "config.yaml").is_file():
        train_lm.main(["--resume", str(output_dir), *extra])
    else:
        train_lm.main(
            [
                "--config=demo",
                f"--train_file={bundled.joinpath('train.txt')}",
                f"--validation_file={bundled.joinpath('validation.txt')}",
                f"--output_dir={output_dir}",
                *extra,
            ]
        )
    print("\nThree samples from a process without this package:\n", flush=True)
    show_samples(output_dir, PROMPTS)
    print(f"loss curve        {output_dir / 'report' / 'loss_curve.png'}")
    print(f"published folder  {output_dir}")


def show_samples(folder: Path, prompts: Sequence[str]) -> None:
    """Let a clean, offline interpreter continue prompts with a published folder.

    Args:
        folder: The folder.
        prompts: Beginnings of texts.
    """
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": cache}
        command = [sys.executable, "-I", "-c", STRANGER, str(folder.resolve()), *prompts]
        subprocess.run(command, env=environment, check=True)


if __name__ == "__main__":
    run_command(main)
