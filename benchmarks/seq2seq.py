"""All comparisons of sequence-to-sequence models with their peers, one after the other, into one file.

python benchmarks/seq2seq.py --train_file train.jsonl --validation_file valid.jsonl --test_file test.jsonl
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from seq2seq_common import data_flags, parser

HERE = Path(__file__).parent
# Name -> (title, script).
SECTIONS = {
    "training": ("Training: speed and memory", "seq2seq_training.py"),
    "quality": ("Time to quality", "seq2seq_quality.py"),
    "decoding": ("Translating: speed", "seq2seq_decoding.py"),
}


def section(title: str, script: str, flags: Sequence[str]) -> str:
    """Run one comparison and return its part of the report."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "table.md"
        subprocess.run([sys.executable, HERE / script, "--out", out, *flags], check=True)
        return f"## {title}\n\n{out.read_text(encoding='utf-8')}"


def main() -> None:
    """Run every comparison and write the report."""
    flags = parser(__doc__)
    flags.set_defaults(out=HERE / "results" / "seq2seq.md")
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--seeds", nargs="+", default=["0", "1", "2"])
    flags.add_argument("--eole_python", help="Python of an environment that has eole")
    flags.add_argument("--marian_seconds", type=float, default=600.0, help="of training a seed")
    flags.add_argument("--train_steps", type=int, default=200, help="of the model that translates")
    flags.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    args = flags.parse_args()
    rounds = f"--rounds={args.rounds}"
    own = {
        "training": [rounds, *([f"--eole_python={args.eole_python}"] if args.eole_python else [])],
        "quality": ["--seeds", *args.seeds, f"--marian_seconds={args.marian_seconds}"],
        "decoding": [rounds, f"--train_steps={args.train_steps}"],
    }
    sections = [section(*SECTIONS[name], [*data_flags(args), *own[name]]) for name in args.only]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    report = "# Sequence-to-sequence models and their peers\n\n" + "\n".join(sections)
    args.out.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
