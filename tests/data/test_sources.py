"""Reading text from files and datasets: what is read, and what is said about mistakes."""

import csv
import json
import tracemalloc

import pytest

from hf_genmodels.data.pieces import MAX_PIECE_CHARACTERS, PIECE_CHARACTERS, cut
from hf_genmodels.data.sources import Piece, TextSource
from hf_genmodels.errors import UserError

TEXT = "Erste Zeile\nzweite  Zeile\n\n \nnew paragraph 世界 🤗\nits end\n"


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path, columns):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table(columns), path)
    return path


def documents(source):
    whole, parts = [], []
    for piece in source.pieces():
        parts.append(piece.text)
        if piece.last:
            whole.append("".join(parts))
            parts = []
    assert not parts
    return whole


def test_a_text_file_is_a_document_and_read_exactly(text_file):
    assert documents(TextSource(files=[text_file])) == [TEXT]


def test_paragraphs_and_lines(text_file):
    paragraphs = ["Erste Zeile\nzweite  Zeile", "new paragraph 世界 🤗\nits end"]
    assert documents(TextSource(files=[text_file], sample_by="paragraph")) == paragraphs
    lines = ["Erste Zeile", "zweite  Zeile", "new paragraph 世界 🤗", "its end"]
    assert documents(TextSource(files=[text_file], sample_by="line")) == lines


@pytest.mark.parametrize("ending", ["\r\n", "\r"])
def test_all_kinds_of_line_ends_are_line_feeds(tmp_path, ending):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", ending).encode())
    assert documents(TextSource(files=[tmp_path / "a.txt"])) == [TEXT]
    assert len(documents(TextSource(files=[tmp_path / "a.txt"], sample_by="paragraph"))) == 2


def test_long_files_come_in_pieces_that_end_between_words(tmp_path):
    text = "wörd and more\n" * 60_000
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    pieces = list(TextSource(files=[tmp_path / "a.txt"]).pieces())
    assert "".join(piece.text for piece in pieces) == text
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert all(piece.text[0] in " \n" for piece in pieces[1:])
    assert max(len(piece.text) for piece in pieces) < PIECE_CHARACTERS + 10


def test_memory_does_not_grow_with_the_file(tmp_path):
    path = tmp_path / "a.txt"
    with path.open("w") as stream:
        for _ in range(400):
            stream.write("some words and a line end\n" * 2_000)
    tracemalloc.start()
    total = sum(len(text) for text in TextSource(files=[path]).texts())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == path.stat().st_size > 20_000_000
    assert peak < 8_000_000


