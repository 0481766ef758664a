"""Full windows of tokens in which no document sees another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from hf_genmodels.data.cache import TokenCache
from hf_genmodels.data.seeding import mix_seed
from hf_genmodels.errors import UserError

IGNORED = -100
# Tells the stream of window offsets from the stream of permutations.
_OFFSET_STREAM = 1


def packed_windows(
    ids: np.ndarray, is_start: np.ndarray, scored: np.ndarray
) -> dict[str, torch.Tensor]:
    """Make model inputs of windows of tokens.

    Args:
        ids: Token ids, shape (B, T).
        is_start: True where a document begins, shape (B, T): at the end-of-sequence token before its
            text. The last token of the document before predicts this token, too.
        scored: True where the window may score a token, shape (B, T). A window's first token is never
            scored, because nothing predicts it.

    Returns:
        Tensors of shape (B, T), int64: ``input_ids``; ``position_ids``, which restart at 0 where a
        document begins; ``labels``, equal to ``input_ids`` or -100 (the model shifts them).
    """
    places = np.arange(ids.shape[1])  # (T,)
    begins = np.maximum.accumulate(np.where(is_start, places, 0), axis=1)  # (B, T)
    input_ids = ids.astype(np.int64)
    counted = scored & (places > 0)
    return {
        "input_ids": torch.from_numpy(input_ids),
        "position_ids": torch.from_numpy(places - begins),
        "labels": torch.from_numpy(np.where(counted, input_ids, IGNORED)),
    }


class PackedWindows(Dataset):
    """Full windows of ``block_size`` tokens; a document never sees another.

    Neighbouring windows share one token: the last of one is the first of the next, where it is
    context only. In this way each token but the very first is scored once, although the model scores
    ``block_size - 1`` tokens of a window. The token between two documents is a target of the first and
    the first input of the second, so a document's first token of text is predicted like any other.

    With ``shift=False`` (validation) windows run from the first token to the last one. The last window
    is moved back to be full, and what was scored before is ignored in it.

    With ``shift=True`` (training) epoch e lays its windows from an offset that is a pure function of
    (seed, e), around the end of the data to their beginning, so that epochs cut the text at different
    places. An epoch leaves out fewer than ``block_size`` tokens. Where the end of the data meets the
    beginning, the very first token is not scored.

    Args:
        cache: The tokenised data.
        block_size: Tokens in a window, at least 2.
        shift: Whether windows differ between epochs.
        seed: Seed of the run; used with ``shift=True`` only.

    Raises:
        UserError: If the data are shorter than one window.
    """

    def __init__(self, cache: TokenCache, block_size: int, *, shift: bool = False, seed: int = 0):
        if block_size < 2:
            raise UserError(f"block_size must be at least 2, but is {block_size}.")
        num_tokens = len(cache.tokens)
        if num_tokens < block_size:
            raise UserError(
                f"The data hold {num_tokens:,} tokens, fewer than one window of {block_size:,}. "
                f"Lower block_size to {num_tokens:,} or less, or give more text."
            )
        self.cache = cache
        self.block_size = block_size
        self.shift = shift
        self.seed = seed
        self._stride = block_size - 1
        self._num_tokens = num_tokens

    def __len__(self) -> int:
        """Number of windows in an epoch; the same in every epoch."""
        if self.shift:
            return self._num_tokens // self._stride
        return (self._num_tokens - 2) // self._stride + 1

    def offset(self, epoch: int) -> int:
        """Return the index of the token at which an epoch's first window begins."""
        if not self.shift:
            return 0
        return mix_seed(self.seed, epoch, _OFFSET_STREAM) % self._num_tokens

    def __getitem__(self, key: tuple[int, int] | int) -> dict[str, torch.Tensor]:
        """Return one window.

        Args:
            key: (epoch, index), or an index in epoch 0.

        Returns:
            ``input_ids``, ``position_ids`` and ``labels``, each of shape (block_size,), int64.

        Raises:
            IndexError: If the index is not in 0 .. len(self) - 1.
        """
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[tuple[int, int] | int]) -> list[dict[str, torch.Tensor]]:
        """Return several windows at once; the loader calls this with a whole batch."""
        pairs = [(0, key) if isinstance(key, (int, np.integer)) else key for key in keys]
        for _, index in pairs:
            if not 0 <= index < len(self):
                raise IndexError(f"window {index} of {len(self)}")
        # A window scores what comes after its context token, index * stride past the offset.
        contexts = np.array([self.offset(epoch) + index * self._stride for epoch, index in pairs])
        starts = contexts
        if not self.shift:
            starts = np.minimum(contexts, self._num_tokens - self.block_size)
        places = starts[:, None] + np.arange(self.block_size)  # (B, T)
        wrapped = places % self._num_tokens
        scored = (places > contexts[:, None]) & (wrapped > 0)
        batch = packed_windows(self.cache.tokens[wrapped], self._is_start(wrapped), scored)
        return [{name: values[i] for name, values in batch.items()} for i in range(len(pairs))]

    def _is_start(self, places: np.ndarray) -> np.ndarray:
        """Tell which indices of tokens begin a document, shape (B, T)."""
        starts = self.cache.document_starts
        found = np.searchsorted(starts, places)
        return starts[np.minimum(found, len(starts) - 1)] == places


class Windows(Protocol):
    """Examples of tokens by their keys."""

    def __len__(self) -> int:
        """Number of examples."""

    def __getitems__(self, keys: Any) -> list[dict[str, torch.Tensor]]:
        """Return several examples of one length, with `input_ids` and `labels`."""


class PaddedWindows(Dataset):
    """Windows followed by ignored ones, up to a multiple of a number.

    Args:
        windows: Windows with ``shift=False``.
        multiple: What the length shall be a multiple of.
    """

    def __init__(self, windows: Windows, multiple: int):
        self.windows = windows
        self._length = -(-len(windows) // multiple) * multiple

    def __len__(self) -> int:
        """Number of windows, ignored ones included."""
        return self._length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Return a window; one past the end of the data has only ignored labels."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """Return several windows at once."""
        size = len(self.windows)
        items = self.windows.__getitems__([index if index < size else 0 for index in indices])
        for index, item in zip(indices, items, strict=True):
            if index >= size:
                item["labels"] = torch.full_like(item["labels"], IGNORED)
        return items


def collate(windows: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Stack windows into a batch.

    Args:
        windows: B windows of the same length T.

    Returns:
        ``input_ids`` and ``labels`` of shape (B, T), int64; ``position_ids`` of the same shape if any
        window holds more than one document. Without it attention needs no mask.
    """
    batch = {name: torch.stack([window[name] for window in windows]) for name in windows[0]}
    positions = batch.get("position_ids")
    if positions is not None and bool((positions[:, -1] == positions.shape[1] - 1).all()):
        del batch["position_ids"]
    return batch
