"""Windows of tokens made while text is being read, for data too large to keep tokenised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from hf_genmodels.data.columns import choose_column, field
from hf_genmodels.data.packing import collate, packed_windows
from hf_genmodels.data.sampling import permutation
from hf_genmodels.data.seeding import mix_seed
from hf_genmodels.data.sources import Piece, TextSource
from hf_genmodels.data.text_files import expand_files
from hf_genmodels.data.tokenizing import encode, joined, plain_backend
from hf_genmodels.errors import UserError, require_extra

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Pieces of text that are tokenised together.
_GROUP = 16
_SAMPLE_ROWS = 100
_FRESH: dict[str, Any] = {
    "epoch": 0,
    "reader": None,
    "block": 0,
    "taken": 0,
    "windows": 0,
}


class _Reader(Protocol):
    """Reads one process's share of the documents of an epoch."""

    def start(self, epoch: int, state: dict[str, Any] | None) -> Iterator[Piece]:
        """Read on from a state of this epoch, or from the epoch's beginning."""

    def state(self) -> dict[str, Any]:
        """Return where the reader is, after the last piece that it gave."""


class _FileReader:
    """Reads local files.

    Processes share the files out if their number allows it; otherwise each reads all of them and
    keeps one document in ``world_size``. Going on means to open the right file and to read, without
    tokenising, up to the place.
    """

    def __init__(self, source: TextSource, rank: int, world_size: int, seed: int, shuffle: bool):
        self._source = source
        self._files = expand_files(source.files)
        self._rank, self._world_size = rank, world_size
        self._seed, self._shuffle = seed, shuffle
        self._file = self._piece = self._document = 0

    def start(self, epoch: int, state: dict[str, Any] | None) -> Iterator[Piece]:
        position = state or {"file": 0, "piece": 0, "document": 0}
        self._file, self._piece = position["file"], position["piece"]
        self._document = position["document"]
        files = self._files_of(epoch)
        share_files = len(files) % self._world_size == 0
        files = files[self._rank :: self._world_size] if share_files else files
        while self._file < len(files):
            pieces = replace(self._source, files=[files[self._file]]).pieces()
            for piece in islice(pieces, self._piece, None):
                own = share_files or self._document % self._world_size == self._rank
                self._piece += 1
                self._document += piece.last
                if own:
                    yield piece
            self._file, self._piece = self._file + 1, 0

    def state(self) -> dict[str, Any]:
        return {"file": self._file, "piece": self._piece, "document": self._document}

    def _files_of(self, epoch: int) -> list[Path]:
        if not self._shuffle:
            return self._files
        return [self._files[i] for i in permutation(self._seed, epoch, len(self._files)).tolist()]


class _DatasetReader:
    """Reads a hub dataset; `datasets` shares it out and keeps the position."""

    def __init__(self, source: TextSource, rank: int, world_size: int):
        datasets = require_extra("datasets", "train")
        from datasets.distributed import split_dataset_by_node

        dataset = datasets.load_dataset(
            source.dataset_name, source.dataset_config_name, split=source.split, streaming=True
        )
        name = f"the dataset {source.dataset_name!r}"
        self._column = choose_column(list(dataset.take(_SAMPLE_ROWS)), source.text_column, name)
        self._dataset = split_dataset_by_node(dataset, rank, world_size)

    def start(self, epoch: int, state: dict[str, Any] | None) -> Iterator[Piece]:
        self._dataset.set_epoch(epoch)
        self._dataset.load_state_dict(state or {})
        for row in self._dataset:
            text = field(row, self._column) or ""
            if not isinstance(text, str):
                raise UserError(
                    f"A row of the dataset holds {type(text).__name__} in the column "
                    f"{self._column!r}, not text."
                )
            yield Piece(text, last=True)

    def state(self) -> dict[str, Any]:
        return self._dataset.state_dict()


