"""What can be wrong with the files of a model, in words."""

from __future__ import annotations

import json
import re
from pathlib import Path

from hf_genmodels.errors import UserError

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def check_weights(folder: Path) -> None:
    """Check that weight files are whole: their headers say how long they must be.

    Args:
        folder: The folder that they stand in.

    Raises:
        UserError: With the file that is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    index_file = folder / "model.safetensors.index.json"
    files = [folder / "model.safetensors"]
    if not files[0].is_file() and index_file.is_file():
        try:
            names = set(json.loads(index_file.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError) as error:
            raise UserError(f"'{index_file}' is damaged: {error}.") from error
        files = [folder / Path(name).name for name in sorted(names)]
    for file in files:
        if not file.is_file():
            raise UserError(f"There are no weights in '{folder}': {file.name} is missing.")
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise UserError(f"The weights '{file}' are damaged or cut short: {error}.") from error


def no_folder(given: str, folder: Path) -> str:
    """Say that there is no folder, and what may have been meant.

    Args:
        given: What the user typed.
        folder: The path that it leads to.
    """
    if folder.is_file():
        return f"{given!r} is a file. Give the folder that holds config.json."
    if HUB_ID.fullmatch(given):
        name = given.split("/")[1]
        return (
            f"There is no folder {given!r}. If you mean the repository of that name on the hub, "
            f"download it first: hf download {given} --local-dir {name}"
        )
    return f"There is no folder {given!r}."


def no_model(folder: Path) -> str:
    """Say that a folder holds no model, and where one may be.

    Args:
        folder: The folder.
    """
    text = f"There is no model in the folder '{folder}': config.json is missing."
    if (folder / "checkpoints").is_dir():
        return (
            f"{text} A training run in it has checkpoints but has published nothing yet; let it go "
            f"on with: genmodels train lm --resume {folder}"
        )
    below = sorted(path.parent.name for path in folder.glob("*/config.json"))
    if below:
        return f"{text} Did you mean '{folder / below[0]}'?"
    return text
