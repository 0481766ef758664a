"""Writes the files of a cache of pairs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from hf_genmodels.data.cache_folder import write_json
from hf_genmodels.data.tokenizing import encode
from hf_genmodels.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from hf_genmodels.data.pairs import Pair

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
GROUP_NAMES = "group_names.json"
SIDES = ("source", "target")


@dataclass(frozen=True)
class PairCounts:
    """What became of the pairs that were read.

    Attributes:
        kept: Pairs in the cache, truncated ones included.
        empty: Pairs left out because a side held no text.
        dropped: Pairs left out because a side was too long.
        truncated: Pairs kept with a side cut to its limit.
    """

    kept: int = 0
    empty: int = 0
    dropped: int = 0
    truncated: int = 0

    def __str__(self) -> str:
        parts = [f"{self.kept:,} pairs"]
        words = {
            "empty": "left out with an empty side",
            "dropped": "left out as too long",
            "truncated": "of them truncated",
        }
        parts += [f"{n:,} {text}" for name, text in words.items() if (n := getattr(self, name))]
        return ", ".join(parts)


class PairWriter:
    """Appends pairs to the files of a cache and counts what it wrote.

    Args:
        folder: Folder of the files.
        stack: Closes the files.
        backends: Tokenizer and end-of-sequence id of each side.
        limits: Most tokens of each side.
        overlong: As in `build_pair_cache`.
    """

    def __init__(
        self,
        folder: Path,
        stack: ExitStack,
        backends: Sequence[tuple[Tokenizer, int]],
        limits: Sequence[int | None],
        overlong: str,
    ):
        self.num_bytes = 0
        self.num_tokens = [0, 0]
        self._folder, self._backends, self._overlong = folder, backends, overlong
        self._limits = [limit or 1 << 31 for limit in limits]
        self._longest = [0, 0]
        self._counts = dict.fromkeys(("kept", "empty", "dropped", "truncated"), 0)
        self._group_ids: dict[str, int] = {}
        largest = [max(backend.get_vocab().values()) for backend, _ in backends]
        self._dtypes: dict[str, np.dtype] = {"groups": np.dtype(np.int32)}
        for side, largest_id in zip(SIDES, largest, strict=True):
            small = largest_id < 1 << 16
            self._dtypes[f"{side}_tokens"] = np.dtype(np.uint16 if small else np.uint32)
            self._dtypes[f"{side}_starts"] = np.dtype(np.int64)
            self._dtypes[f"{side}_lengths"] = np.dtype(np.int32)
        self._files: dict[str, BinaryIO] = {
            name: stack.enter_context((folder / f"{name}.bin").open("wb")) for name in self._dtypes
        }
        for side in SIDES:
            self._write(f"{side}_starts", [0])

    def append(self, pairs: Sequence[Pair]) -> None:
        """Tokenise some pairs and write those that are neither empty nor left out as too long."""
        encoded = [
            encode(backend, [getattr(pair, side) for pair in pairs])
            for side, (backend, _) in zip(SIDES, self._backends, strict=True)
        ]
        kept: tuple[list[list[int]], list[list[int]]] = ([], [])
        groups = []
        for pair, *sides in zip(pairs, *encoded, strict=True):
            self.num_bytes += len(pair.source.encode()) + len(pair.target.encode())
            if self._keep(sides):
                groups.append(self._group_ids.setdefault(pair.group, len(self._group_ids)))
                for place, (_, eos) in enumerate(self._backends):
                    kept[place].append([*sides[place][: self._limits[place] - 1], eos])
        self._write("groups", groups)
        for place, side in enumerate(SIDES):
            lengths = [len(ids) for ids in kept[place]]
            self._write(f"{side}_tokens", [token for ids in kept[place] for token in ids])
            self._write(f"{side}_lengths", lengths)
            self._write(f"{side}_starts", self.num_tokens[place] + np.cumsum(lengths))
            self.num_tokens[place] += sum(lengths)

    def _keep(self, sides: Sequence[list[int]]) -> bool:
        """Count a pair and tell whether it is written."""
        if not all(sides):
            self._counts["empty"] += 1
            return False
        lengths = [len(ids) + 1 for ids in sides]
        self._longest = [max(pair) for pair in zip(self._longest, lengths, strict=True)]
        if any(length > limit for length, limit in zip(lengths, self._limits, strict=True)):
            if self._overlong == "drop":
                self._counts["dropped"] += 1
                return False
            self._counts["truncated"] += 1
        self._counts["kept"] += 1
        return True

    def _write(self, name: str, values: Any) -> None:
        self._files[name].write(np.asarray(values).astype(self._dtypes[name]).tobytes())

    def finish(self, fingerprint: str, one_tokenizer: bool) -> None:
        """Write the manifest, after everything else is on the disk.

        Raises:
            UserError: If no pair was written.
        """
        if not self._counts["kept"]:
            raise UserError(self._nothing_left())
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        sizes = {
            name: [dtype.name, self._files[name].tell() // dtype.itemsize]
            for name, dtype in self._dtypes.items()
        }
        write_json(self._folder / GROUP_NAMES, list(self._group_ids))
        manifest = {
            "format": FORMAT_VERSION,
            "fingerprint": fingerprint,
            "one_tokenizer": one_tokenizer,
            "counts": self._counts,
            "arrays": sizes,
        }
        write_json(self._folder / MANIFEST, manifest)

    def _nothing_left(self) -> str:
        empty, dropped = self._counts["empty"], self._counts["dropped"]
        if not dropped:
            return f"No pair is left: all {empty:,} have an empty side. Check the columns or files."
        longest = " and ".join(
            f"{length:,} of {limit:,} allowed {side} tokens"
            for side, length, limit in zip(SIDES, self._longest, self._limits, strict=True)
            if length > limit
        )
        return (
            f"No pair is left: {dropped:,} are too long and {empty:,} have an empty side. The longest "
            f"have {longest}. Raise --max_source_length and --max_target_length, or truncate with "
            "--overlong truncate."
        )