class StreamingWindows(IterableDataset[dict[str, torch.Tensor]]):
    """An endless stream of full windows; documents are tokenised and packed as they are read.

    Windows are as in ``PackedWindows``: neighbours share one token, documents do not see each other,
    each begins with the end-of-sequence token that ends the one before, and what is left at the end of
    an epoch begins the next one. Each process reads its own share of the documents.

    The state after a window is a small JSON object. A stream that loads it gives exactly the windows
    that would have come next, also with a shuffle buffer: documents are shuffled in blocks of
    ``shuffle_buffer``, each in an order that is a pure function of (seed, epoch, block), and the
    order of files changes between epochs in the same way. Going on costs reading one block again.

    Args:
        source: Local files or a hub dataset.
        tokenizer: A fast tokenizer that has an end-of-sequence token.
        block_size: Tokens in a window, at least 2.
        rank: Number of this process.
        world_size: Number of processes.
        seed: Seed of the run.
        shuffle_buffer: Documents that are held in memory to be shuffled; 0 keeps their order.

    Raises:
        UserError: If the source or the tokenizer cannot be used.
    """

    def __init__(
        self,
        source: TextSource,
        tokenizer: PreTrainedTokenizerBase,
        block_size: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        shuffle_buffer: int = 0,
    ):
        if block_size < 2:
            raise UserError(f"block_size must be at least 2, but is {block_size}.")
        if shuffle_buffer < 0:
            raise UserError(f"shuffle_buffer must not be negative, but is {shuffle_buffer}.")
        source.check()
        self._backend, self._eos = plain_backend(tokenizer)
        self._reader: _Reader = (
            _FileReader(source, rank, world_size, seed, shuffle_buffer > 0)
            if source.files
            else _DatasetReader(source, rank, world_size)
        )
        self._block_size = block_size
        self._settings = {
            "block_size": block_size,
            "rank": rank,
            "world_size": world_size,
            "seed": seed,
            "shuffle_buffer": shuffle_buffer,
        }
        # The position before the group of pieces at hand, and the windows taken from it since.
        self._position: dict[str, Any] = {**_FRESH, "tokens": [self._eos]}

    def state_dict(self) -> dict[str, Any]:
        """Return the state after the last window that was taken: numbers, strings, lists, dicts.

        With a loader of ``stream_loader`` the state right after a batch arrived is the state after
        that batch, because nothing is fetched ahead.
        """
        return {**self._settings, **self._position, "tokens": list(self._position["tokens"])}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the window at which a state was taken. Call it before iterating.

        Args:
            state: What ``state_dict`` returned in this process of an earlier run.

        Raises:
            UserError: If the state belongs to other settings.
        """
        for name, value in self._settings.items():
            if state.get(name) != value:
                raise UserError(
                    f"The saved position in the stream was taken with {name}={state.get(name)}, "
                    f"but {name} is {value} now. Resume with the old value, or start a new run."
                )
        self._position = {name: state[name] for name in self._position}

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """Yield windows for ever, from the present state on.

        Yields:
            ``input_ids``, ``position_ids`` and ``labels``, each of shape (block_size,), int64.
        """
        if get_worker_info() is not None:
            raise UserError(_NO_WORKERS)
        stride = self._block_size - 1
        position = self._position
        for ids in self._groups():
            tokens = np.concatenate([np.array(position["tokens"], dtype=np.int64), ids])
            count = (len(tokens) - 1) // stride
            for window in range(position["windows"], count):
                position["windows"] = window + 1
                start = window * stride
                yield self._window(tokens[start : start + self._block_size])
            position["tokens"], position["windows"] = tokens[count * stride :].tolist(), 0

    def _groups(self) -> Iterator[np.ndarray]:
        """Yield the token ids of group after group of pieces, moving the position past each."""
        position = self._position
        while True:
            pieces = self._reader.start(position["epoch"], position["reader"])
            for block in self._blocks(pieces):
                after = self._reader.state()
                for first in range(position["taken"], len(block), _GROUP):
                    group = [piece for item in block[first : first + _GROUP] for piece in item]
                    encoded = encode(self._backend, [piece.text for piece in group])
                    yield joined(group, encoded, self._eos, position["tokens"][-1])
                    position["taken"] = first + _GROUP
                position.update(reader=after, block=position["block"] + 1, taken=0)
            if not position["block"]:
                raise UserError(
                    f"There is no document for process {self._settings['rank']} of "
                    f"{self._settings['world_size']}. Use fewer processes or give more documents."
                )
            position.update(epoch=position["epoch"] + 1, reader=None, block=0)

    def _blocks(self, pieces: Iterator[Piece]) -> Iterator[list[list[Piece]]]:
        """Yield lists of items that are tokenised in their order.

        An item is a piece, or a whole document if documents are shuffled.
        """
        buffer = self._settings["shuffle_buffer"]
        items: Iterator[list[Piece]]
        items = _documents(pieces) if buffer else ([piece] for piece in pieces)
        while block := list(islice(items, buffer or _GROUP)):
            if buffer:
                seed = mix_seed(self._settings["seed"], self._position["epoch"])
                order = permutation(seed, self._position["block"], len(block))
                block = [block[i] for i in order.tolist()]
            yield block

    def _window(self, ids: np.ndarray) -> dict[str, torch.Tensor]:
        is_start = ids[None] == self._eos  # (1, T)
        batch = packed_windows(ids[None], is_start, np.ones_like(is_start))
        return {name: values[0] for name, values in batch.items()}


def stream_loader(windows: StreamingWindows, batch_size: int, num_workers: int = 0) -> DataLoader:
    """Return the endless loader of batches from a stream.

    Args:
        windows: The stream.
        batch_size: Windows in a batch of this process.
        num_workers: Must be 0: a worker's position in the stream could not be saved.

    Returns:
        A loader of dicts as ``collate`` returns them.

    Raises:
        UserError: If workers are asked for.
    """
    if num_workers:
        raise UserError(_NO_WORKERS)
    generator = torch.Generator().manual_seed(0)
    return DataLoader(windows, batch_size=batch_size, collate_fn=collate, generator=generator)


_NO_WORKERS = (
    "Streamed data are read by the training process itself: set num_workers to 0. "
    "Without streaming, the data are tokenised once and workers are allowed."
)


def _documents(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    """Gather the pieces of each document."""
    document: list[Piece] = []
    for piece in pieces:
        document.append(piece)
        if piece.last:
            yield document
            document = []
