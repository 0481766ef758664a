"""What can be wrong with the files of a model, in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_genmodels.errors import UserError
from hf_genmodels.reading import TensorFacts, read_header, read_json

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_MAX_CONFIG_BYTES = 16 << 20


# What a model is made of one by one, and what each takes memory for as soon as it is named.
_COUNT = re.compile(r"(^|_)(layers?|blocks?|stages?|depths?)$")
_SIZE = re.compile(r"(^|_)(size|width|dim|heads?|labels|channels|inner|embd|model)$")
_FEW = 1_000
_SMALL = 1 << 20
# They name code, or weights beside those that were checked.
_REFUSED = {
    "attn_implementation": "/",
    "_attn_implementation": "/",
    "_attn_implementation_internal": "/",
    "experts_implementation": "/",
    "transformers_weights": "",
}


def check_weights(folder: Path) -> dict[str, TensorFacts]:
    """Check that weight files are whole: their headers say how long they must be.

    Args:
        folder: The folder that they stand in.

    Returns:
        Name of each tensor -> what the headers say about it.

    Raises:
        UserError: With the file that is missing or damaged.
    """
    files = [folder / "model.safetensors"]
    index_file = folder / "model.safetensors.index.json"
    if not files[0].is_file() and index_file.is_file():
        places = read_json(index_file).get("weight_map")
        if not isinstance(places, dict) or not all(map(_is_plain, places.values())):
            raise UserError(
                f"'{index_file}' is damaged: weight_map must name files of its own folder."
            )
        files = [folder / name for name in sorted(set(places.values()))]
    facts: dict[str, TensorFacts] = {}
    for file in files:
        if not file.is_file():
            raise UserError(f"There are no weights in '{folder}': {file.name} is missing.")
        facts |= read_header(file)
    return facts


def read_config(file: Path, facts: Mapping[str, TensorFacts] | None = None) -> dict[str, Any]:
    """Read config.json and refuse what no weights go with, before anything is made of it.

    Args:
        file: The file.
        facts: What the headers of the weights say, where they are known.

    Raises:
        UserError: With the field that cannot be.
    """
    config = read_json(file, _MAX_CONFIG_BYTES)
    if not isinstance(config.get("model_type"), str):
        raise UserError(f"'{file}' names no model_type: this is not a model of transformers.")
    numbers = sum(fact.numel for fact in facts.values()) if facts else 0
    waiting: list[tuple[str, Any]] = list(config.items())
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(str(key), inner) for key, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(name, inner) for inner in value]
        elif isinstance(value, str) and name in _REFUSED and _REFUSED[name] in value:
            raise UserError(
                f"'{file}' says {name}={value!r}: code and weights from elsewhere are not loaded."
            )
        elif isinstance(value, (int, float)):
            most = _most(name, len(facts or ()), numbers)
            if most is not None and abs(value) > most:
                raise UserError(
                    f"'{file}' says {name}={value:,}, and no more than {most:,} go with the weights "
                    "beside it. It is damaged, or of another model."
                )
    return config


def check_parameters(model: Any, facts: Mapping[str, TensorFacts], where: str) -> None:
    """Refuse a configuration that makes a model much larger than its weights, and weights of whole numbers.

    Args:
        model: The model on the meta device, where it takes no memory.
        facts: What the headers of the weights say.
        where: What to call it in a message.

    Raises:
        UserError: If more than twice the numbers are needed that the weights hold, or a tensor is of
            another kind.
    """
    stored = sum(fact.numel for fact in facts.values())
    needed = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    if needed > 2 * stored + _SMALL:
        raise UserError(
            f"The weights in '{where}' do not fit its config.json, which says "
            f"{_largest_sizes(model.config)}: that model has {needed:,} numbers, and the weights "
            f"hold {stored:,}."
        )
    if hasattr(model.config, "quantization_config"):
        return
    for name, tensor in model.state_dict().items():
        if name in facts and tensor.is_floating_point() != ("F" in facts[name].dtype):
            raise UserError(
                f"The weights in '{where}' do not fit its config.json: {name} is of type "
                f"{facts[name].dtype}."
            )


def _most(name: str, num_tensors: int, numbers: int) -> int | None:
    """Return the largest value of a field that can be right; None where any can."""
    if _COUNT.search(name):
        return max(num_tensors, _FEW)
    return max(numbers, _SMALL) if _SIZE.search(name) else None


def _largest_sizes(config: Any) -> str:
    values = {
        name: value
        for name, value in config.to_dict().items()
        if isinstance(value, int) and not isinstance(value, bool) and not name.endswith("_id")
    }
    largest = sorted(values, key=lambda name: -values[name])[:3]
    return ", ".join(f"{name}={values[name]:,}" for name in largest)


def _is_plain(name: Any) -> bool:
    """Tell a name of a file from a path."""
    return isinstance(name, str) and name not in ("", "..") and Path(name).name == name


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
