"""Tests of batches cut by a budget of tokens."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_genmodels.data.buckets import (
    TokenBudgetSampler,
    collate_pairs,
    evaluation_batches,
    padding_share,
    pair_loader,
    plan_epoch,
)
from hf_genmodels.data.packing import IGNORED
from hf_genmodels.data.pair_cache import PairCache, PairCounts
from hf_genmodels.errors import UserError

lengths = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=12, max_size=80)


def arrays(pairs):
    """Lengths of sources and of targets."""
    sources, targets = zip(*pairs, strict=True)
    return np.array(sources, dtype=np.int32), np.array(targets, dtype=np.int32)


def size(batch, sources, targets):
    """Rows times the longest side."""
    return len(batch) * max(sources[batch].max(), targets[batch].max())


def natural_lengths(number, seed=0):
    """Lengths of a corpus whose sides differ by about an eighth."""
    random = np.random.default_rng(seed)
    sources = np.clip(random.gamma(6, 5.4, number), 4, 128)
    targets = np.clip(sources * random.normal(1, 0.12, number), 4, 128)
    return sources.astype(np.int32), targets.astype(np.int32)


@settings(deadline=None)
@given(
    pairs=lengths,
    max_tokens=st.integers(30, 200),
    seed=st.integers(0, 99),
    epoch=st.integers(0, 9),
    pool=st.integers(1, 100),
    world_size=st.integers(1, 4),
)
def test_every_pair_stands_in_one_batch_within_the_budget(
    pairs, max_tokens, seed, epoch, pool, world_size
):
    sources, targets = arrays(pairs)
    options = {"max_tokens": max_tokens, "seed": seed, "epoch": epoch}
    options |= {"pool": pool, "world_size": world_size}
    plan = plan_epoch(sources, targets, **options)
    found = np.concatenate(plan).tolist()
    assert len(set(found)) == len(found)
    if max(map(len, plan)) > 1:
        assert sorted(found) == list(range(len(pairs)))
    assert len(pairs) - len(found) < world_size
    assert all(size(batch, sources, targets) <= max_tokens for batch in plan)
    assert len(plan) % world_size == 0
    again = plan_epoch(sources, targets, **options)
    assert [batch.tolist() for batch in again] == [batch.tolist() for batch in plan]


def test_epochs_and_seeds_have_batches_of_their_own():
    sources, targets = natural_lengths(500)
    plans = {
        frozenset(
            tuple(sorted(batch.tolist()))
            for batch in plan_epoch(sources, targets, max_tokens=512, seed=s, epoch=e)
        )
        for s in range(3)
        for e in range(3)
    }
    assert len(plans) == 9


def test_batches_do_not_come_by_length():
    sources, targets = natural_lengths(4000)
    plan = plan_epoch(sources, targets, max_tokens=1024, seed=0, epoch=0)
    widths = [targets[batch].mean() for batch in plan]
    assert abs(np.corrcoef(widths, np.arange(len(widths)))[0, 1]) < 0.3


def test_the_plan_is_the_same_in_every_version_of_this_package():
    sources, targets = np.array([3, 5, 4, 9, 2, 7]), np.array([4, 4, 6, 8, 2, 7])
    plan = plan_epoch(sources, targets, max_tokens=12, seed=0, epoch=0)
    assert [batch.tolist() for batch in plan] == [[1], [5], [3], [2], [4, 0]]


@pytest.mark.parametrize("max_tokens", [2048, 4096])
def test_padding_is_at_most_three_per_cent_of_a_corpus_of_natural_lengths(max_tokens):
    sources, targets = natural_lengths(30_000)
    plan = plan_epoch(sources, targets, max_tokens=max_tokens, seed=0, epoch=0)
    for side in (sources, targets):
        filled = sum(len(batch) * int(side[batch].max()) for batch in plan)
        assert 1 - side.sum() / filled < 0.035
    filled = sum(len(b) * int(sources[b].max() + targets[b].max()) for b in plan)
    assert 1 - (sources.sum() + targets.sum()) / filled <= 0.03
    assert np.mean([size(batch, sources, targets) for batch in plan]) > 0.95 * max_tokens


def test_short_answers_to_texts_of_any_length_are_padded_little():
    random = np.random.default_rng(0)
    sources, targets = random.integers(4, 128, 3000), random.integers(4, 40, 3000)
    plan = plan_epoch(sources, targets, max_tokens=1024, seed=0, epoch=0)
    filled = sum(len(b) * int(sources[b].max() + targets[b].max()) for b in plan)
    by_source = np.array_split(np.argsort(sources), len(plan))
    naive = sum(len(b) * int(sources[b].max() + targets[b].max()) for b in by_source)
    real = int(sources.sum() + targets.sum())
    assert 1 - real / filled < 0.5 * (1 - real / naive)


@settings(deadline=None)
@given(pairs=lengths, seed=st.integers(0, 9), start=st.integers(0, 3), steps=st.integers(1, 5))
def test_every_split_into_processes_and_accumulation_sees_the_same_steps(pairs, seed, start, steps):
    def batches(world_size):
        """The batches of each optimizer step, over all ranks."""
        accumulation = 4 // world_size
        found = [[] for _ in range(steps)]
        for rank in range(world_size):
            sampler = TokenBudgetSampler(
                *arrays(pairs),
                max_tokens=60,
                seed=seed,
                rank=rank,
                world_size=world_size,
                accumulation=accumulation,
                start={"epoch": start, "batch": 0},
            )
            for k, batch in enumerate(islice(sampler, steps * accumulation)):
                found[k // accumulation].append(batch)
        return [sorted(step) for step in found]

    assert batches(1) == batches(2) == batches(4)


@settings(deadline=None)
@given(pairs=lengths, world_size=st.integers(1, 3), seed=st.integers(0, 9))
def test_ranks_share_each_epoch_out_equally(pairs, world_size, seed):
    samplers = [
        TokenBudgetSampler(
            *arrays(pairs), max_tokens=64, seed=seed, rank=rank, world_size=world_size
        )
        for rank in range(world_size)
    ]
    for epoch in range(2):
        share = samplers[0].num_batches(epoch) // world_size
        skipped = epoch * samplers[0].num_batches(0) // world_size
        keys = [
            key
            for sampler in samplers
            for batch in islice(sampler, skipped, skipped + share)
            for key in batch
        ]
        assert sorted(keys) == [(epoch, index) for index in range(len(pairs))]


@settings(deadline=None)
@given(pairs=lengths, world_size=st.integers(1, 3), done=st.integers(0, 60))
def test_a_restart_continues_exactly_at_any_point(pairs, world_size, done):
    for rank in range(world_size):
        options = {"max_tokens": 64, "seed": 3, "rank": rank, "world_size": world_size}
        sampler = TokenBudgetSampler(*arrays(pairs), **options)
        whole = list(islice(sampler, done + 10))
        state = json.loads(json.dumps(sampler.state_after(done)))
        again = TokenBudgetSampler(*arrays(pairs), start=state, **options)
        assert list(islice(again, 10)) == whole[done:]
        assert again.state_after(10) == sampler.state_after(done + 10)


def test_a_restart_plans_no_epoch_before_its_own(monkeypatch):
    planned = []

    def plan(*lengths, epoch, **options):
        planned.append(epoch)
        return plan_epoch(*lengths, epoch=epoch, **options)

    monkeypatch.setattr("hf_genmodels.data.buckets.plan_epoch", plan)
    start = {"epoch": 1000, "batch": 2}
    sampler = TokenBudgetSampler(*natural_lengths(200), max_tokens=256, seed=0, start=start)
    next(iter(sampler))
    assert sampler.state_after(1) == {"epoch": 1000, "batch": 3}
    assert planned == [1000]


@settings(deadline=None)
@given(pairs=lengths, world_size=st.integers(1, 4))
def test_evaluation_passes_once_over_all_pairs_the_longest_first(pairs, world_size):
    sources, targets = arrays(pairs)
    shares = [
        evaluation_batches(sources, targets, 64, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    if max(len(batch) for share in shares for batch in share) > 1:
        assert len({len(share) for share in shares}) == 1
    assert sorted(i for share in shares for batch in share for i in batch) == [*range(len(pairs))]
    widths = [np.maximum(sources, targets)[batch].max() for batch in shares[0]]
    assert widths == sorted(widths, reverse=True)


def test_a_pair_longer_than_the_budget_is_refused():
    with pytest.raises(UserError, match=r"has 50 tokens .* may hold 40. Raise --batch_tokens"):
        plan_epoch(np.array([3, 50]), np.array([4, 4]), max_tokens=40, seed=0, epoch=0)


def test_fewer_pairs_than_batches_at_a_time_are_refused():
    ones = np.ones(3, dtype=np.int32)
    assert len(plan_epoch(ones, ones, max_tokens=40, seed=0, epoch=0, world_size=3)) == 3
    with pytest.raises(UserError, match="3 pairs are too few for 4 batches"):
        plan_epoch(ones, ones, max_tokens=40, seed=0, epoch=0, world_size=4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rank": 1}, "rank"),
        ({"rank": -1}, "rank"),
        ({"start": {"epoch": 0, "batch": -1}}, "start"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        TokenBudgetSampler(np.array([1]), np.array([1]), max_tokens=4, seed=0, **wrong)


def test_sources_and_targets_are_padded_on_the_right():
    examples = [
        {"source": np.array([5, 6, 7]), "target": np.array([8])},
        {"source": np.array([9]), "target": np.array([4, 3])},
    ]
    batch = collate_pairs(examples, pad_token_id=1)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [9, 1, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[8, IGNORED], [4, 3]]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}
    assert padding_share(batch) == pytest.approx(3 / 10)


def memory_cache(number):
    """A cache in memory whose pair i consists of the number i."""
    sources, targets = natural_lengths(number)
    starts = [np.concatenate([[0], np.cumsum(side)]) for side in (sources, targets)]
    tokens = [np.repeat(np.arange(number), side) for side in (sources, targets)]
    return PairCache(
        *tokens, *starts, sources, targets, np.zeros(number, np.int32), [""], True,
        PairCounts(number), "0" * 64, Path("nowhere"),
    )  # fmt: skip


def test_batches_are_the_same_with_and_without_workers():
    cache = memory_cache(100)
    before = torch.get_rng_state()

    def first(num_workers):
        sampler = TokenBudgetSampler(
            cache.source_lengths, cache.target_lengths, max_tokens=256, seed=1
        )
        loader = pair_loader(cache, sampler, pad_token_id=0, num_workers=num_workers)
        return list(islice(loader, 25))

    for one, other in zip(first(0), first(2), strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(before, torch.get_rng_state())


def test_the_loader_gives_the_pairs_that_were_planned():
    cache = memory_cache(50)
    batches = evaluation_batches(cache.source_lengths, cache.target_lengths, 256)
    for indices, batch in zip(batches, pair_loader(cache, batches, pad_token_id=0), strict=True):
        assert batch["input_ids"][:, 0].tolist() == batch["labels"][:, 0].tolist() == indices
        assert batch["attention_mask"].sum(1).tolist() == cache.source_lengths[indices].tolist()
