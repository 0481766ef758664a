"""Batches of pairs cut by a budget of tokens, with almost no padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from hf_genmodels.data.packing import IGNORED
from hf_genmodels.data.pair_cache import PairCache
from hf_genmodels.data.sampling import batch_loader, permutation
from hf_genmodels.data.seeding import mix_seed
from hf_genmodels.errors import UserError

# Pairs that are sorted together: more give less padding, fewer give more varied batches.
POOL = 1 << 17
# Widths in tokens of the bands that a pool is sorted in: one where the sides are about equally long,
# more where they have little to do with each other.
_BANDS = (1, 2, 4, 8)
# Tell the order of the batches and the place of the first cut from the order of the pairs.
_BATCH_STREAM = 2
_CUT_STREAM = 3


def plan_epoch(
    source_lengths: np.ndarray,
    target_lengths: np.ndarray,
    *,
    max_tokens: int,
    seed: int,
    epoch: int,
    pool: int = POOL,
    world_size: int = 1,
) -> list[np.ndarray]:
    """Divide the pairs of an epoch into batches: a pure function of its arguments.

    The pairs are shuffled and taken a pool at a time. A pool is sorted by the longer side, which the
    budget counts, in bands of a few tokens, and within a band by the difference of the sides, there and
    back, so that neighbours are alike on both; of several widths of the bands the one that pads least is
    taken. The pool is cut wherever one more pair would pass the budget. Where the cutting begins differs
    between epochs, and so do the batches. At last they are shuffled. When their number is not a multiple
    of ``world_size`` the largest are halved, so that no pair is left out or repeated; only where every
    batch holds a single pair, fewer than ``world_size`` are left out.

    Args:
        source_lengths: Tokens of each source, shape (N,).
        target_lengths: Tokens of each target, shape (N,).
        max_tokens: Budget: rows times the longest source or target of the batch, padding included.
        seed: Seed of the run.
        epoch: Number of the epoch, from 0.
        pool: Pairs that are sorted together.
        world_size: What the number of batches shall be a multiple of.

    Returns:
        Indices of the pairs of each batch, int64.

    Raises:
        UserError: If a pair is longer than the budget or there are too few pairs.
    """
    order = permutation(seed, epoch, len(source_lengths)).numpy()
    drawn = mix_seed(seed, epoch, _CUT_STREAM)
    first_tokens = max_tokens - drawn % max(max_tokens // 2, 1)
    batches: list[np.ndarray] = []
    for start in range(0, len(order), pool):
        chosen = order[start : start + pool]
        lengths = (source_lengths[chosen], target_lengths[chosen])
        batches += [chosen[batch] for batch in _least_padded(*lengths, max_tokens, first_tokens)]
    batches = _multiple(batches, world_size)
    if len(batches) < world_size:
        raise UserError(
            f"{len(order):,} pairs are too few for {world_size} batches at a time (processes times "
            "--gradient_accumulation_steps). Give more pairs, or use fewer."
        )
    mixed = permutation(mix_seed(seed, _BATCH_STREAM), epoch, len(batches)).tolist()
    return [batches[place] for place in mixed[: len(mixed) // world_size * world_size]]


def _least_padded(
    sources: np.ndarray, targets: np.ndarray, max_tokens: int, first_tokens: int
) -> list[np.ndarray]:
    """Sort a pool in bands of several widths, cut it, and return the batches that pad least."""
    longer = np.maximum(sources, targets)
    difference = sources.astype(np.int64) - targets
    plans = []
    for width in _BANDS:
        band = longer // width
        there_and_back = np.where(band % 2 == 0, difference, -difference)
        order = np.lexsort((there_and_back, band))
        plans.append(_cut(order, longer, max_tokens, first_tokens))
    return min(plans, key=lambda plan: (_positions(plan, sources, targets), len(plan)))


def _positions(batches: list[np.ndarray], sources: np.ndarray, targets: np.ndarray) -> int:
    """Return how many positions batches have on both sides, padding included."""
    return sum(len(batch) * int(sources[batch].max() + targets[batch].max()) for batch in batches)


def _cut(
    order: np.ndarray, longer: np.ndarray, max_tokens: int, first_tokens: int
) -> list[np.ndarray]:
    """Cut a sorted pool into stretches whose rows times width are within the budget.

    The first stretch has a budget of its own, but at least one pair.
    """
    widths = longer[order].astype(np.int64)
    if len(widths) and widths.max() > max_tokens:
        raise UserError(
            f"The longest pair has {widths.max():,} tokens on one side, and a batch may hold "
            f"{max_tokens:,}. Raise --batch_tokens to at least that, or lower --max_source_length and "
            "--max_target_length."
        )
    batches, start, budget = [], 0, first_tokens
    while start < len(order):
        near = widths[start : start + max(budget // int(widths[start]), 1)]
        sizes = np.maximum.accumulate(near) * np.arange(1, len(near) + 1)
        stop = start + max(int(np.searchsorted(sizes, budget, side="right")), 1)
        batches.append(order[start:stop])
        start, budget = stop, max_tokens
    return batches


def _multiple(batches: list[np.ndarray], number: int) -> list[np.ndarray]:
    """Halve the batches with the most pairs until their number is a multiple of another.

    Returns:
        The batches; their number is no multiple if each holds a single pair.
    """
    batches = list(batches)
    while len(batches) % number:
        largest = max(range(len(batches)), key=lambda place: len(batches[place]))
        batch = batches[largest]
        if len(batch) < 2:
            break
        batches[largest : largest + 1] = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
    return batches


class TokenBudgetSampler(Sampler[list[tuple[int, int]]]):
    """An endless batch sampler of pairs whose whole state is two numbers.

    Batch b of an epoch goes to process ``b % world_size``. Every epoch's number of batches is a multiple
    of ``world_size * accumulation``, so that no optimizer step spans two epochs, and the same steps
    come from 1 process with 4 batches a step, from 2 with 2 and from 4 with 1.

    Args:
        source_lengths: Tokens of each source, shape (N,).
        target_lengths: Tokens of each target, shape (N,).
        max_tokens: Budget of a batch of one process, as in `plan_epoch`.
        seed: Seed of the run.
        rank: Number of this process.
        world_size: Number of processes.
        accumulation: Batches of one process that make an optimizer step.
        pool: As in `plan_epoch`.
        start: What `state_after` returned, or None for the beginning.

    Raises:
        ValueError: If a number is out of range.
        UserError: As `plan_epoch`.
    """

    def __init__(
        self,
        source_lengths: np.ndarray,
        target_lengths: np.ndarray,
        *,
        max_tokens: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        accumulation: int = 1,
        pool: int = POOL,
        start: dict[str, int] | None = None,
    ):
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be in 0 .. {world_size - 1}, but is {rank}.")
        self.max_tokens = max_tokens
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.accumulation = accumulation
        self.pool = pool
        self.start = dict(start or {"epoch": 0, "batch": 0})
        if min(self.start["epoch"], self.start["batch"]) < 0:
            raise ValueError(f"start must not be negative, but is {self.start}.")
        self._lengths = (source_lengths, target_lengths)
        self._num_batches: dict[int, int] = {}
        self._planned: tuple[int, list[np.ndarray]] = (-1, [])
        self._plan(self.start["epoch"])

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield for ever the (epoch, index) pairs of this process's batches."""
        epoch, done = self.start["epoch"], self.start["batch"]
        while True:
            plan = self._plan(epoch)
            for batch in plan[done + self.rank :: self.world_size]:
                yield [(epoch, index) for index in batch.tolist()]
            epoch, done = epoch + 1, 0

    def state_after(self, batches: int) -> dict[str, int]:
        """Return where the stream stands after a number of batches of each process.

        Args:
            batches: Batches that this process has used since it began at ``start``. What a loader
                has fetched in advance does not count.

        Returns:
            Numbers for ``start``: the epoch, and how many of its batches all processes have used. They
            do not depend on the rank.
        """
        epoch = self.start["epoch"]
        done = self.start["batch"] + batches * self.world_size
        while done >= (size := self.num_batches(epoch)):
            epoch, done = epoch + 1, done - size
        return {"epoch": epoch, "batch": done}

    def num_batches(self, epoch: int) -> int:
        """Return how many batches an epoch has over all processes."""
        if epoch not in self._num_batches:
            self._plan(epoch)
        return self._num_batches[epoch]

    def _plan(self, epoch: int) -> list[np.ndarray]:
        if self._planned[0] == epoch:
            return self._planned[1]
        plan = plan_epoch(
            *self._lengths,
            max_tokens=self.max_tokens,
            seed=self.seed,
            epoch=epoch,
            pool=self.pool,
            world_size=self.world_size * self.accumulation,
        )
        self._planned, self._num_batches[epoch] = (epoch, plan), len(plan)
        return plan


