import logging
import struct
import sys

import pytest
import torch

from hf_genmodels import attention_map
from hf_genmodels.attention_map import draw_attention, token_labels
from hf_genmodels.errors import UserError
from tests.hub.conftest import byte_tokenizer

SOURCE, TARGET = ["the", "sea", "</s>"], ["el", "mar"]
WEIGHTS = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.9, 0.0]])


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draw and return what was drawn, before it became a picture."""
    pytest.importorskip("matplotlib")
    figures = []
    original = attention_map.save_figure
    monkeypatch.setattr(
        attention_map,
        "save_figure",
        lambda figure, *args, **options: (
            figures.append(figure) or original(figure, *args, **options)
        ),
    )

    def draw(*arguments, **options):
        draw_attention(tmp_path / "map.png", *arguments, **options)
        axes = figures[-1].axes[0]
        return (
            axes.images[0].get_array(),
            [label.get_text() for label in axes.get_xticklabels()],
            [label.get_text() for label in axes.get_yticklabels()],
            axes.get_title(loc="left"),
        )

    return draw


def png_size(path):
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    return struct.unpack(">II", data[16:24])


def test_sources_lie_across_and_targets_down(drawn):
    matrix, across, down, title = drawn(SOURCE, TARGET, WEIGHTS, "the sea")

    assert matrix.tolist() == WEIGHTS.tolist()
    assert across == SOURCE
    assert down == TARGET
    assert title == "the sea"


def test_heads_are_averaged_in_the_chosen_layer(drawn):
    heads = torch.stack([WEIGHTS, WEIGHTS.flip(1)])
    layers = torch.stack([heads, torch.zeros_like(heads)])

    for weights, options in ((heads, {}), (layers, {"layer": 0}), (layers.flip(0), {})):
        matrix, *_ = drawn(SOURCE, TARGET, weights, **options)
        torch.testing.assert_close(torch.tensor(matrix), heads.mean(0))


def test_the_picture_grows_with_the_texts_up_to_a_limit(monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(attention_map, "_LONGEST", 3.0)
    sizes = [
        png_size(draw_attention(tmp_path / "a.png", ["s"] * n, ["t"] * n, torch.rand(n, n)))
        for n in (1, 5, 10, 30)
    ]

    assert sizes[0] < sizes[1] < sizes[2]
    assert sizes[3] == pytest.approx(sizes[2], abs=30)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_the_same_attention_gives_the_same_bytes(tmp_path):
    pytest.importorskip("matplotlib")
    first, second = (
        draw_attention(tmp_path / name, SOURCE, TARGET, WEIGHTS).read_bytes() for name in "ab"
    )
    assert first == second


def test_text_is_never_read_as_mathematics_and_long_text_is_shortened(drawn):
    _, across, down, _ = drawn(["$x_1$", "\x1b[1m", "a" * 99], ["$$", r"\frac{"], WEIGHTS, "$^")

    assert across[:2] == ["$x_1$", "\N{REPLACEMENT CHARACTER}[1m"]
    assert len(across[2]) == 25
    assert down == ["$$", r"\frac{"]


def test_characters_without_a_font_are_shown_as_code_points_and_reported(drawn, caplog):
    private = "\U00010330"  # Gothic: the fonts that come with matplotlib lack it
    attention_map._fonts.cache_clear()
    fonts, missing = attention_map._fonts(frozenset(private))
    if not missing:
        pytest.skip(f"{fonts} have Gothic letters")

    attention_map._report_missing.cache_clear()
    with caplog.at_level(logging.WARNING, logger="hf_genmodels"):
        for _ in range(2):
            _, across, *_ = drawn([private, "a", "b"], TARGET, WEIGHTS)

    assert across == ["U+10330", "a", "b"]
    assert caplog.text.count("No font of this machine has all GOTHIC characters") == 1


def test_a_font_that_has_the_characters_is_found(monkeypatch):
    pytest.importorskip("matplotlib")
    coverage = {"First": "ab", "Serif": "ab上", "Other Sans": "上", "Third Sans": "b"}
    monkeypatch.setattr(attention_map, "_candidates", lambda _: [(n, n) for n in coverage])
    monkeypatch.setattr(attention_map, "_characters_of", lambda path: frozenset(coverage[path]))

    attention_map._fonts.cache_clear()
    try:
        assert attention_map._fonts(frozenset("ab")) == (["First"], frozenset())
        assert attention_map._fonts(frozenset("a上 \n")) == (["First", "Serif"], frozenset())
        families, missing = attention_map._fonts(frozenset("上x"))
        assert families == ["First", "Serif"]
        assert missing == {"x"}
    finally:
        attention_map._fonts.cache_clear()


def test_the_candidates_begin_with_the_default_and_hold_no_placeholders():
    pytest.importorskip("matplotlib")

    families = [family for family, _ in attention_map._candidates("DejaVu Sans")]

    assert families[0] == "DejaVu Sans"
    assert "STIXGeneral" in families
    assert not any("Last Resort" in family for family in families)
    path = dict(attention_map._candidates("DejaVu Sans"))["DejaVu Sans"]
    assert {"é", "я", "→"} <= attention_map._characters_of(path)


def test_labels_of_byte_level_pieces_are_text():
    tokenizer = byte_tokenizer()
    ids = tokenizer("né 上\n")["input_ids"]

    labels = token_labels(tokenizer, [*ids, tokenizer.eos_token_id])

    # n, two bytes of é, a blank, three bytes of 上, a line end
    assert labels == ["n", "…", "é", "␣", "…", "…", "上", "⏎", "<|endoftext|>"]


def test_a_broken_character_does_not_spoil_the_next_token():
    tokenizer = byte_tokenizer()
    first = tokenizer("上")["input_ids"][0]

    assert token_labels(tokenizer, [first, *tokenizer("a")["input_ids"]]) == ["…", "\ufffda"]
    assert token_labels(tokenizer, [first, tokenizer.eos_token_id]) == ["…", "<|endoftext|>"]
    assert token_labels(tokenizer, tokenizer("a")["input_ids"]) == ["a"]


def test_the_blank_that_begins_a_word_is_left_out():
    class Pieces:
        all_special_tokens = ("</s>",)

        def convert_ids_to_tokens(self, ids):
            return [["Ġsea", "▁mar", "ĠÃ©", "</s>"][i] for i in ids]

    assert token_labels(Pieces(), range(4)) == ["sea", "mar", "é", "</s>"]


@pytest.mark.parametrize("shape", [(3, 2), (2,), (1, 2, 2, 2, 3)])
def test_attention_that_does_not_fit_the_tokens_is_refused(shape, tmp_path):
    pytest.importorskip("matplotlib")

    with pytest.raises(ValueError, match="2 target tokens and 3 source tokens"):
        draw_attention(tmp_path / "a.png", SOURCE, TARGET, torch.ones(shape))


def test_a_missing_matplotlib_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(UserError, match=r"hf_genmodels\[plots\]"):
        draw_attention(tmp_path / "a.png", SOURCE, TARGET, WEIGHTS)
