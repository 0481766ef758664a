"""Tests of the order of training data."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_genmodels.data.packing import IGNORED, PackedWindows
from hf_genmodels.data.sampling import (
    PositionSampler,
    permutation,
    train_loader,
    validation_loader,
)
from hf_genmodels.data.seeding import mix_seed


@pytest.fixture
def windows(cache_of):
    """Training windows over three documents whose tokens are all different."""
    documents = [range(0, 40), range(40, 47), range(47, 100)]
    return PackedWindows(cache_of(documents), 6, shift=True, seed=5)


@given(seed=st.integers(), epoch=st.integers(0, 1000), size=st.integers(1, 50))
def test_permutation_is_a_permutation_and_pure(seed, epoch, size):
    order = permutation(seed, epoch, size)
    assert sorted(order.tolist()) == list(range(size))
    assert torch.equal(order, permutation(seed, epoch, size))


def test_permutations_differ_between_seeds_and_epochs():
    orders = {tuple(permutation(s, e, 30).tolist()) for s in range(4) for e in range(4)}
    assert len(orders) == 16


def test_permutation_is_the_same_in_every_version_of_this_package():
    assert permutation(0, 0, 8).tolist() == [4, 1, 3, 5, 0, 2, 6, 7]
    assert mix_seed(0, 0) == 15793235383387715774
    assert mix_seed(-1, 7) == 5742797963224746006


def test_permutation_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    permutation(1, 2, 100)
    assert torch.equal(before, torch.get_rng_state())


@settings(deadline=None)
@given(
    size=st.integers(1, 20),
    micro_batch=st.integers(1, 4),
    start=st.integers(0, 100),
    seed=st.integers(0, 9),
)
def test_every_split_into_processes_and_accumulation_sees_the_same_steps(
    size, micro_batch, start, seed
):
    def steps(world_size):
        """Examples of each of 5 optimiser steps, over all ranks and micro-batches."""
        accumulation = 4 // world_size
        steps = [[] for _ in range(5)]
        for rank in range(world_size):
            sampler = PositionSampler(
                size,
                batch_size=micro_batch,
                seed=seed,
                rank=rank,
                world_size=world_size,
                start=start,
            )
            for k, batch in enumerate(islice(sampler, 5 * accumulation)):
                assert len(batch) == micro_batch
                steps[k // accumulation].extend(batch)
        return [sorted(step) for step in steps]

    assert steps(1) == steps(2) == steps(4)


@settings(deadline=None)
@given(
    size=st.integers(1, 20),
    batch_size=st.integers(1, 7),
    world_size=st.integers(1, 3),
    done=st.integers(0, 12),
)
def test_a_restart_continues_exactly(size, batch_size, world_size, done):
    for rank in range(world_size):
        options = {"batch_size": batch_size, "seed": 3, "rank": rank, "world_size": world_size}
        whole = list(islice(PositionSampler(size, **options), done + 10))
        start = done * batch_size * world_size
        assert list(islice(PositionSampler(size, start=start, **options), 10)) == whole[done:]


def test_each_epoch_visits_every_example_once():
    sampler = PositionSampler(10, batch_size=4, seed=0)
    keys = [key for batch in islice(sampler, 10) for key in batch]
    for epoch in range(4):
        assert sorted(i for e, i in keys if e == epoch) == list(range(10))


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"batch_size": 0},
        {"world_size": 0},
        {"rank": 1},
        {"rank": -1},
        {"start": -1},
    ],
)
def test_numbers_out_of_range_are_refused(wrong):
    options = {"size": 5, "batch_size": 2, "seed": 0, **wrong}
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PositionSampler(options.pop("size"), **options)


def first_batches(windows, num_workers, count=25):
    """The first batches of a training loader."""
    sampler = PositionSampler(len(windows), batch_size=3, seed=1)
    loader = train_loader(windows, sampler, num_workers)
    return list(islice(loader, count))


def test_batches_are_the_same_with_and_without_workers(windows):
    alone, helped = first_batches(windows, 0), first_batches(windows, 2)
    for one, other in zip(alone, helped, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_iterating_leaves_the_global_random_state_alone(windows, num_workers):
    before = torch.get_rng_state()
    first_batches(windows, num_workers, count=3)
    list(validation_loader(windows, 2, num_workers=num_workers))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_validation_passes_once_over_all_windows(cache_of, batch_size, world_size):
    windows = PackedWindows(cache_of([range(0, 40), range(40, 61)]), 6)
    labels, shapes = [], []
    for rank in range(world_size):
        loader = validation_loader(windows, batch_size, rank=rank, world_size=world_size)
        batches = list(loader)
        shapes.append([batch["labels"].shape for batch in batches])
        labels += [batch["labels"].flatten() for batch in batches]
    scored = [label for label in torch.cat(labels).tolist() if label != IGNORED]
    assert sorted(scored) == [*range(1, 61)]
    assert all(shape == shapes[0] for shape in shapes)
