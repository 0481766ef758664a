"""The order of training data as a pure function of seed, epoch and position."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from hf_genmodels.data.packing import PaddedWindows, Windows, collate
from hf_genmodels.data.seeding import mix_seed
from hf_genmodels.errors import UserError


def permutation(seed: int, epoch: int, size: int) -> torch.Tensor:
    """Return the order in which an epoch visits its examples.

    Args:
        seed: Seed of the run.
        epoch: Number of the epoch, from 0.
        size: Number of examples.

    Returns:
        A permutation of 0 .. size - 1, shape (size,), int64.
    """
    generator = torch.Generator().manual_seed(mix_seed(seed, epoch))
    return torch.randperm(size, generator=generator)


class PositionSampler(Sampler[list[tuple[int, int]]]):
    """An endless batch sampler whose whole state is one number.

    Position p of the data stream is example ``permutation(seed, p // size)[p % size]``. Micro-batch k
    of all processes covers positions ``start + k * batch_size * world_size`` onwards, and each
    process takes its own ``batch_size`` of them. The same global batches therefore come from 1
    process with 4 micro-batches a step, from 2 with 2 and from 4 with 1.

    Args:
        size: Number of examples in an epoch.
        batch_size: Examples in a micro-batch of one process.
        seed: Seed of the run.
        rank: Number of this process.
        world_size: Number of processes.
        start: Examples that all processes together consumed before.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        size: int,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
    ):
        for name, value in (("size", size), ("batch_size", batch_size), ("world_size", world_size)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, but is {value}.")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be in 0 .. {world_size - 1}, but is {rank}.")
        if start < 0:
            raise ValueError(f"start must not be negative, but is {start}.")
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.start = start
        self._epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield for ever the (epoch, index) pairs of this process's micro-batches."""
        position = self.start + self.rank * self.batch_size
        while True:
            yield [self._key(position + offset) for offset in range(self.batch_size)]
            position += self.batch_size * self.world_size

    def _key(self, position: int) -> tuple[int, int]:
        epoch, place = divmod(position, self.size)
        if epoch != self._epoch:
            self._order = permutation(self.seed, epoch, self.size).numpy()
            self._epoch = epoch
        return epoch, int(self._order[place])


def train_loader(windows: Windows, sampler: PositionSampler, num_workers: int = 0) -> DataLoader:
    """Return the endless loader of training batches.

    It draws nothing from torch's global random stream, so that dropout after a resume is what it
    would have been. Do not pass it through ``accelerator.prepare``: the sampler has already divided
    the data between the processes.

    Args:
        windows: Windows with ``shift=True``.
        sampler: Says which windows come next.
        num_workers: Background processes that fetch; the order of batches does not depend on it.

    Returns:
        A loader of dicts as ``collate`` returns them.
    """
    return batch_loader(windows, sampler, collate, num_workers)


def validation_loader(
    windows: Windows,
    batch_size: int,
    *,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
) -> DataLoader:
    """Return a loader that passes once over the windows of one process.

    All processes get the same number of equally large batches, so that sharded models do not wait
    for each other; what is added to make it so has only ignored labels.

    Args:
        windows: Windows with ``shift=False``.
        batch_size: Windows in a batch of one process.
        rank: Number of this process.
        world_size: Number of processes.
        num_workers: Background processes that fetch.

    Returns:
        A loader of dicts as ``collate`` returns them.
    """
    batch_size = min(batch_size, -(-len(windows) // world_size))
    padded = PaddedWindows(windows, multiple=batch_size * world_size)
    own = range(rank, len(padded), world_size)
    batches = [list(own[i : i + batch_size]) for i in range(0, len(own), batch_size)]
    return batch_loader(padded, batches, collate, num_workers)


def batch_loader(
    dataset: Any,
    batches: Iterable[list[Any]],
    collate_fn: Callable[[Any], Any],
    num_workers: int = 0,
) -> DataLoader:
    """Return a loader whose batches are chosen by somebody else.

    Args:
        dataset: Examples.
        batches: Keys of the examples of each batch.
        collate_fn: Makes a batch of a list of examples.
        num_workers: Background processes that fetch; the order of batches does not depend on it.
    """
    if num_workers > 0:
        # Forked workers never tokenise: without this the tokenizers library warns at every fork.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=_Shared(collate_fn) if num_workers else collate_fn,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(0),
    )


class SharedMemoryError(UserError):
    """Workers cannot hand over batches. Made again from a worker's, whatever its words."""

    def __init__(self, *_: object):
        super().__init__(
            "The processes of --num_workers cannot hand over batches, perhaps because the shared memory "
            "of this machine (/dev/shm) is full. Make room there, or use --num_workers 0."
        )


class _Shared:
    """Puts a batch into shared memory where an error still reaches the training process.

    Later it would be in a thread of the worker, and the training process would wait forever.
    """

    def __init__(self, collate_fn: Callable[[Any], Any]):
        self._collate_fn = collate_fn

    def __call__(self, examples: Any) -> Any:
        batch = self._collate_fn(examples)
        try:
            for tensor in batch.values():
                tensor.share_memory_()
        except (RuntimeError, OSError):
            raise SharedMemoryError from None
        return batch
