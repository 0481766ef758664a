"""Documents of pictures: what stands in them, what is scored, and what is drawn at random."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hf_genmodels.config.pixels import PixelOptions
from hf_genmodels.data.image_set import ImageSet
from hf_genmodels.data.packing import IGNORED, collate
from hf_genmodels.data.pixel_documents import (
    EncodedPictures,
    PixelDocuments,
    TaskDocuments,
    prompts_of,
)
from hf_genmodels.data.sampling import PositionSampler, train_loader, validation_loader
from hf_genmodels.errors import UserError
from hf_genmodels.models.image_processing_pixels import GenPixelsImageProcessor
from hf_genmodels.tokenization.pixels import PixelVocabulary, train_pixel_tokenizer

NAMES = ["shoe", "a long bag"]
PALETTE = [[0], [80], [160], [240]]
LARGE, SMALL = 16, 4


@pytest.fixture(scope="module")
def tokenizer():
    return train_pixel_tokenizer(NAMES, vocab_size=300, num_colours=4, model_max_length=64)


@pytest.fixture(scope="module")
def vocabulary(tokenizer) -> PixelVocabulary:
    return PixelVocabulary.of(tokenizer, 2, 4)


@pytest.fixture(scope="module")
def images() -> ImageSet:
    pixels = np.random.default_rng(0).choice([0, 80, 160, 240], (12, 1, 4, 4)).astype(np.uint8)
    return ImageSet(pixels, labels=np.arange(12) % 2)


@pytest.fixture(scope="module")
def pictures(images, tokenizer) -> EncodedPictures:
    processor = GenPixelsImageProcessor(PALETTE, image_sizes=[4, 2])
    return EncodedPictures.of(images, NAMES, processor, tokenizer, max_prompt_tokens=16)


def options(**fields: Any) -> PixelOptions:
    return PixelOptions(image_size=8, **{"prompt_dropout": 0.0, **fields})


def documents(pictures, vocabulary, seed: int = 0, **fields: Any) -> PixelDocuments:
    return PixelDocuments(pictures, vocabulary, options(**fields), seed=seed)


def tokens_of(item: dict[str, torch.Tensor], vocabulary: PixelVocabulary) -> list[int]:
    ids = item["input_ids"].tolist()
    while ids[-1] == vocabulary.pad:
        ids.pop()
    return ids


def scored_of(item: dict[str, torch.Tensor]) -> list[int]:
    labels = item["labels"]
    return labels[labels != IGNORED].tolist()


def test_the_tokens_of_the_vocabulary_are_told_apart(tokenizer, vocabulary):
    assert tokenizer.convert_ids_to_tokens(vocabulary.first_colour + 3) == "<|c3|>"
    assert tokenizer("a<|c2|>")["input_ids"][-1] == vocabulary.first_colour + 2
    with pytest.raises(UserError, match=r"no token <\|c8\|>"):
        PixelVocabulary.of(tokenizer, 2, 9)


def test_each_document_holds_and_scores_what_its_task_says(pictures, vocabulary, tokenizer):
    v, index = vocabulary, 1
    text = tokenizer(NAMES[1])["input_ids"]
    large, small = ((c[index] + v.first_colour).tolist() for c in pictures.colours)
    expected = {
        "draw": ([v.begin, *text, v.images[0]], [*large, v.end]),
        "super_resolution": ([v.begin, v.images[1], *small, v.images[0]], [*large, v.end]),
    }
    for task, (given, scored) in expected.items():
        weights = {"draw": 0.0, task: 1.0}
        item = documents(pictures, vocabulary, **weights)[0, index]
        assert tokens_of(item, v) == given + scored
        assert scored_of(item) == scored
    item = documents(pictures, vocabulary, draw=0.0, caption=1.0)[0, index]
    assert tokens_of(item, v) == [v.begin, v.images[0], *large, v.caption, *text, v.end]
    assert scored_of(item) == [*large, *text, v.end]


def test_a_measured_document_scores_what_its_task_is_measured_by(pictures, vocabulary, tokenizer):
    scored = {
        task: scored_of(TaskDocuments(pictures, vocabulary, task)[1])
        for task in ("draw", "caption", "super_resolution")
    }
    pixels = (pictures.colours[0][1] + vocabulary.first_colour).tolist()
    assert scored["draw"] == scored["super_resolution"] == pixels
    assert scored["caption"] == [*tokenizer(NAMES[1])["input_ids"], vocabulary.end]


def test_the_tasks_come_as_often_as_their_weights_say(pictures, vocabulary):
    chosen = documents(pictures, vocabulary, draw=1, caption=1, super_resolution=2)
    counts = {"caption": 0, "super_resolution": 0, "draw": 0}
    for epoch in range(100):
        for index in range(12):
            ids = chosen[epoch, index]["input_ids"]
            found = "caption" if (ids == vocabulary.caption).any() else "draw"
            found = "super_resolution" if (ids == vocabulary.images[1]).any() else found
            counts[found] += 1
    shares = {name: count / 1200 for name, count in counts.items()}
    assert shares == pytest.approx(
        {"caption": 0.25, "super_resolution": 0.5, "draw": 0.25}, abs=0.05
    )


def test_prompts_are_left_out_as_often_as_asked(pictures, vocabulary):
    chosen = documents(pictures, vocabulary, prompt_dropout=0.3)
    without = [
        chosen[epoch, index]["input_ids"][1].item() == vocabulary.images[0]
        for epoch in range(100)
        for index in range(12)
    ]
    assert np.mean(without) == pytest.approx(0.3, abs=0.05)


def test_half_the_pictures_are_mirrored_in_both_sizes(pictures, vocabulary):
    chosen = documents(pictures, vocabulary, flip=True, draw=0.0, super_resolution=1.0)
    large = pictures.colours[0][0].reshape(4, 4)
    small = pictures.colours[1][0].reshape(2, 2)
    mirrored = 0
    for epoch in range(100):
        ids = chosen[epoch, 0]["input_ids"].numpy() - vocabulary.first_colour
        sizes = ids[2:6].reshape(2, 2), ids[7:23].reshape(4, 4)
        if np.array_equal(sizes[1], large):
            assert np.array_equal(sizes[0], small)
        else:
            mirrored += 1
            assert np.array_equal(sizes[0], small[:, ::-1])
            assert np.array_equal(sizes[1], large[:, ::-1])
    assert 30 < mirrored < 70


def test_hidden_pixels_are_scored_but_not_seen(pictures, vocabulary):
    keys = [(epoch, index) for epoch in range(40) for index in range(12)]
    fields = {"super_resolution": 1.0, "caption": 1.0}
    plain = documents(pictures, vocabulary, **fields).__getitems__(keys)
    holed = documents(pictures, vocabulary, hidden_pixels=0.6, **fields).__getitems__(keys)
    shares = []
    for before, after in zip(plain, holed, strict=True):
        assert torch.equal(before["labels"], after["labels"])
        changed = before["input_ids"] != after["input_ids"]
        assert (after["input_ids"][changed] == vocabulary.pad).all()
        scored_pixels = torch.from_numpy(vocabulary.is_colour(before["labels"].numpy()))
        assert not (changed & ~scored_pixels).any()  # prompts and small pictures are seen
        shares.append(changed.sum().item() / scored_pixels.sum().item())
    assert sum(shares) / len(shares) == pytest.approx(0.3, abs=0.03)
    assert np.std(shares) > 0.15  # each picture has a share of its own
    again = documents(pictures, vocabulary, hidden_pixels=0.6, **fields).__getitems__(keys)
    assert all(
        torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(holed, again, strict=True)
    )


def test_a_document_depends_on_seed_epoch_and_number_alone(pictures, vocabulary):
    fields = {"draw": 1, "caption": 1, "super_resolution": 1, "prompt_dropout": 0.5, "flip": True}
    one, same, other = (documents(pictures, vocabulary, seed=seed, **fields) for seed in (3, 3, 4))
    keys = [(epoch, index) for epoch in range(4) for index in range(12)]
    alone = [tokens_of(one[key], vocabulary) for key in keys]
    assert [tokens_of(item, vocabulary) for item in same.__getitems__(keys)] == alone
    assert [tokens_of(other[key], vocabulary) for key in keys] != alone


def test_images_without_texts_have_empty_prompts_and_no_captions(images, tokenizer, vocabulary):
    processor = GenPixelsImageProcessor(PALETTE, image_sizes=[4, 2])
    plain = EncodedPictures.of(ImageSet(images.images), [], processor, tokenizer, 16)
    chosen = documents(plain, vocabulary, draw=1, caption=5)
    assert chosen.tasks == ["draw"]
    assert tokens_of(chosen[0, 0], vocabulary)[:2] == [vocabulary.begin, vocabulary.images[0]]
    with pytest.raises(UserError, match="no captions and no classes"):
        documents(plain, vocabulary, draw=0, caption=1)


def test_one_of_several_captions_is_drawn(images, tokenizer, vocabulary):
    captions = [["shoe", "a long bag"]] * len(images)
    processor = GenPixelsImageProcessor(PALETTE, image_sizes=[4, 2])
    many = EncodedPictures.of(
        ImageSet(images.images, captions=captions), [], processor, tokenizer, 16
    )
    chosen = documents(many, vocabulary)
    lengths = {len(tokens_of(chosen[epoch, 0], vocabulary)) for epoch in range(20)}
    expected = {len(tokenizer(text)["input_ids"]) + LARGE + 3 for text in captions[0]}
    assert lengths == expected


def test_attributes_are_one_line_of_names():
    flags = ImageSet(np.zeros((2, 1, 4, 4), np.uint8), np.array([[1, 0, 1], [0, 0, 0]], np.uint8))
    assert prompts_of(flags, ["young", "old", "hat"]) == [["young, hat"], [""]]


def test_the_loaders_of_texts_load_documents(pictures, vocabulary):
    chosen = documents(pictures, vocabulary, draw=1, caption=1)
    batch = next(iter(train_loader(chosen, PositionSampler(12, batch_size=5, seed=0))))
    assert set(batch) == {"input_ids", "labels"}
    assert batch["input_ids"].shape == batch["labels"].shape
    measured = TaskDocuments(pictures, vocabulary, "draw", limit=7)
    batches = list(validation_loader(measured, 4))
    scored = sum(int((batch["labels"] != IGNORED).sum()) for batch in batches)
    assert scored == 7 * LARGE
    assert collate(measured.__getitems__([0, 1]))["labels"].shape[0] == 2