class PairDataset(Dataset):
    """The pairs of a cache, as examples.

    Args:
        cache: Tokenised pairs.
    """

    def __init__(self, cache: PairCache):
        self.cache = cache

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.cache)

    def __getitem__(self, key: tuple[int, int] | int) -> dict[str, np.ndarray]:
        """Return a pair.

        Args:
            key: (epoch, index), or an index.

        Returns:
            ``source`` and ``target``: token ids, int64, each ending with its end-of-sequence token.
        """
        index = key[1] if isinstance(key, tuple) else int(key)
        return {"source": self.cache.source(index), "target": self.cache.target(index)}


def padded(rows: Sequence[np.ndarray], value: int, width: int | None = None) -> torch.Tensor:
    """Stack rows of different lengths, filled up on the right.

    Args:
        rows: B rows of numbers.
        value: What fills the rest.
        width: Length of the result; what is longer is cut off. None: that of the longest row.

    Returns:
        Shape (B, width), int64.
    """
    width = max(map(len, rows)) if width is None else width
    filled = np.full((len(rows), width), value, dtype=np.int64)
    for place, row in enumerate(rows):
        filled[place, : len(row)] = row[:width]
    return torch.from_numpy(filled)


def mask(rows: Sequence[np.ndarray]) -> torch.Tensor:
    """Return 1 where ``padded`` put a row and 0 where it filled up, shape (B, S), int64."""
    return padded([np.ones(len(row), dtype=np.int64) for row in rows], 0)


