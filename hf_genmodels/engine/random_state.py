"""The random states of one process, saved without pickle and restored to the last bit."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from hf_genmodels.reading import read_json, read_tensors

logger = logging.getLogger("hf_genmodels")
_KEYS = 624  # 32-bit words of the Mersenne twister


def write_rank_state(staging: Path, rank: int, data_state: dict[str, Any] | None) -> None:
    """Save the random states of one rank, and its position in a stream."""
    # Libraries draw from the global generator.
    numpy_state: Any = np.random.get_state()  # noqa: NPY002
    kind, keys, position, has_gauss, gauss = numpy_state
    version, internal, gauss_next = random.getstate()
    tensors = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(keys.astype(np.int64))}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    values = {
        "numpy": [kind, position, has_gauss, gauss],
        "python": [version, list(internal), gauss_next],
        "data": data_state,
    }
    save_file(tensors, staging / f"rank-{rank:05d}.safetensors")
    (staging / f"rank-{rank:05d}.json").write_text(json.dumps(values), encoding="utf-8")


def restore_rank_state(folder: Path, rank: int) -> dict[str, Any] | None:
    """Restore the random states of one rank, and return its position in a stream.

    Says so if the checkpoint was written by fewer processes and holds nothing for this rank.

    Raises:
        LookupError, TypeError, ValueError, RuntimeError: If the files are damaged.
    """
    path = folder / f"rank-{rank:05d}.safetensors"
    if not path.is_file():
        logger.warning(
            "The checkpoint was written by fewer processes: process %d draws new random numbers. "
            "The order of the data is unchanged.",
            rank,
        )
        return None
    tensors = read_tensors(path)
    values = read_json(path.with_suffix(".json"))
    kind, position, has_gauss, gauss = values["numpy"]
    keys = tensors["numpy"].numpy().astype(np.uint32)
    # numpy itself does not check the position, and would read beyond the keys.
    if kind != "MT19937" or keys.shape != (_KEYS,) or not 0 <= position <= _KEYS:
        raise ValueError(f"{path.name} holds no random state of numpy")
    if not isinstance(values["data"], (dict, type(None))):
        raise TypeError(f"{path.name} holds no position in the data")
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
    np.random.set_state((kind, keys, position, has_gauss, gauss))  # noqa: NPY002
    version, internal, gauss_next = values["python"]
    random.setstate((version, tuple(internal), gauss_next))
    return values["data"]
