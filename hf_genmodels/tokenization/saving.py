"""Write a tokenizer into a folder and read one back."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from hf_genmodels.errors import UserError
from hf_genmodels.reading import read_json

PORTABLE_CLASS = "PreTrainedTokenizerFast"
_VERSION_5_CLASS = "TokenizersBackend"
_VERSION_5_KEYS = ("backend", "is_local", "local_files_only")


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: str | Path) -> None:
    """Save a tokenizer so that `AutoTokenizer` of transformers 4 and 5 loads it.

    Each file is written under another name and renamed, so that a reader never sees half of one;
    other files in the folder are left alone, and a new folder appears complete.

    Args:
        tokenizer: The tokenizer.
        folder: Where to save it, for example beside a model's weights; made if need be.

    Raises:
        UserError: If the folder is a file or cannot be written to.
    """
    folder = Path(folder)
    check_writable(folder)
    if folder.exists():
        with tempfile.TemporaryDirectory() as staging:
            _write_files(tokenizer, Path(staging))
            for file in sorted(Path(staging).iterdir()):
                _replace(folder / file.name, file.read_bytes())
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent)
    try:
        _write_files(tokenizer, Path(staging))
        Path(staging).chmod(0o777 & ~_umask())
        Path(staging).rename(folder)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    _sync_folder(folder.parent)


def check_writable(folder: Path) -> None:
    """Raise a UserError unless ``folder`` can be written to, or made."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise UserError(f"'{place}' is a file, and a folder was meant. Choose another folder.")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"The folder '{place}' cannot be written to. Choose another one.")


def check_output_folder(folder: Path, overwrite: bool) -> None:
    """Raise a UserError unless ``folder`` is new, empty, or may be written into.

    Args:
        folder: Where a new tokenizer is going to be saved.
        overwrite: Whether an existing tokenizer may be replaced. Other files always stay.
    """
    check_writable(folder)
    if (
        folder.is_dir()
        and not overwrite
        and (names := sorted(file.name for file in folder.iterdir()))
    ):
        listed = ", ".join(names[:4]) + (" ..." if len(names) > 4 else "")
        raise UserError(
            f"The folder '{folder}' is not empty ({listed}). Choose another --output_dir, or add "
            "--overwrite to replace the tokenizer in it; other files stay."
        )


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """Load a tokenizer from a local folder.

    Raises:
        UserError: If there is no such folder, or no tokenizer in it.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise UserError(_no_folder(str(folder), path))
    if not (path / "tokenizer.json").is_file():
        raise UserError(f"There is no tokenizer in the folder '{path}': tokenizer.json is missing.")
    try:
        tokenizer = _tokenizer_class(path).from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
    except UserError:
        raise
    except BaseException as error:
        # What the Rust library trips over is no Exception, as Ctrl-C is not.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UserError(f"The tokenizer in '{path}' cannot be loaded: {error}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(f"The tokenizer in '{path}' is not one of the `tokenizers` library.")
    return tokenizer


def _tokenizer_class(folder: Path) -> Any:
    """Choose the class that loads a folder; `AutoTokenizer` would import torch for each."""
    file = folder / "tokenizer_config.json"
    config = read_json(file) if file.is_file() else {}
    if config.get("tokenizer_class") == PORTABLE_CLASS:
        return PreTrainedTokenizerFast
    from transformers import AutoTokenizer

    return AutoTokenizer


def _no_folder(given: str, path: Path) -> str:
    if path.is_file():
        return f"{given!r} is a file. Give the folder that holds tokenizer.json."
    parts = given.split("/")
    if len(parts) == 2 and all(parts) and not given.startswith((".", "~")):
        return (
            f"There is no folder {given!r}. If you mean the repository of that name on the hub, "
            f"download it first: hf download {given} --local-dir {parts[1]}"
        )
    return f"There is no folder {given!r}."


def _write_files(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    tokenizer.save_pretrained(folder)
    config_file = folder / "tokenizer_config.json"
    config = _portable(json.loads(config_file.read_text(encoding="utf-8")))
    text = json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
    config_file.write_text(text, encoding="utf-8")
    for file in folder.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    _sync_folder(folder)


def _portable(config: dict[str, object]) -> dict[str, object]:
    """Say in version 4's words what version 5 of transformers says in its own."""
    config = {key: value for key, value in config.items() if key not in _VERSION_5_KEYS}
    if config.get("tokenizer_class") == _VERSION_5_CLASS:
        config["tokenizer_class"] = PORTABLE_CLASS
    if isinstance(config.get("extra_special_tokens"), list):
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    if not config.get("additional_special_tokens"):
        config.pop("additional_special_tokens", None)
    return config


def _replace(file: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}-", dir=file.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_folder(file.parent)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
