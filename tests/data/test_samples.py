"""The bundled pairs and images: read as users read them, nothing held out is trained on, small."""

from __future__ import annotations

import io
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hf_genmodels
from hf_genmodels.config.images import ImageDataConfig
from hf_genmodels.data.image_sources import image_sources
from hf_genmodels.data.pairs import PairSource

SAMPLES = Path(hf_genmodels.__file__).parent / "samples"
OPTIONS = {
    "english_spanish": {"source_lang": "en", "target_lang": "es"},
    "poems": {"text_column": "content", "group_column": "author"},
    "dialogue": {},
}
SIZES = {
    "english_spanish": {"train": 12_193, "validation": 300, "test": 200},
    "poems": {"train": 3000, "validation": 150},
    "dialogue": {"train": 1802, "validation": 128},
}


def pairs(name, part):
    """All pairs of one file of a sample."""
    if name == "english_spanish" and part == "train":
        pytest.importorskip("pyarrow")
    (file,) = (SAMPLES / name).glob(f"{part}.*")
    return list(PairSource(files=[file], **OPTIONS[name]).all_pairs())


@pytest.mark.parametrize("name", SIZES)
def test_every_row_has_two_sides_and_none_is_trained_on_and_held_out(name):
    parts = {part: pairs(name, part) for part in SIZES[name]}
    assert {part: len(found) for part, found in parts.items()} == SIZES[name]
    assert not any(pair.empty for found in parts.values() for pair in found)
    train = {(pair.source, pair.target) for pair in parts.pop("train")}
    held_out = [(pair.source, pair.target) for found in parts.values() for pair in found]
    assert not train & set(held_out)
    if name != "dialogue":  # where short answers such as "Yes, sir." recur
        assert not {text for pair in train for text in pair} & {t for p in held_out for t in p}


def test_poems_have_many_by_each_author_and_titles():
    authors = Counter(pair.group for pair in pairs("poems", "train"))
    assert set(authors.values()) == {100}
    assert {pair.group for pair in pairs("poems", "validation")} <= set(authors)
    titles = PairSource(
        files=[SAMPLES / "poems" / "train.jsonl"], source_column="content", target_column="title"
    )
    assert sum(1 for _ in titles.pairs()) == 3000


def test_turns_of_a_dialogue_follow_each_other():
    found = pairs("dialogue", "train")
    assert all(1 <= len(pair.source.split(" <sep> ")) <= 2 for pair in found)
    assert all("<sep>" not in pair.target and '"' not in pair.target for pair in found)
    followed = [
        one.target == other.source.split(" <sep> ")[-1] for one, other in itertools.pairwise(found)
    ]
    assert sum(followed) > 900


def test_the_samples_of_pairs_are_small():
    files = [file for name in OPTIONS for file in (SAMPLES / name).iterdir()]
    assert sum(file.stat().st_size for file in files) < 2_500_000


def image_rows(name, part):
    """All rows of one file of a sample of images."""
    parquet = pytest.importorskip("pyarrow.parquet")
    return parquet.read_table(SAMPLES / name / f"{part}.parquet").to_pylist()


IMAGES = {
    "fashion_mnist": (("L", (28, 28)), {"train": 6000, "test": 1000}),
    "digits": (("L", (28, 28)), {"train": 3000, "test": 500}),
    "emoji": (("RGB", (32, 32)), {"train": 951, "test": 110}),
}


@pytest.mark.parametrize("name", IMAGES)
def test_bundled_images_are_all_alike_and_none_is_trained_on_and_held_out(name):
    kind, sizes = IMAGES[name]
    parts = {part: image_rows(name, part) for part in sizes}
    assert {part: len(rows) for part, rows in parts.items()} == sizes
    digests = {}
    for part, rows in parts.items():
        images = [Image.open(io.BytesIO(row["image"]["bytes"])) for row in rows]
        assert {(image.mode, image.size) for image in images} == {kind}
        digests[part] = {hash(image.tobytes()) for image in images}
    assert not digests["train"] & digests["test"]


def test_clothes_are_as_many_of_each_class_with_their_names():
    config = ImageDataConfig(train_file=["sample:fashion_mnist/train.parquet"])
    source, _ = image_sources(config)
    facts = source.facts()
    assert facts.label_names[0] == "T-shirt/top"
    assert facts.label_names[-1] == "Ankle boot"
    assert np.bincount(facts.labels).tolist() == [600] * 10
    assert set(Counter(row["label"] for row in image_rows("fashion_mnist", "test")).values()) == {
        100
    }


def test_emoji_have_names_of_their_own_and_what_is_held_out_can_be_put_together():
    train, test = image_rows("emoji", "train"), image_rows("emoji", "test")
    names = [row["text"] for row in [*train, *test]]
    assert len(set(names)) == len(names)
    assert sum(bool(row["keywords"]) for row in train) > 900
    assert "red heart" in {row["text"] for row in test}
    assert {"blue heart", "red circle"} <= {row["text"] for row in train}


def test_the_samples_of_images_are_small_and_say_whom_to_credit():
    files = [file for name in IMAGES for file in (SAMPLES / name).iterdir()]
    assert sum(file.stat().st_size for file in files) < 6_000_000
    for name, credit in (
        ("fashion_mnist", "Zalando SE"),
        ("digits", "MNIST"),
        ("emoji", "Twemoji"),
    ):
        for file in ("README.md", "LICENSE"):
            assert credit in (SAMPLES / name / file).read_text(encoding="utf-8")
    assert "CC-BY 4.0" in (SAMPLES / "emoji" / "README.md").read_text(encoding="utf-8")
