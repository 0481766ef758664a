"""Tokenised pairs on disk: built once in constant memory, then memory-mapped by every run."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_genmodels.data.cache_folder import default_cache_dir, open_or_build
from hf_genmodels.data.pair_writer import (
    FORMAT_VERSION,
    GROUP_NAMES,
    MANIFEST,
    PairCounts,
    PairWriter,
)
from hf_genmodels.data.tokenizing import TokenizingProgress, grouped, plain_backend
from hf_genmodels.errors import UserError, suggest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hf_genmodels.data.pairs import PairSource

logger = logging.getLogger(__name__)

OVERLONG = ("drop", "truncate")


@dataclass(frozen=True)
class PairCache:
    """Tokenised pairs, memory-mapped.

    Attributes:
        source_tokens: Token ids of all sources one after the other, 1-D, uint16 or uint32. Each source
            ends with the end-of-sequence token of its tokenizer.
        target_tokens: The same of all targets.
        source_starts: Index in ``source_tokens`` where each source begins, and where the last ends,
            shape (N + 1,), int64.
        target_starts: The same of all targets.
        source_lengths: Tokens of each source, the last one included, shape (N,), int32.
        target_lengths: The same of all targets.
        groups: Number of each pair's group, such as its author, shape (N,), int32; all 0 where the
            source names no column of groups.
        group_names: Name of each group.
        one_tokenizer: Whether both sides have the same tokenizer.
        counts: What was kept, dropped and truncated.
        fingerprint: Digest of the text, the tokenizers, the limits and the format.
        path: Folder of the cache.
        first: Index of the first pair in the folder; see `part`.
    """

    source_tokens: np.ndarray
    target_tokens: np.ndarray
    source_starts: np.ndarray
    target_starts: np.ndarray
    source_lengths: np.ndarray
    target_lengths: np.ndarray
    groups: np.ndarray
    group_names: Sequence[str]
    one_tokenizer: bool
    counts: PairCounts
    fingerprint: str
    path: Path
    first: int = 0

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.source_lengths)

    def source(self, index: int) -> np.ndarray:
        """Return the token ids of a source, 1-D, int64, with the end-of-sequence token."""
        start, stop = self.source_starts[index], self.source_starts[index + 1]
        return self.source_tokens[start:stop].astype(np.int64)

    def target(self, index: int) -> np.ndarray:
        """Return the token ids of a target, 1-D, int64, with the end-of-sequence token."""
        start, stop = self.target_starts[index], self.target_starts[index + 1]
        return self.target_tokens[start:stop].astype(np.int64)

    def part(self, start: int, stop: int) -> PairCache:
        """Return the pairs from ``start`` to ``stop``, as a cache of their own."""
        start, stop, _ = slice(start, stop).indices(len(self))
        return replace(
            self,
            source_starts=self.source_starts[start : stop + 1],
            target_starts=self.target_starts[start : stop + 1],
            source_lengths=self.source_lengths[start:stop],
            target_lengths=self.target_lengths[start:stop],
            groups=self.groups[start:stop],
            fingerprint=f"{self.fingerprint}[{start}:{stop}]",
            first=self.first + start,
        )

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> PairCache:
        """Map a finished cache folder.

        Args:
            path: Folder that ``build_pair_cache`` made.

        Raises:
            ValueError: If the folder is incomplete or a file has not the size the manifest says.
        """
        folder = Path(path)
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            counts = PairCounts(**manifest["counts"])
            arrays: dict[str, Any] = {
                name: _mapped(folder / f"{name}.bin", np.dtype(dtype), int(size))
                for name, (dtype, size) in manifest["arrays"].items()
            }
            return cls(
                **arrays,
                group_names=json.loads((folder / GROUP_NAMES).read_text(encoding="utf-8")),
                one_tokenizer=bool(manifest["one_tokenizer"]),
                counts=counts,
                fingerprint=str(manifest["fingerprint"]),
                path=folder,
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"The cache of pairs {folder} cannot be used: {error}.") from error

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a worker process map the files again rather than receive their content."""
        return _open_part, (self.path, self.first, self.first + len(self))


def _open_part(path: Path, start: int, stop: int) -> PairCache:
    cache = PairCache.open(path)
    return cache if (start, stop) == (0, len(cache)) else cache.part(start, stop)


def _mapped(file: Path, dtype: np.dtype, size: int) -> np.ndarray:
    expected, found = size * dtype.itemsize, file.stat().st_size
    if found != expected:
        raise ValueError(f"{file.name} has {found:,} bytes instead of {expected:,}")
    return np.memmap(file, dtype=dtype, mode="r")


def build_pair_cache(
    source: PairSource,
    source_tokenizer: PreTrainedTokenizerBase,
    target_tokenizer: PreTrainedTokenizerBase,
    cache_dir: str | os.PathLike[str] | None = None,
    *,
    max_source_tokens: int | None = None,
    max_target_tokens: int | None = None,
    overlong: str = "drop",
    show_progress: bool = True,
) -> PairCache:
    """Tokenise pairs, or map what an earlier call tokenised.

    Several processes may ask for the same cache at once. Pairs with an empty side are left out and
    counted.

    Args:
        source: Where the pairs come from.
        source_tokenizer: A fast tokenizer with an end-of-sequence token.
        target_tokenizer: The same for the targets; may be the same object.
        cache_dir: Folder of all caches; by default ``default_cache_dir()``.
        max_source_tokens: Limit of a source, its end-of-sequence token included. None: no limit.
        max_target_tokens: Limit of a target.
        overlong: What happens to pairs over a limit: ``drop`` leaves them out, ``truncate`` cuts the
            side to its limit, its last token being the end-of-sequence token.
        show_progress: Show a progress bar if standard error is a terminal.

    Returns:
        The cache, mapped read-only.

    Raises:
        UserError: If a tokenizer cannot be used, an option is out of range, no pair is left, or the
            disk is full.
    """
    if overlong not in OVERLONG:
        raise UserError(
            f"overlong={overlong!r} is not known. {suggest(overlong, OVERLONG)}"
            f"Allowed: {', '.join(OVERLONG)}."
        )
    for name, limit in (("source", max_source_tokens), ("target", max_target_tokens)):
        if limit is not None and limit < 2:
            raise UserError(
                f"max_{name}_tokens must be at least 2 (a token and the end), but is {limit}."
            )
    limits = (max_source_tokens, max_target_tokens)
    backends = [plain_backend(source_tokenizer), plain_backend(target_tokenizer)]
    digests = [[hashlib.sha256(b.to_str().encode()).hexdigest(), eos] for b, eos in backends]
    parts = [FORMAT_VERSION, source.fingerprint(), digests, limits, overlong]
    fingerprint = hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def write(folder: Path) -> None:
        with ExitStack() as stack:
            progress = TokenizingProgress(source.size_in_bytes(), show_progress)
            stack.enter_context(closing(progress))
            writer = PairWriter(folder, stack, backends, limits, overlong)
            for group in grouped(source.all_pairs(), lambda pair: len(pair.source + pair.target)):
                writer.append(group)
                progress.move_to(writer.num_bytes, sum(writer.num_tokens))
            writer.finish(fingerprint, one_tokenizer=digests[0] == digests[1])

    root = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    cache = open_or_build(root / fingerprint[:32], PairCache.open, write)
    logger.info("%s", cache.counts)
    return cache
