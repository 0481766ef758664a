"""A folder that is written whole, or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staged_folder(out: Path) -> Iterator[Path]:
    """Give a folder to write into, whose files go to their place if the block ends well.

    Args:
        out: Where the files shall stand; made if need be. Other files in it stay as they are, and
            `config.json` comes last.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield staging
        _move(staging, out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _move(staging: Path, out: Path) -> None:
    out.mkdir(exist_ok=True)
    files = sorted(path.relative_to(staging) for path in staging.rglob("*") if path.is_file())
    for name in sorted(files, key=lambda name: name.as_posix() == "config.json"):
        (out / name).parent.mkdir(exist_ok=True)
        (staging / name).replace(out / name)
