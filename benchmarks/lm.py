"""All comparisons of the language model with its peers, one after the other, into one file.

python benchmarks/lm.py --train_file austen.train.txt --validation_file austen.valid.txt
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
# Name -> (title, script).
SECTIONS = {
    "training": ("Training: speed and memory", "lm_training.py"),
    "race": ("Time to loss, fp32", "lm_time_to_loss.py"),
    "race-bf16": ("Time to loss, bf16 on both sides", "lm_time_to_loss.py"),
    "parts": ("What each part of `modern` contributes, bf16", "lm_time_to_loss.py"),
    "generation": ("Generation", "lm_generation.py"),
}


def section(title: str, script: str, flags: Sequence[str]) -> str:
    """Run one comparison and return its part of the report."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "table.md"
        subprocess.run([sys.executable, HERE / script, "--out", out, *flags], check=True)
        return f"## {title}\n\n{out.read_text(encoding='utf-8')}"


def main() -> None:
    """Run every comparison and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--train_file", help="text for the time to a loss; bundled text by default")
    parser.add_argument("--validation_file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", nargs="+", default=["0", "1", "2"])
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "lm.md")
    args = parser.parse_args()
    text = [f"--train_file={args.train_file}"] if args.train_file else []
    text += [f"--validation_file={args.validation_file}"] if args.validation_file else []
    seeds, rounds = ["--seeds", *args.seeds], ["--rounds", str(args.rounds)]
    flags = {
        "training": [*rounds, "--precision", "no", "bf16"],
        "race": [*text, *seeds],
        "race-bf16": [*text, *seeds, "--precision=bf16"],
        "parts": [*text, *seeds, "--precision=bf16", "--parts"],
        "generation": rounds,
    }
    sections = [section(*SECTIONS[name], flags[name]) for name in args.only]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    report = "# The language model and its peers\n\n" + "\n".join(sections)
    args.out.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
