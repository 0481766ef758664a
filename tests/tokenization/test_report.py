"""Inspection and measurement."""

import pytest

from hf_genmodels.data.sources import TextSource
from hf_genmodels.errors import UserError
from hf_genmodels.tokenization import report


def test_measures_are_counts_over_the_text(tokenizer):
    text = "El niño comió 345 piñas"
    (one,) = report.measure({"ours": tokenizer}, [text], "es")
    ids = tokenizer(text)["input_ids"]
    assert (one.num_bytes, one.num_characters, one.num_words) == (len(text.encode()), len(text), 5)
    assert (one.num_tokens, one.num_used) == (len(ids), len(set(ids)))
    assert one.bytes_per_token == len(text.encode()) / len(ids)
    assert one.fertility == len(ids) / 5
    assert one.to_dict()["tokens_per_character"] == len(ids) / len(text)


def test_measures_do_not_depend_on_pieces_and_batches(tokenizer, corpus):
    one = report.measure({"t": tokenizer}, [" ".join(corpus)], "x")
    other = report.measure({"t": tokenizer}, [corpus[0], *(f" {t}" for t in corpus[1:])], "x")
    assert one == other


def test_tokenizers_are_compared_sample_by_sample(tokenizers, tmp_path):
    (tmp_path / "a.txt").write_text("in 2024")
    (tmp_path / "b.txt").write_text("no numbers")
    chosen = {name: tokenizers[name] for name in ("gpt2", "digits")}
    sources = {name: TextSource(files=[tmp_path / f"{name}.txt"]) for name in "ab"}
    rows = report.compare(chosen, sources)
    assert [(row.sample, row.tokenizer) for row in rows] == [
        ("a", "gpt2"), ("a", "digits"), ("b", "gpt2"), ("b", "digits"),
    ]  # fmt: skip
    table = report.format_measurements(rows).splitlines()
    assert len(table) == 6
    assert "bytes/token" in table[0]


def test_all_samples_are_checked_before_any_is_read(tokenizer, tmp_path):
    def texts():
        raise AssertionError("read before the check")

    good = TextSource(files=[__file__])
    good.check = lambda: None
    good.texts = texts
    with pytest.raises(UserError, match="does not exist"):
        report.compare({"t": tokenizer}, {"a": good, "b": TextSource(files=[tmp_path / "b.txt"])})


@pytest.mark.parametrize("sample", ["es", "=file", "es=", ""])
def test_a_language_sample_needs_a_name_and_a_file(sample):
    with pytest.raises(UserError, match="name and a file"):
        report.parse_samples([sample])


def test_language_samples_by_name():
    assert report.parse_samples(["en=a=b.txt", "es=c.txt"]) == {"en": "a=b.txt", "es": "c.txt"}
    with pytest.raises(UserError, match="twice"):
        report.parse_samples(["en=a", "en=b"])


def test_tokens_are_shown_so_that_they_can_be_read(tokenizer):
    text = " a\n\t\x00\u200b<|endoftext|>"
    shown = report.inspect(tokenizer, text)
    assert [token_id for token_id, _, _ in shown] == tokenizer(text)["input_ids"]
    assert "".join(token for _, token, _ in shown).startswith("␣a⏎⇥<U+0000>")
    assert shown[-1][1:] == ("<|endoftext|>", "special")
    assert report.inspect(tokenizer, "") == []


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b" x", "␣x"),
        ("世".encode()[:2], "<E4><B8>"),
        ("世".encode(), "世"),
        (b"\x1b", "<U+001B>"),
        ("\u0301".encode(), "◌\u0301"),
        (b"\xff", "<FF>"),
    ],
)
def test_printable_forms(raw, shown):
    assert report.printable(raw) == shown


def test_a_surrogate_is_explained(tokenizer):
    with pytest.raises(UserError, match=r"U\+DCFF at position 1"):
        report.inspect(tokenizer, "a\udcff")


def test_columns_line_up_with_wide_characters():
    rows = [("世界", "1"), ("e\u0301", "22")]
    lines = report.table(("token", "id"), rows).splitlines()
    assert {report.display_width(line) for line in lines} == {9}
