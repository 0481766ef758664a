"""Tests of openings with positives of the same author and negatives of others."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice

import pytest
import torch

from hf_genmodels.data.buckets import TokenBudgetSampler
from hf_genmodels.data.packing import IGNORED
from hf_genmodels.data.pair_cache import build_pair_cache
from hf_genmodels.data.pairs import PairSource
from hf_genmodels.data.poems import PoemWindows, collate_poems, poem_loader
from hf_genmodels.errors import UserError

AUTHORS = "aabacbaabca"
POEMS = [
    {"author": author, "content": f"opening {i:02}.\nending {i:02} of {author}{'!' * i}"}
    for i, author in enumerate(AUTHORS)
]


@pytest.fixture
def cache_of_poems(byte_tokenizer, tmp_path):
    """Makes a cache of poems; its tokens are bytes."""

    def make(poems, target_tokenizer=None):
        path = tmp_path / "poems.jsonl"
        path.write_text("".join(json.dumps(poem) + "\n" for poem in poems))
        source = PairSource(files=[path], text_column="content", group_column="author")
        tokenizer = byte_tokenizer()
        return build_pair_cache(source, tokenizer, target_tokenizer or tokenizer, tmp_path)

    return make


@pytest.fixture
def windows(cache_of_poems):
    return PoemWindows(cache_of_poems(POEMS), seed=7)


def number(row, tokenizer):
    """Which poem a row of ids is from, and whether it is an opening."""
    text = tokenizer.decode([token for token in row.tolist() if token != IGNORED])
    return int(text.split()[1][:2]), text.startswith("opening")


def test_poems_as_whole_texts_are_openings_and_continuations(windows, byte_tokenizer):
    for index, author in enumerate(AUTHORS):
        example = windows[index]
        tokenizer = byte_tokenizer()
        assert number(example["source"], tokenizer) == (index, True)
        assert number(example["target"], tokenizer) == (index, False)
        assert windows.cache.group_names[int(example["group"][0])] == author


def test_positives_are_the_own_continuation_or_neighbours_by_the_author(windows, byte_tokenizer):
    tokenizer = byte_tokenizer()
    for index, author in enumerate(AUTHORS):
        same = [i for i, other in enumerate(AUTHORS) if other == author]
        place = same.index(index)
        near = {i for i in same[max(place - 2, 0) : place + 3] if i != index}
        assert set(windows.neighbours(index).tolist()) == near
        drawn = [number(windows[epoch, index]["positive"], tokenizer) for epoch in range(80)]
        assert set(drawn) == {(index, False), *((i, True) for i in near)}
        assert 20 < drawn.count((index, False)) < 60


def test_negatives_are_all_poems_of_others_equally_often(windows, byte_tokenizer):
    tokenizer = byte_tokenizer()
    for index in (0, 2, 9):
        drawn = Counter(
            number(windows[epoch, index]["negative"], tokenizer) for epoch in range(400)
        )
        others = {(i, False) for i, author in enumerate(AUTHORS) if author != AUTHORS[index]}
        assert set(drawn) == others
        assert min(drawn.values()) > 0.5 * 400 / len(others)


@pytest.mark.parametrize("draw", [0.0, 0.5, 1 - 1e-12])
def test_the_ends_of_the_draw_are_poems_of_others(windows, draw):
    groups = windows.cache.groups
    assert all(groups[windows.negative(i, draw)] != groups[i] for i in range(len(windows)))


def test_examples_are_a_pure_function_of_seed_epoch_and_index(windows):
    def ids(one, key):
        return {name: values.tolist() for name, values in one[key].items()}

    again = PoemWindows(windows.cache, seed=7)
    keys = [(epoch, index) for epoch in range(4) for index in range(len(windows))]
    assert [ids(windows, key) for key in keys[::-1]] == [ids(again, key) for key in keys][::-1]
    assert ids(windows, 3) == ids(windows, (0, 3))
    other_seed = PoemWindows(windows.cache, seed=8)
    assert [ids(other_seed, key) for key in keys] != [ids(windows, key) for key in keys]


def test_shares_of_own_continuations(cache_of_poems, byte_tokenizer):
    cache = cache_of_poems([*POEMS, {"author": "d", "content": "opening 11.\nend 11"}])
    tokenizer = byte_tokenizer()
    always = PoemWindows(cache, seed=0, own_share=1.0)
    never = PoemWindows(cache, seed=0, own_share=0.0)
    for index in range(len(POEMS)):
        assert not number(always[index]["positive"], tokenizer)[1]
        assert number(never[index]["positive"], tokenizer)[1]
    assert never[11]["positive"].tolist() == cache.target(11).tolist()


def test_batches_hold_positives_groups_and_negatives(windows):
    keys = [(0, 1), (0, 10), (0, 2)]
    examples = [windows[key] for key in keys]
    batch = collate_poems(examples, pad_token_id=99)
    assert batch["groups"].tolist() == [windows.cache.groups[i] for _, i in keys]
    assert batch["negative_labels"].shape == batch["labels"].shape
    for row, example in enumerate(examples):
        length = len(example["positive"])
        assert batch["positive_input_ids"][row, :length].tolist() == example["positive"].tolist()
        assert (batch["positive_input_ids"][row, length:] == 99).all()
        assert batch["positive_attention_mask"][row].sum() == length
        width = batch["labels"].shape[1]
        negative = example["negative"].tolist()[:width]
        filled = negative + [IGNORED] * (width - len(negative))
        assert batch["negatives"][row].tolist() == filled
        foreign = [IGNORED if id in example["target"] else id for id in filled]
        assert batch["negative_labels"][row].tolist() == foreign
    assert batch["negative_labels"].ne(IGNORED).any()


def test_batches_are_the_same_with_and_without_workers(windows):
    def first(num_workers):
        sampler = TokenBudgetSampler(
            windows.cache.source_lengths, windows.cache.target_lengths, max_tokens=100, seed=1
        )
        loader = poem_loader(windows, sampler, pad_token_id=0, num_workers=num_workers)
        return list(islice(loader, 12))

    for one, other in zip(first(0), first(2), strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_cannot_be_contrasted_is_refused(cache_of_poems, byte_tokenizer):
    with pytest.raises(UserError, match="--group_column"):
        PoemWindows(cache_of_poems(POEMS[:2]), seed=0)
    other = byte_tokenizer()
    other.add_tokens(["more"])
    with pytest.raises(UserError, match="another tokenizer"):
        PoemWindows(cache_of_poems(POEMS, other), seed=0)
    with pytest.raises(UserError, match="own_share"):
        PoemWindows(cache_of_poems(POEMS), seed=0, own_share=1.5)
    with pytest.raises(UserError, match="reach"):
        PoemWindows(cache_of_poems(POEMS), seed=0, reach=0)
