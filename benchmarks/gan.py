"""All comparisons of GANs, one after the other, into one file.

python benchmarks/gan.py --data fashion_mnist
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gan_common import parser

HERE = Path(__file__).parent
# Name -> (title, script, its own flags).
SECTIONS: dict[str, tuple[str, str, list[str]]] = {
    "quality": ("Time to quality", "gan_quality.py", []),
    "long": (
        "A run three times as long",
        "gan_quality.py",
        ["--sides", "ours", "--checkpoints", "100", "200", "300", "450", "600", "750", "900"],
    ),
    "training": ("Training: speed", "gan_training.py", []),
    "drawing": ("Drawing: speed", "gan_drawing.py", []),
}


def section(name: str, flags: Sequence[str], lines: Path) -> str:
    """Run one comparison and return its part of the report."""
    title, script, own = SECTIONS[name]
    if script == "gan_quality.py":
        own = [*own, f"--lines={lines / f'gan_{name}.jsonl'}"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "table.md"
        subprocess.run([sys.executable, HERE / script, "--out", out, *flags, *own], check=True)
        return f"## {title}\n\n{out.read_text(encoding='utf-8')}"


def main() -> None:
    """Run every comparison and write the report."""
    flags = parser(__doc__)
    flags.set_defaults(out=HERE / "results" / "gan.md")
    flags.add_argument("--seeds", nargs="+", default=["0", "1", "2"])
    flags.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    args = flags.parse_args()
    shared = [f"--data={args.data}", f"--threads={args.threads}"]
    shared += [f"--cache_dir={args.cache_dir}"] if args.cache_dir else []
    own = {"quality": ["--seeds", *args.seeds], "long": ["--seeds", args.seeds[0]]}
    sections = [section(name, [*shared, *own.get(name, [])], args.out.parent) for name in args.only]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    report = "# GANs and their peers\n\n" + "\n".join(sections)
    args.out.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
