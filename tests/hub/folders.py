"""What published folders hold."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file

from hf_genmodels.hub.folder import published_files


def contents(folder: Path) -> dict[str, bytes]:
    return {path.as_posix(): (folder / path).read_bytes() for path in published_files(folder)}


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Every entry of a folder with its time and number, to see that nothing was touched."""
    entries = sorted(folder.rglob("*"))
    return {str(entry): (entry.stat().st_mtime_ns, entry.stat().st_ino) for entry in entries}


def change_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    name = min(weights)
    weights[name] = weights[name] + 1
    staged = file.with_suffix(".new")
    save_file(weights, staged, {"format": "pt"})
    staged.replace(file)