def collate_pairs(
    examples: Sequence[dict[str, np.ndarray]], pad_token_id: int
) -> dict[str, torch.Tensor]:
    """Pad pairs on the right and stack them.

    Args:
        examples: B examples of a `PairDataset`.
        pad_token_id: Id that fills up sources; targets are filled with ignored labels.

    Returns:
        ``input_ids`` and ``attention_mask`` of shape (B, S) and ``labels`` of shape (B, T), int64.
    """
    sources = [example["source"] for example in examples]
    return {
        "input_ids": padded(sources, pad_token_id),
        "attention_mask": mask(sources),
        "labels": padded([example["target"] for example in examples], IGNORED),
    }


def pair_loader(
    cache: PairCache,
    batches: Iterable[list[Any]],
    *,
    pad_token_id: int,
    num_workers: int = 0,
) -> DataLoader:
    """Return a loader of batches of pairs.

    It draws nothing from torch's global random stream. Do not pass it through ``accelerator.prepare``:
    the sampler has already divided the data between the processes.

    Args:
        cache: Tokenised pairs.
        batches: A `TokenBudgetSampler`, or what `evaluation_batches` returned.
        pad_token_id: Id that fills up sources.
        num_workers: Background processes that fetch; the order of batches does not depend on it.

    Returns:
        A loader of dicts as `collate_pairs` returns them.
    """
    collate = partial(collate_pairs, pad_token_id=pad_token_id)
    return batch_loader(PairDataset(cache), batches, collate, num_workers)


def evaluation_batches(
    source_lengths: np.ndarray,
    target_lengths: np.ndarray,
    max_tokens: int,
    *,
    rank: int = 0,
    world_size: int = 1,
) -> list[list[int]]:
    """Divide all pairs once into batches of one process, the longest first.

    Args:
        source_lengths: Tokens of each source, shape (N,).
        target_lengths: Tokens of each target, shape (N,).
        max_tokens: Budget of a batch, as in `plan_epoch`.
        rank: Number of this process.
        world_size: Number of processes.

    Returns:
        Indices of the pairs of each batch; every pair stands in exactly one batch of one process. All
        processes have equally many batches, so that sharded models do not wait for each other; only
        where every batch holds a single pair, some have one batch fewer.

    Raises:
        UserError: If a pair is longer than the budget.
    """
    batches = _least_padded(source_lengths, target_lengths, max_tokens, max_tokens)
    longer = np.maximum(source_lengths, target_lengths)
    batches = sorted(_multiple(batches, world_size), key=lambda batch: -longer[batch].max())
    return [batch.tolist() for batch in batches[rank::world_size]]


def padding_share(batch: dict[str, torch.Tensor]) -> float:
    """Return which part of a batch's positions, of both sides, is padding: 0 .. 1.

    Args:
        batch: As `collate_pairs` returns it.
    """
    real = int(batch["attention_mask"].sum()) + int((batch["labels"] != IGNORED).sum())
    return 1 - real / (batch["attention_mask"].numel() + batch["labels"].numel())
