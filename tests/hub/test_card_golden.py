"""Whole cards, as they were read and approved, and what holds for every card.

After a template was changed on purpose, write the files in golden/ again and read the difference:
`UPDATE_GOLDEN=1 python -m pytest -n0 tests/hub/test_card_golden.py`
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hf_genmodels.hub.card import PICTURES, CardData, Metric, Sample, Translation, render_card
from hf_genmodels.models.configuration_gpt import GenGPTConfig
from hf_genmodels.models.configuration_rnn_seq2seq import GenRNNSeq2SeqConfig
from hf_genmodels.models.configuration_seq2seq import GenSeq2SeqConfig
from tests.hub import generators, test_card, test_card_seq2seq, test_images

GOLDEN = Path(__file__).parent / "golden"
SIZES = {"vocab_size": 8000, "hidden_size": 64, "num_attention_heads": 4}
LAYERS = {"encoder_layers": 3, "decoder_layers": 2}
CARDS: dict[str, tuple[CardData, Any]] = {
    "language_model": (test_card.FULL, GenGPTConfig(num_hidden_layers=2, **SIZES)),
    "translator": (
        test_card_seq2seq.FULL,
        GenSeq2SeqConfig(max_position_embeddings=128, **SIZES, **LAYERS),
    ),
    "recurrent": (CardData("toy"), GenRNNSeq2SeqConfig(cell="gru", hidden_size=64, **LAYERS)),
    "class_gan": (test_images.FULL, generators.config()),
    "text_gan": (
        CardData("toy", versions={"torch": "9.9"}),
        generators.config(conditioning="text"),
    ),
    "video_gan": (
        CardData("toy", versions={"torch": "9.9"}),
        generators.config(conditioning="text", image_size=16, num_frames=4),
    ),
}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with every picture that a card may show."""
    (tmp_path / "report").mkdir()
    for name in PICTURES:
        (tmp_path / name).write_bytes(b"picture")
    return tmp_path


@pytest.mark.parametrize("name", CARDS)
def test_the_whole_card_is_as_it_was_approved(
    name: str, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_genmodels.hub.citations.__version__", "9.9")
    monkeypatch.setattr("hf_genmodels.hub.card.versions_here", lambda: {"torch": "9.9"})
    card, config = CARDS[name]
    text = render_card(card, config, folder=pictures, companions=["discriminator"])
    file = GOLDEN / f"{name}.md"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


TEXT = st.text(max_size=30) | st.sampled_from(
    [
        "",
        " ",
        "\n",
        "# a\n## b",
        "---\n",
        "\n---\n# c",
        "```",
        "a: [b",
        "| x |",
        "\x00\x85\u2028",
        "{{ x }}",
    ]
)
NAMES = st.lists(TEXT.filter(str.strip), max_size=2)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=32)
METRICS = st.builds(
    Metric,
    type=st.sampled_from(["loss", "bleu", "fid"]) | TEXT,
    value=NUMBERS,
    dataset=TEXT,
    split=TEXT,
    low=st.none() | NUMBERS,
    high=st.none() | NUMBERS,
    num_sentences=st.none() | st.integers(0, 10**6),
    num_images=st.none() | st.integers(0, 10**6),
    signature=TEXT,
    features=TEXT,
    real=st.none() | NUMBERS,
)
FACTS = st.dictionaries(TEXT, st.none() | TEXT | st.integers(), max_size=2)
ANY_CARD = st.builds(
    CardData,
    name=TEXT,
    model_id=st.none() | TEXT,
    summary=st.sampled_from(["", " \n", "It *draws*."]),
    source_language=st.none() | TEXT,
    target_language=st.none() | TEXT,
    license=st.none() | TEXT,
    language=NAMES,
    base_model=st.none() | TEXT.filter(lambda text: "\0" not in text),
    datasets=NAMES.map(lambda names: [name.replace("\0", "") or "x" for name in names]),
    training_data=FACTS,
    credit=st.sampled_from(["", " \n", "Made by somebody."]),
    training=FACTS,
    metrics=st.lists(METRICS, max_size=2),
    samples=st.lists(st.builds(Sample, TEXT, TEXT), max_size=1),
    translations=st.lists(st.builds(Translation, TEXT, TEXT, TEXT), max_size=1),
    health=TEXT,
    prompt=TEXT,
    limits=st.sampled_from(["", " \n", "None known."]),
    num_parameters=st.none() | st.integers(0, 10**9),
    versions=st.none() | st.dictionaries(TEXT, TEXT, max_size=1),
    tags=NAMES,
)


@pytest.mark.parametrize("name", CARDS)
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(card=ANY_CARD)
def test_no_card_has_an_empty_heading_and_every_one_has_metadata(name: str, card: CardData) -> None:
    _, config = CARDS[name]

    text = render_card(card, config)

    parsed = ModelCard(text)
    assert parsed.data.library_name == "transformers"
    assert parsed.data.to_yaml()
    assert parsed.data.license == card.license or not (card.license or "").strip()
    _, body = text.split("\n---\n", 1)
    body = re.sub(r"^(`{3,})\w*\n.*?^\1$", "code", body, flags=re.MULTILINE | re.DOTALL)
    parts = re.split(r"^(#+ .*)$", body, flags=re.MULTILINE)
    for heading, content in zip(parts[1::2], parts[2::2], strict=True):
        shown = re.sub(r"^\|[-| ]*\|$", "", content, flags=re.MULTILINE)
        assert shown.strip(), f"{heading!r} has nothing below it"
