"""The bundled pairs: read as users read them, nothing held out is trained on, small."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest

import hf_genmodels
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