def test_text_without_white_space_is_cut_at_a_limit():
    pieces = list(cut(["x" * (MAX_PIECE_CHARACTERS // 2)] * 3))
    assert [len(piece.text) for piece in pieces] == [
        MAX_PIECE_CHARACTERS,
        MAX_PIECE_CHARACTERS // 2,
    ]
    assert list(cut([])) == []
    assert list(cut(["a b"])) == [Piece("a b", last=True)]


def test_patterns_are_sorted_and_several_files_keep_their_order(tmp_path):
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.txt").write_text(name)
    assert documents(TextSource(files=[str(tmp_path / "[ab].txt")])) == ["a", "b"]
    assert documents(TextSource(files=[tmp_path / "c.txt", tmp_path / "a.txt"])) == ["c", "a"]


def test_a_relative_pattern(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("a")
    monkeypatch.chdir(tmp_path)
    assert documents(TextSource(files=["**/*.txt"])) == ["a"]


def test_jsonl_rows_are_documents(tmp_path):
    path = write_jsonl(
        tmp_path / "a.jsonl",
        [{"text": "one", "n": 1}, {"text": ""}, {"text": None}, {"text": "two"}],
    )
    assert documents(TextSource(files=[path])) == ["one", "two"]


def test_a_json_array_of_objects(tmp_path):
    (tmp_path / "a.json").write_text('[{"text": "one"},\n {"text": "two"}]')
    assert documents(TextSource(files=[tmp_path / "a.json"])) == ["one", "two"]


def test_surrogates_without_partner_become_the_replacement_character(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a\\ud800b \\ud83e\\udd17"}\n')
    assert documents(TextSource(files=[tmp_path / "a.jsonl"])) == ["a\ufffdb 🤗"]


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".tsv", "\t")])
def test_csv_keeps_text_as_it_stands(tmp_path, suffix, delimiter):
    texts = ['say "hi",\nthen\tgo', "null", " 007 ", "NA"]
    path = tmp_path / f"a{suffix}"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerows([["id", "body"], *([i, text] for i, text in enumerate(texts))])
    assert documents(TextSource(files=[path])) == texts


def test_parquet_and_fields_inside_fields(tmp_path):
    path = write_parquet(
        tmp_path / "a.parquet",
        {"translation": [{"en": "one", "es": "uno"}, {"en": "two", "es": "dos"}], "n": [1, 2]},
    )
    assert documents(TextSource(files=[path], text_column="translation.es")) == ["uno", "dos"]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_dataset(tmp_path, monkeypatch, streaming):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    write_jsonl(
        tmp_path / "set" / "train.jsonl", [{"body": "one", "n": 1}, {"body": "two", "n": 2}]
    )
    name = str(tmp_path / "set")
    source = TextSource(dataset_name=name, streaming=streaming)
    assert documents(source) == ["one", "two"]
    assert source.size_in_bytes() is None
    assert source.fingerprint() == TextSource(dataset_name=name).fingerprint()
    with pytest.raises(UserError, match="Did you mean 'body'"):
        TextSource(dataset_name=name, text_column="bodi").check()
    with pytest.raises(UserError, match="Bad split"):
        TextSource(dataset_name=name, split="nope").check()


def test_a_dataset_that_does_not_exist(tmp_path):
    pytest.importorskip("datasets")
    with pytest.raises(UserError, match="--train_file"):
        TextSource(dataset_name=str(tmp_path / "nowhere")).check()


def test_a_file_given_as_a_dataset(text_file):
    with pytest.raises(UserError, match="Give files with --train_file"):
        TextSource(dataset_name=str(text_file)).check()


def test_size_is_exact_for_text_and_near_for_tables(text_file, tmp_path):
    assert TextSource(files=[text_file]).size_in_bytes() == len(TEXT.encode())
    rows = [{"text": "some words " * 20, "other": "x" * 100} for _ in range(500)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    size = TextSource(files=[path], text_column="text").size_in_bytes()
    assert size == pytest.approx(500 * 220, rel=0.05)


def test_fingerprint_follows_content_and_reading_but_not_names(text_file, tmp_path):
    first = TextSource(files=[text_file]).fingerprint()
    other = tmp_path / "other.md"
    other.write_bytes(text_file.read_bytes())
    assert TextSource(files=[other]).fingerprint() == first
    assert TextSource(files=[other], sample_by="line").fingerprint() != first
    assert TextSource(files=[other, text_file]).fingerprint() != first
    other.write_bytes(text_file.read_bytes() + b"!")
    assert TextSource(files=[other]).fingerprint() != first
    table = write_jsonl(tmp_path / "a.jsonl", [{"a": "x", "b": "y"}])
    digests = {TextSource(files=[table], text_column=name).fingerprint() for name in "ab"}
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "is empty"),
        ("a.txt", b" \n\t\n", "white space"),
        ("a.txt", b"\x7fELF\x00\x01", "binary: it has a zero byte at offset 4"),
        ("a.txt", b"caf\xe9 au lait", "byte 0xe9 at offset 3"),
        ("a.txt", "text".encode("utf-16"), "UTF-16"),
        ("a.txt", b"half \xe4\xb8", "offset 5"),
        ("a.doc", b"text", "extension '.doc', which is not known"),
        ("a.parquet", b"text", "not a Parquet file"),
        ("a.parquet", b"PAR1 and no more", "truncated"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "Line 2"),
        ("a.jsonl", b'{"text": "a"}\n3\n', "Line 2 of the file .* is not a JSON object"),
        ("a.json", b'["a"]', "Item 1"),
        ("a.csv", b"text\n", "no rows"),
        ("a.csv", b"n,text\n1,a,b\n", "Line 2 .* more fields"),
        ("a.csv", b'n,text\n1,"a"b\n', "not valid CSV"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        TextSource(files=[tmp_path / name]).check()


def test_a_bad_byte_further_in_is_found_while_reading(tmp_path):
    good = "é".encode() * 700_000
    (tmp_path / "a.txt").write_bytes(good + b"\xff" + good)
    source = TextSource(files=[tmp_path / "a.txt"])
    source.check()
    with pytest.raises(UserError, match="byte 0xff at offset 1400000"):
        list(source.pieces())


def test_missing_files_are_explained(tmp_path, text_file):
    cases = {
        str(tmp_path / "aa.txt"): "Did you mean",
        str(tmp_path / "no" / "b.txt"): "neither does the folder",
        str(tmp_path / "*.md"): "No file matches",
        str(tmp_path): "is a folder",
    }
    for name, message in cases.items():
        with pytest.raises(UserError, match=message):
            TextSource(files=[name]).check()


ROWS = [{"title": "t", "body": "b", "n": 1, "pair": {"en": "e"}, "tags": ["x"]}]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (None, "Which column .* title, body, pair.en. Other columns: n, tags"),
        ("bodi", "no column 'bodi' .* Did you mean 'body'. Columns that hold text: title, body"),
        ("n", "holds values of type int, not text"),
        ("tags", "holds values of type list"),
        ("pair", "holds objects, not text. .*--text_column pair.en"),
        ("pair.fr", "Did you mean 'pair.en'"),
    ],
)
def test_columns_that_do_not_hold_text_are_explained(tmp_path, column, message):
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(UserError, match=message):
        TextSource(files=[path], text_column=column).check()


def test_a_value_further_in_that_is_no_text_is_located(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "a"}] * 150 + [{"text": 3}])
    with pytest.raises(UserError, match=r"Row 151 .* int"):
        list(TextSource(files=[path]).pieces())


def test_a_table_without_any_text_is_refused(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": ""}, {"text": None}])
    with pytest.raises(UserError, match="There is no text"):
        list(TextSource(files=[path]).pieces())


def test_contradictory_options_are_refused(text_file, tmp_path):
    table = write_jsonl(tmp_path / "a.jsonl", ROWS)
    cases = [
        ({}, "neither was given"),
        ({"files": [text_file], "dataset_name": "x"}, "both were given"),
        ({"files": str(text_file)}, "must be a list"),
        ({"files": [text_file], "sample_by": "lines"}, "Did you mean 'line'"),
        ({"files": [text_file], "text_column": "text"}, "has no columns"),
        ({"files": [table], "sample_by": "line"}, "each row is a document"),
        ({"files": [text_file, table]}, "different formats"),
    ]
    for options, message in cases:
        with pytest.raises(UserError, match=message):
            TextSource(**options).check()
