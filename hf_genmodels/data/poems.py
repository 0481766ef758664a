"""Openings of poems with what belongs to them and what does not.

An example is an opening and its continuation. To it come a positive, which its encoding shall be near
to, and a negative, which the decoder shall find unlikely. Both are pure functions of seed, epoch and
index. Any texts in groups will do, where a group is what one author is to poems.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from hf_genmodels.data.buckets import collate_pairs, mask, padded
from hf_genmodels.data.packing import IGNORED
from hf_genmodels.data.pair_cache import PairCache
from hf_genmodels.data.sampling import batch_loader
from hf_genmodels.data.seeding import mix_seed
from hf_genmodels.errors import UserError

# Tells the choice of positives and negatives from other streams.
_POEM_STREAM = 4


class PoemWindows(Dataset):
    """Pairs of a cache with groups, each with a positive and a negative.

    The positive is the pair's own continuation, or the opening of a neighbour: a pair of the same group
    that stands at most ``reach`` places before or after it among the pairs of the group. The negative
    is the continuation of any pair of another group, all equally likely.

    Args:
        cache: Tokenised pairs, with a column of groups and one tokenizer for both sides.
        seed: Seed of the run.
        own_share: How often the positive is the own continuation, 0 .. 1. A pair without a neighbour
            always has its own.
        reach: How far neighbours may stand apart, at least 1.

    Raises:
        UserError: If the pairs are not of two groups or more, the sides have different tokenizers, or a
            number is out of range.
    """

    def __init__(self, cache: PairCache, *, seed: int, own_share: float = 0.5, reach: int = 2):
        if not 0 <= own_share <= 1:
            raise UserError(f"own_share must be in 0 .. 1, but is {own_share}.")
        if reach < 1:
            raise UserError(f"reach must be at least 1, but is {reach}.")
        if not cache.one_tokenizer:
            raise UserError(
                "Continuations are encoded like openings, and the sources have another tokenizer than "
                "the targets. Use one tokenizer for both, or switch the contrastive loss off."
            )
        self.cache = cache
        self.seed = seed
        self.own_share = own_share
        self.reach = reach
        groups = np.asarray(cache.groups)
        self._by_group = np.argsort(groups, kind="stable")  # (N,): pairs of a group side by side
        self._place = np.argsort(self._by_group)  # (N,): where each pair stands in it
        ordered = groups[self._by_group]
        self._begin = np.searchsorted(ordered, groups, side="left")  # (N,)
        self._end = np.searchsorted(ordered, groups, side="right")  # (N,)
        if not len(groups) or self._end[0] - self._begin[0] == len(groups):
            raise UserError(
                "All pairs are of one group, so none can be a negative of another. Name the column that "
                "tells them apart, such as the author, with --group_column."
            )

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.cache)

    def neighbours(self, index: int) -> np.ndarray:
        """Return the indices of the pairs near a pair in its group, in order, without itself."""
        place = int(self._place[index])
        first = max(place - self.reach, int(self._begin[index]))
        last = min(place + self.reach + 1, int(self._end[index]))
        near = self._by_group[first:last]
        return near[near != index]

    def negative(self, index: int, draw: float) -> int:
        """Return the index of a pair of another group.

        Args:
            index: The pair.
            draw: Which one, as a share in 0 .. 1 (1 excluded) of all of them.
        """
        begin, end = int(self._begin[index]), int(self._end[index])
        others = len(self) - (end - begin)
        place = int(draw * others)
        return int(self._by_group[place if place < begin else place + end - begin])

    def __getitem__(self, key: tuple[int, int] | int) -> dict[str, np.ndarray]:
        """Return an example.

        Args:
            key: (epoch, index), or an index in epoch 0.

        Returns:
            Token ids, int64, each with its end-of-sequence token: ``source`` (the opening), ``target``
            (its continuation), ``positive`` and ``negative``; and ``group``, shape (1,).
        """
        epoch, index = key if isinstance(key, tuple) else (0, int(key))
        random = np.random.default_rng(mix_seed(self.seed, epoch, index, _POEM_STREAM))
        own, which, other = random.random(3)
        near = self.neighbours(index)
        if len(near) and own >= self.own_share:
            positive = self.cache.source(int(near[int(which * len(near))]))
        else:
            positive = self.cache.target(index)
        return {
            "source": self.cache.source(index),
            "target": self.cache.target(index),
            "positive": positive,
            "negative": self.cache.target(self.negative(index, other)),
            "group": np.asarray(self.cache.groups[index : index + 1]),
        }


def collate_poems(
    examples: Sequence[dict[str, np.ndarray]], pad_token_id: int
) -> dict[str, torch.Tensor]:
    """Pad examples on the right and stack them.

    Args:
        examples: B examples of `PoemWindows`.
        pad_token_id: Id that fills up what the encoder reads.

    Returns:
        What `collate_pairs` returns, and, int64: ``positive_input_ids`` and
        ``positive_attention_mask`` of shape (B, P); ``negatives`` of the shape (B, T) of the labels,
        filled up with ignored ones and cut where it is longer; ``negative_labels``, the same with those
        tokens ignored that stand in the own continuation too; ``groups`` of shape (B,).
    """
    batch = collate_pairs(examples, pad_token_id)
    positives = [example["positive"] for example in examples]
    rows = [example["negative"] for example in examples]
    negatives = padded(rows, IGNORED, width=batch["labels"].shape[1])
    # As Welleck et al. 2020 take the true token out of their candidates: commas, the end and what
    # else both have are no mistakes, and a model that avoids them breaks the metre.
    shared = negatives[:, :, None].eq(batch["labels"][:, None, :]).any(dim=2)
    groups = np.concatenate([example["group"] for example in examples])
    return {
        **batch,
        "positive_input_ids": padded(positives, pad_token_id),
        "positive_attention_mask": mask(positives),
        "negatives": negatives,
        "negative_labels": negatives.masked_fill(shared, IGNORED),
        "groups": torch.from_numpy(groups.astype(np.int64)),
    }


def poem_loader(
    windows: PoemWindows,
    batches: Iterable[list[Any]],
    *,
    pad_token_id: int,
    num_workers: int = 0,
) -> DataLoader:
    """Return a loader of batches with positives and negatives; otherwise as `pair_loader`.

    Args:
        windows: Pairs with groups.
        batches: A `TokenBudgetSampler` of the cache's lengths. Its budget counts openings and
            continuations, not the positives that the encoder reads besides.
        pad_token_id: Id that fills up what the encoder reads.
        num_workers: Background processes that fetch; the order of batches does not depend on it.

    Returns:
        A loader of dicts as `collate_poems` returns them.
    """
    collate = partial(collate_poems, pad_token_id=pad_token_id)
    return batch_loader(windows, batches, collate, num_workers)
