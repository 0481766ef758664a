"""Tests of the cache of tokenised pairs."""

from __future__ import annotations

import errno
import hashlib
import logging
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_genmodels.data import pair_writer
from hf_genmodels.data.pair_cache import PairCache, PairCounts, build_pair_cache
from hf_genmodels.data.pairs import Pair
from hf_genmodels.errors import UserError

EOS_ID = 256


class MemoryPairs:
    """A PairSource over pairs in memory."""

    def __init__(self, pairs, groups=None):
        self.pairs = [
            Pair(*pair, group)
            for pair, group in zip(pairs, groups or [""] * len(pairs), strict=True)
        ]

    def all_pairs(self):
        yield from self.pairs

    def fingerprint(self):
        return hashlib.sha256(repr(self.pairs).encode()).hexdigest()

    def size_in_bytes(self):
        return None


def contents(cache):
    """All pairs of a cache as lists of ids."""
    return [(cache.source(i).tolist(), cache.target(i).tolist()) for i in range(len(cache))]


def ids(tokenizer, text, limit=None):
    return [*tokenizer(text, add_special_tokens=False)["input_ids"], EOS_ID][:limit]


@settings(max_examples=40, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), min_size=1, max_size=8),
    limits=st.tuples(st.none() | st.integers(2, 12), st.none() | st.integers(2, 12)),
    overlong=st.sampled_from(["drop", "truncate"]),
)
def test_pairs_end_with_eos_and_what_is_left_out_is_counted(
    pairs, limits, overlong, byte_tokenizer, tmp_path_factory
):
    tokenizer = byte_tokenizer()
    options = {"max_source_tokens": limits[0], "max_target_tokens": limits[1]}
    folder = tmp_path_factory.mktemp("cache")
    expected, counts = [], dict.fromkeys(("empty", "dropped", "truncated"), 0)
    for pair in pairs:
        whole = [ids(tokenizer, text) for text in pair]
        if min(map(len, whole)) == 1:
            counts["empty"] += 1
            continue
        cut = [
            side if limit is None or len(side) <= limit else [*side[: limit - 1], EOS_ID]
            for side, limit in zip(whole, limits, strict=True)
        ]
        if cut != whole:
            counts["dropped" if overlong == "drop" else "truncated"] += 1
        if cut == whole or overlong == "truncate":
            expected.append(tuple(cut))
    build = lambda: build_pair_cache(
        MemoryPairs(pairs), tokenizer, tokenizer, folder, overlong=overlong, **options
    )
    if not expected:
        with pytest.raises(UserError, match="No pair is left"):
            build()
        return
    cache = build()
    assert contents(cache) == expected
    assert cache.counts == PairCounts(len(expected), **counts)
    assert cache.source_lengths.tolist() == [len(source) for source, _ in expected]
    assert cache.target_lengths.tolist() == [len(target) for _, target in expected]


def test_each_side_has_its_own_tokenizer(byte_tokenizer, tmp_path):
    one, other = byte_tokenizer(), byte_tokenizer()
    other.add_tokens(["ab"])
    cache = build_pair_cache(MemoryPairs([("ab", "ab")]), one, other, tmp_path)
    assert contents(cache) == [(ids(one, "ab"), [257, EOS_ID])]
    assert not cache.one_tokenizer
    assert build_pair_cache(MemoryPairs([("ab", "ab")]), one, one, tmp_path).one_tokenizer


def test_groups_of_any_size_give_the_same_cache(byte_tokenizer, tmp_path, monkeypatch):
    pairs, authors = [("one", "uno"), ("", "x"), ("two", "dos"), ("three", "tres")], list("abca")
    tokenizer = byte_tokenizer()
    whole = build_pair_cache(MemoryPairs(pairs, authors), tokenizer, tokenizer, tmp_path / "a")
    monkeypatch.setattr("hf_genmodels.data.tokenizing._BATCH_CHARACTERS", 1)
    parts = build_pair_cache(MemoryPairs(pairs, authors), tokenizer, tokenizer, tmp_path / "b")
    assert contents(parts) == contents(whole)
    assert parts.groups.tolist() == whole.groups.tolist() == [0, 1, 0]
    assert parts.group_names == ["a", "c"]


def test_a_part_is_a_cache_of_its_own(byte_tokenizer, tmp_path):
    pairs = [(f"source {i}", f"target {i}") for i in range(10)]
    tokenizer = byte_tokenizer()
    cache = build_pair_cache(MemoryPairs(pairs), tokenizer, tokenizer, tmp_path)
    part = cache.part(3, 9).part(1, 4)
    assert contents(part) == contents(cache)[4:7]
    assert len(part) == len(part.target_lengths) == len(part.groups) == 3
    assert part.fingerprint != cache.fingerprint
    assert contents(pickle.loads(pickle.dumps(part))) == contents(part)


def test_a_pickled_cache_holds_no_tokens(byte_tokenizer, tmp_path):
    tokenizer = byte_tokenizer()
    source = MemoryPairs([("text " * 5000, "x")])
    cache = build_pair_cache(source, tokenizer, tokenizer, tmp_path)
    data = pickle.dumps(cache)
    assert len(data) < 1000
    assert contents(pickle.loads(data)) == contents(cache)


