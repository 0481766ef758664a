"""Tests of batches of images: order, resume, flips, balance and captions."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_genmodels.config.images import ImageDataConfig
from hf_genmodels.data.image_batches import EncodedCaptions, ImageBatches
from hf_genmodels.data.images import ImageSet
from hf_genmodels.data.seeding import mixed_numbers
from hf_genmodels.errors import UserError


def image_set(number, labels=None, captions=None):
    """Images of 2 x 2 whose left column says which one it is, and whose right one is black."""
    images = np.zeros((number, 1, 2, 2), np.uint8)
    images[..., 0] = np.arange(1, number + 1)[:, None, None]
    return ImageSet(images, None if labels is None else np.asarray(labels), captions)


def options(**values):
    return ImageDataConfig(train_file=["images"], **values)


def batches(data, config=None, captions=None, **values):
    values = {"seed": 3, "batch_size": 2, **values}
    return ImageBatches(config or options(), data, captions=captions, **values)


def numbers(batch):
    """Which images a batch holds."""
    pixels = ((batch["images"] + 1) * 127.5).round().long()
    return (pixels.amax(dim=(1, 2, 3)) - 1).tolist()


def taken(iterator, count):
    return [number for batch in islice(iterator, count) for number in numbers(batch)]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def some_captions(number):
    """Captions whose tokens say the image and which of its captions it is."""
    counts = [1 + i % 3 for i in range(number)]
    rows = [[i, j] for i, count in enumerate(counts) for j in range(count)]
    ids = np.array(rows, dtype=np.int64)
    return EncodedCaptions(ids, np.ones_like(ids), np.cumsum([0, *counts]))


everything = {
    "number": st.integers(1, 30),
    "seed": st.integers(0, 2**40),
    "batch_size": st.integers(1, 7),
    "flip": st.booleans(),
    "balanced": st.booleans(),
}


@settings(max_examples=60, deadline=None)
@given(**everything, before=st.integers(0, 40))
def test_batches_go_on_from_a_position_as_if_they_had_never_stopped(
    number, seed, batch_size, flip, balanced, before
):
    data = image_set(number, np.arange(number) % 4)
    config, captions = options(flip=flip, balanced=balanced), some_captions(number)
    whole = batches(data, config, captions, seed=seed, batch_size=batch_size)
    for _ in range(before):
        next(whole)
    start = json.loads(json.dumps(whole.position))
    resumed = batches(data, config, captions, seed=seed, batch_size=batch_size, start=start)
    for _ in range(5):
        assert same(next(whole), next(resumed))
        assert whole.position == resumed.position


@settings(max_examples=60, deadline=None)
@given(**everything)
def test_one_two_and_four_processes_take_the_same_global_batches(
    number, seed, batch_size, flip, balanced
):
    data = image_set(number, np.arange(number) % 4)
    config, captions = options(flip=flip, balanced=balanced), some_captions(number)
    steps = []
    for world_size in (1, 2, 4):
        ranks = [
            batches(
                *(data, config, captions),
                **{"seed": seed, "batch_size": batch_size, "rank": rank, "world_size": world_size},
            )
            for rank in range(world_size)
        ]
        found = [next(rank) for _ in range(3 * 4 // world_size) for rank in ranks]
        steps.append({name: torch.cat([batch[name] for batch in found]) for name in found[0]})
        assert {json.dumps(rank.position) for rank in ranks} == {
            json.dumps({"images": 12 * batch_size})
        }
    assert same(steps[0], steps[1])
    assert same(steps[0], steps[2])


@settings(max_examples=60, deadline=None)
@given(number=st.integers(1, 30), seed=st.integers(0, 99), batch_size=st.integers(1, 7))
def test_every_image_comes_once_an_epoch_and_epochs_differ(number, seed, batch_size):
    found = taken(
        batches(image_set(number), seed=seed, batch_size=batch_size), -(-3 * number // batch_size)
    )
    epochs = [tuple(found[i * number : (i + 1) * number]) for i in range(3)]
    assert all(sorted(epoch) == list(range(number)) for epoch in epochs)
    if number > 8:
        assert len(set(epochs)) == 3


def test_seeds_have_orders_flips_and_captions_of_their_own():
    data, captions = image_set(200), some_captions(200)
    found = [
        next(batches(data, options(flip=True), captions, seed=seed, batch_size=200))
        for seed in (1, 2)
    ]
    orders = [numbers(batch) for batch in found]
    assert orders[0] != orders[1]
    flips = [dict(zip(numbers(b), b["images"][:, 0, 0, 0].tolist(), strict=True)) for b in found]
    assert sum((flips[0][i] > -1) != (flips[1][i] > -1) for i in range(200)) > 60
    chosen = [dict(batch["input_ids"].tolist()) for batch in found]
    assert chosen[0] != chosen[1]


def test_half_of_the_images_are_mirrored_when_asked_for():
    data = image_set(200)
    whole = next(batches(data, batch_size=200))["images"]
    assert (whole[:, 0, :, 1] == -1).all()
    mirrored = next(batches(data, options(flip=True), batch_size=200))["images"]
    flipped = (mirrored[:, 0, :, 0] == -1).all(dim=1)
    assert 70 < int(flipped.sum()) < 130
    assert torch.equal(mirrored[~flipped], whole[~flipped])
    assert torch.equal(mirrored[flipped], whole[flipped].flip(-1))
    assert data.images[:, 0, 0, 1].max() == 0


def test_mirroring_differs_between_epochs():
    iterator = batches(image_set(100), options(flip=True), batch_size=100)
    sides = []
    for batch in islice(iterator, 2):
        left = batch["images"][:, 0, 0, 0] > -1
        sides.append(dict(zip(numbers(batch), left.tolist(), strict=True)))
    assert 25 < sum(sides[0][i] != sides[1][i] for i in range(100)) < 75


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=40),
    seed=st.integers(0, 99),
    start=st.integers(0, 50),
)
def test_balanced_classes_come_equally_often_and_images_of_a_class_in_turn(labels, seed, start):
    data, classes = image_set(len(labels), labels), len(set(labels))
    config = options(balanced=True)
    iterator = batches(
        data, config, seed=seed, batch_size=classes, start={"images": start * classes}
    )
    found = []
    for _ in range(2 * max(Counter(labels).values())):
        batch = next(iterator)
        assert sorted(batch["class_labels"].tolist()) == sorted(set(labels))
        found += numbers(batch)
    whole = taken(batches(data, config, seed=seed, batch_size=classes), len(labels))
    for name, count in Counter(labels).items():
        own = [number for number in whole if labels[number] == name]
        assert sorted(own[:count]) == [i for i, label in enumerate(labels) if label == name]
    assert set(found) <= set(range(len(labels)))


def test_images_of_a_class_come_in_another_order_every_round():
    data = image_set(20, [0] * 10 + [1] * 10)
    found = taken(batches(data, options(balanced=True), batch_size=20), 3)
    rounds = [tuple(n for n in found[i * 20 : i * 20 + 20] if n < 10) for i in range(3)]
    assert all(sorted(own) == list(range(10)) for own in rounds)
    assert len(set(rounds)) == 3


def test_labels_come_as_models_take_them():
    data = image_set(6, np.arange(6))
    batch = next(batches(data))
    assert batch["class_labels"].tolist() == numbers(batch)
    assert batch["class_labels"].dtype == torch.int64
    assert batch["images"].dtype == torch.float32
    flags = np.eye(6, dtype=np.uint8)
    batch = next(batches(image_set(6, flags)))
    assert batch["class_labels"].dtype == torch.float32
    assert batch["class_labels"].argmax(1).tolist() == numbers(batch)
    assert next(batches(image_set(6))).keys() == {"images"}


def test_captions_belong_to_their_images_and_all_are_drawn():
    iterator = batches(image_set(9), captions=some_captions(9), batch_size=9)
    seen = Counter()
    for batch in islice(iterator, 60):
        assert batch["input_ids"][:, 0].tolist() == numbers(batch)
        seen.update(map(tuple, batch["input_ids"].tolist()))
    assert set(seen) == {(i, j) for i in range(9) for j in range(1 + i % 3)}
    assert min(seen[8, j] for j in range(3)) > 8


def test_captions_are_tokenised_cut_and_filled_up(byte_tokenizer, caplog):
    tokenizer = byte_tokenizer()
    with pytest.raises(UserError, match="no padding token"):
        EncodedCaptions.from_texts([["a"]], tokenizer, 8)
    tokenizer.pad_token = tokenizer.eos_token
    captions = EncodedCaptions.from_texts([["a red heart", "b"], ["abcde"]], tokenizer, 5)
    assert "1 of 3 captions are longer than 5 tokens" in caplog.text
    assert captions.input_ids.shape == (3, 5)
    assert captions.starts.tolist() == [0, 2, 3]
    assert captions.attention_mask.sum(1).tolist() == [5, 1, 5]
    rows = captions.rows(np.array([1, 0]))
    assert tokenizer.decode(rows["input_ids"][0][:1]) == "b"
    assert rows["input_ids"][0, 1:].tolist() == [tokenizer.pad_token_id] * 4
    assert tokenizer.decode(rows["input_ids"][1]) == "a red"
    for empty in ([["a"], []], [["a"], [""]]):
        with pytest.raises(UserError, match="no caption, or one without a token"):
            EncodedCaptions.from_texts(empty, tokenizer, 8)


def test_numbers_out_of_range_are_refused():
    data = image_set(3)
    for wrong in ({"batch_size": 0}, {"rank": 1}, {"rank": -1, "world_size": 2}):
        with pytest.raises(ValueError, match="must be at least 1"):
            batches(data, **wrong)
    with pytest.raises(ValueError, match="captions of 2 images, not 3"):
        batches(data, captions=some_captions(2))


def test_a_far_position_is_reached_at_once():
    iterator = batches(image_set(7, np.arange(7) % 2), start={"images": 10**12})
    assert len(next(iterator)["images"]) == 2
    assert iterator.position == {"images": 10**12 + 2}


def test_orders_are_the_same_in_every_version_of_this_package():
    data = image_set(6, [0, 0, 0, 1, 1, 2])
    assert taken(batches(data), 4) == [4, 3, 5, 0, 1, 2, 4, 3]
    assert taken(batches(data, options(balanced=True)), 4) == [2, 4, 5, 3, 0, 5, 4, 1]
    mirrored = next(batches(data, options(flip=True), batch_size=12))["images"][:, 0, 0, 0] == -1
    assert mirrored.int().tolist() == [1, 1, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0]
    chosen = next(batches(data, captions=some_captions(6), batch_size=8))["input_ids"][:, 1]
    assert chosen.tolist() == [1, 0, 2, 0, 1, 1, 0, 0]


def test_numbers_are_mixed_as_splitmix64_does():
    # The first outputs of the generator with the seed 0.
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert mixed_numbers(0, np.arange(1, 4)).tolist() == expected
