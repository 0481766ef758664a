"""Tests of packed windows."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hf_genmodels.data.packing import IGNORED, PackedWindows, PaddedWindows, collate
from hf_genmodels.errors import UserError

# Documents whose tokens are all different, so that a token tells its place. The first token of each
# stands for the one that begins it and ends the document before.
lengths = st.lists(st.integers(1, 12), min_size=1, max_size=12)


def numbered(document_lengths):
    """Documents of the given lengths with the ids 0, 1, 2, ..."""
    documents, first = [], 0
    for length in document_lengths:
        documents.append(list(range(first, first + length)))
        first += length
    return documents


def document_of(documents):
    """Map each token to its document and its place there."""
    return {token: (i, j) for i, ids in enumerate(documents) for j, token in enumerate(ids)}


def scored_tokens(windows, epoch=0):
    """How often each token is a label in an epoch."""
    labels = [windows[epoch, i]["labels"].tolist() for i in range(len(windows))]
    return Counter(label for row in labels for label in row if label != IGNORED)


@settings(max_examples=150, deadline=None)
@given(lengths=lengths, block_size=st.integers(2, 9))
def test_validation_scores_every_token_once_but_the_very_first(lengths, block_size, cache_of):
    assume(sum(lengths) >= block_size)
    documents = numbered(lengths)
    windows = PackedWindows(cache_of(documents), block_size)
    assert scored_tokens(windows) == dict.fromkeys(range(1, sum(lengths)), 1)


@settings(max_examples=100, deadline=None)
@given(lengths=lengths, block_size=st.integers(2, 9), epoch=st.integers(0, 5), seed=st.integers())
def test_training_scores_a_token_at_most_once_in_an_epoch(
    lengths, block_size, epoch, seed, cache_of
):
    assume(sum(lengths) >= block_size)
    documents = numbered(lengths)
    windows = PackedWindows(cache_of(documents), block_size, shift=True, seed=seed)
    counts = scored_tokens(windows, epoch)
    assert set(counts.values()) <= {1}
    targets = set(range(1, sum(lengths)))
    assert set(counts) <= targets
    assert len(targets - set(counts)) < block_size - 1


@settings(max_examples=150, deadline=None)
@given(lengths=lengths, block_size=st.integers(2, 9), shift=st.booleans(), epoch=st.integers(0, 5))
def test_windows_are_full_and_documents_are_apart(lengths, block_size, shift, epoch, cache_of):
    assume(sum(lengths) >= block_size)
    documents = numbered(lengths)
    place = document_of(documents)
    windows = PackedWindows(cache_of(documents), block_size, shift=shift)
    for i in range(len(windows)):
        window = windows[epoch, i]
        assert all(values.shape == (block_size,) for values in window.values())
        assert all(values.dtype == torch.int64 for values in window.values())
        ids, positions = window["input_ids"].tolist(), window["position_ids"].tolist()
        labels = window["labels"].tolist()
        assert positions[0] == 0
        assert labels[0] == IGNORED
        for t in range(1, block_size):
            (document, index), (before, index_before) = place[ids[t]], place[ids[t - 1]]
            assert labels[t] in ((ids[t], IGNORED) if ids[t] else (IGNORED,))
            if index == 0:
                assert positions[t] == 0
            else:
                assert (document, index) == (before, index_before + 1)
                assert positions[t] == positions[t - 1] + 1


def test_offsets_are_a_pure_function_of_seed_and_epoch(cache_of):
    cache = cache_of(numbered([400, 300, 300]))
    windows = PackedWindows(cache, 10, shift=True, seed=1)
    again = PackedWindows(cache, 10, shift=True, seed=1)
    other = PackedWindows(cache, 10, shift=True, seed=2)
    offsets = [windows.offset(epoch) for epoch in range(20)]
    assert offsets == [again.offset(epoch) for epoch in reversed(range(20))][::-1]
    assert offsets != [other.offset(epoch) for epoch in range(20)]
    assert len({offset % 9 for offset in offsets}) > 4
    assert PackedWindows(cache, 10).offset(3) == 0


def test_a_batch_equals_its_windows_one_by_one(cache_of):
    windows = PackedWindows(cache_of(numbered([3, 20, 5, 40, 1, 2])), 8, shift=True, seed=3)
    keys = [(epoch, i) for epoch in range(3) for i in range(len(windows))]
    for key, window in zip(keys, windows.__getitems__(keys), strict=True):
        for name, values in windows[key].items():
            assert torch.equal(values, window[name])
    assert torch.equal(windows[2]["input_ids"], windows[0, 2]["input_ids"])


def test_an_index_past_the_end_is_an_index_error(cache_of):
    windows = PackedWindows(cache_of(numbered([30])), 8)
    with pytest.raises(IndexError):
        windows[len(windows)]
    with pytest.raises(IndexError):
        windows[0, -1]


def test_data_shorter_than_a_window_are_refused(cache_of):
    with pytest.raises(UserError, match=r"hold 5 tokens.*one window of 6.*Lower block_size to 5"):
        PackedWindows(cache_of(numbered([5])), 6)
    assert len(PackedWindows(cache_of(numbered([5])), 5)) == 1
    with pytest.raises(UserError, match="at least 2"):
        PackedWindows(cache_of(numbered([5])), 1)


def test_collate_keeps_positions_only_where_documents_meet(cache_of):
    windows = PackedWindows(cache_of(numbered([10, 5])), 5)
    assert set(collate([windows[0], windows[1]])) == {"input_ids", "labels"}
    batch = collate([windows[0], windows[2]])
    assert set(batch) == {"input_ids", "labels", "position_ids"}
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4], [0, 1, 0, 1, 2]]
    assert batch["labels"].shape == (2, 5)


def test_a_window_that_ends_with_a_documents_first_token_keeps_its_positions(cache_of):
    windows = PackedWindows(cache_of(numbered([4, 8])), 5)
    assert collate([windows[0]])["position_ids"].tolist() == [[0, 1, 2, 3, 0]]


def test_padding_windows_have_only_ignored_labels(cache_of):
    windows = PackedWindows(cache_of(numbered([21])), 5)
    padded = PaddedWindows(windows, multiple=4)
    assert (len(windows), len(padded)) == (5, 8)
    assert torch.equal(padded[4]["labels"], windows[4]["labels"])
    for item in padded.__getitems__([5, 6, 7]):
        assert (item["labels"] == IGNORED).all()
        assert (item["input_ids"] >= 0).all()
