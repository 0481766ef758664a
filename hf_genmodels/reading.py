"""Read files that may be damaged, or made to do harm, within bounds of memory and time."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_genmodels.errors import UserError

if TYPE_CHECKING:
    import torch

MAX_JSON_BYTES = 64 << 20
# Some hundred thousand tensors: safetensors itself reads headers of 100 MB.
MAX_HEADER_BYTES = 16 << 20
_LENGTH_BYTES = 8


@dataclass(frozen=True)
class TensorFacts:
    """What the header of a file says about a tensor.

    Attributes:
        shape: Its shape.
        dtype: Its type in the words of safetensors, such as `F32`.
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def numel(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def read_json(file: Path, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Args:
        file: The file.
        max_bytes: Most that is read.

    Raises:
        UserError: If it is too large, no JSON, nested too deeply or no object.
        OSError: If it cannot be read.
    """
    if (size := file.stat().st_size) > max_bytes:
        raise UserError(f"'{file}' has {size:,} bytes, and at most {max_bytes:,} are read.")
    try:
        values = json.loads(file.read_bytes())
    except RecursionError:
        raise UserError(f"'{file}' is damaged: it is nested too deeply.") from None
    except ValueError as error:
        raise UserError(f"'{file}' is damaged, it is not JSON: {error}.") from error
    if not isinstance(values, dict):
        raise UserError(f"'{file}' is damaged: it holds no JSON object.")
    return values


def read_header(file: Path) -> dict[str, TensorFacts]:
    """Return what a safetensors file says about its tensors, after checking that it is whole.

    Lengths, offsets, shapes and types must agree with each other and with the length of the file.

    Args:
        file: The file.

    Returns:
        Name of a tensor -> its facts.

    Raises:
        UserError: If it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        if length > MAX_HEADER_BYTES:
            raise UserError(
                f"The weights '{file}' are damaged or cut short: a header of {length:,} bytes is "
                f"announced, and at most {MAX_HEADER_BYTES:,} are read."
            )
        with safe_open(file, framework="pt") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
            return {
                name: TensorFacts(tuple(part.get_shape()), str(part.get_dtype()))
                for name, part in slices.items()
            }
    except (SafetensorError, OSError) as error:
        raise UserError(f"The weights '{file}' are damaged or cut short: {error}.") from error


def read_tensors(
    file: Path, fitting: Mapping[str, tuple[int, ...]] | None = None
) -> dict[str, torch.Tensor]:
    """Read the tensors of a safetensors file whose header is in order.

    Args:
        file: The file.
        fitting: Name -> the shape that a tensor of this name must have; others may not be there.
            `None`: any.

    Raises:
        UserError: If it is damaged, or tensors do not fit, before they are read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    facts = read_header(file)
    wrong = [
        f"{name} of shape {list(fact.shape)}"
        for name, fact in facts.items()
        if fitting is not None and fitting.get(name) != fact.shape
    ]
    if wrong:
        raise UserError(
            f"'{file}' does not fit this model: {len(wrong)} of its tensors are unknown or have "
            f"another shape, such as {wrong[0]}."
        )
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(f"The weights '{file}' are damaged or cut short: {error}.") from error


def check_alike(given: Any, own: Any, place: str) -> None:
    """Check that a value from a file has the type and form of the one that it replaces.

    Args:
        given: The value, JSON-able.
        own: What stands there now.
        place: What to call it in a message.

    Raises:
        UserError: If types, lengths or keys differ.
    """
    fits = type(given) is type(own)
    if isinstance(own, Mapping):
        fits = isinstance(given, Mapping) and given.keys() == own.keys()
        for name in own if fits else ():
            check_alike(given[name], own[name], f"{place}.{name}")
    elif isinstance(own, (list, tuple)):
        fits = isinstance(given, (list, tuple)) and len(given) == len(own)
        for number, pair in enumerate(zip(given, own, strict=True) if fits else ()):
            check_alike(*pair, f"{place}[{number}]")
    elif is_number(own):
        fits = is_number(given)
    elif own is None or isinstance(own, bool):
        fits = given is None or isinstance(given, bool)
    if not fits:
        raise UserError(f"{place} is damaged: it holds {str(given)[:60]!r}.")


def is_number(value: Any) -> bool:
    """Tell whether a value is a number, and not a truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