def test_a_second_call_reuses_the_files(byte_tokenizer, tmp_path, monkeypatch):
    tokenizer, source = byte_tokenizer(), MemoryPairs([("a", "b")])
    first = build_pair_cache(source, tokenizer, tokenizer, tmp_path)
    monkeypatch.setattr(source, "all_pairs", None)
    second = build_pair_cache(source, tokenizer, tokenizer, tmp_path)
    assert second.path == first.path
    assert contents(second) == contents(first)
    assert [path.name for path in tmp_path.iterdir()] == [first.fingerprint[:32]]


def test_fingerprint_changes_with_text_tokenizers_and_limits(byte_tokenizer, tmp_path):
    tokenizer, other = byte_tokenizer(), byte_tokenizer()
    other.add_tokens(["more"])
    source = MemoryPairs([("a", "b")])
    caches = [
        build_pair_cache(source, tokenizer, tokenizer, tmp_path),
        build_pair_cache(MemoryPairs([("b", "a")]), tokenizer, tokenizer, tmp_path),
        build_pair_cache(source, other, tokenizer, tmp_path),
        build_pair_cache(source, tokenizer, other, tmp_path),
        build_pair_cache(source, tokenizer, tokenizer, tmp_path, max_source_tokens=9),
        build_pair_cache(source, tokenizer, tokenizer, tmp_path, max_target_tokens=9),
        build_pair_cache(source, tokenizer, tokenizer, tmp_path, overlong="truncate"),
    ]
    assert len({cache.fingerprint for cache in caches}) == 7


@pytest.mark.parametrize("name", ["source_tokens.bin", "target_starts.bin", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_a_damaged_cache_is_built_again_with_a_warning(
    name, damage, byte_tokenizer, tmp_path, caplog
):
    tokenizer, source = byte_tokenizer(), MemoryPairs([("some", "text"), ("and", "more")])
    good = build_pair_cache(source, tokenizer, tokenizer, tmp_path)
    expected, file = contents(good), good.path / name
    content = file.read_bytes()
    file.unlink()
    if damage == "truncate":
        file.write_bytes(content[:-1])
    with caplog.at_level(logging.WARNING):
        again = build_pair_cache(source, tokenizer, tokenizer, tmp_path)
    assert "built again" in caplog.text
    assert contents(again) == contents(PairCache.open(again.path)) == expected
    assert len(list(tmp_path.iterdir())) == 1


def test_nothing_is_left_behind_when_the_source_fails(byte_tokenizer, tmp_path, monkeypatch):
    tokenizer, source = byte_tokenizer(), MemoryPairs([("a", "b")])

    def broken():
        yield from source.pairs
        raise UserError("line 3 is not JSON")

    monkeypatch.setattr(source, "all_pairs", broken)
    with pytest.raises(UserError, match="not JSON"):
        build_pair_cache(source, tokenizer, tokenizer, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_clear_error(byte_tokenizer, tmp_path, monkeypatch):
    def no_room(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pair_writer, "write_json", no_room)
    tokenizer = byte_tokenizer()
    with pytest.raises(UserError, match=r"No space left.*HF_GENMODELS_CACHE"):
        build_pair_cache(MemoryPairs([("a", "b")]), tokenizer, tokenizer, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_when_nothing_is_left_the_reason_is_said(byte_tokenizer, tmp_path):
    tokenizer = byte_tokenizer()
    with pytest.raises(UserError, match="all 2 have an empty side"):
        build_pair_cache(MemoryPairs([("", "b"), ("a", "")]), tokenizer, tokenizer, tmp_path)
    with pytest.raises(UserError, match=r"1 are too long and 1 .* 5 of 3 allowed source tokens"):
        build_pair_cache(
            MemoryPairs([("", "b"), ("aaaa", "b")]),
            tokenizer,
            tokenizer,
            tmp_path,
            max_source_tokens=3,
            max_target_tokens=9,
        )


def test_options_out_of_range_are_refused(byte_tokenizer, tmp_path):
    tokenizer, source = byte_tokenizer(), MemoryPairs([("a", "b")])
    with pytest.raises(UserError, match="Did you mean 'truncate'"):
        build_pair_cache(source, tokenizer, tokenizer, tmp_path, overlong="truncat")
    with pytest.raises(UserError, match="max_target_tokens must be at least 2"):
        build_pair_cache(source, tokenizer, tokenizer, tmp_path, max_target_tokens=1)
    with pytest.raises(UserError, match="end-of-sequence"):
        build_pair_cache(source, tokenizer, byte_tokenizer(eos_token=None), tmp_path)


def test_what_was_kept_is_said_in_words():
    assert str(PairCounts(1200)) == "1,200 pairs"
    words = "7 pairs, 1 left out with an empty side, 2 left out as too long, 3 of them truncated"
    assert str(PairCounts(7, 1, 2, 3)) == words


def test_python_memory_does_not_grow_with_the_corpus(byte_tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_genmodels.data.tokenizing._BATCH_CHARACTERS", 1 << 13)
    tokenizer = byte_tokenizer()
    peaks = []
    for repeats in (100, 1000):
        source = MemoryPairs([("text of some length " * 5, "more text " * 5)] * repeats)
        tracemalloc.start()
        cache = build_pair_cache(source, tokenizer, tokenizer, tmp_path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert isinstance(cache.source_tokens, np.memmap)
    assert peaks[1] < 1.5 * peaks[0]
