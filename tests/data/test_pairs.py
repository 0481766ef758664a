"""Reading pairs from tables, parallel files and datasets, and what is said about mistakes."""

import csv
import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_genmodels.data import text_files
from hf_genmodels.data.openings import split_opening
from hf_genmodels.data.pairs import Pair, PairSource
from hf_genmodels.errors import UserError

ROWS = [
    {"translation": {"en": "one", "es": "uno"}, "id": 1},
    {"translation": {"en": " two\n", "es": "dos"}, "id": 2},
]
BOTH = [("one", "uno"), ("two", "dos")]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parallel(folder, sources, targets):
    (folder / "a.en.txt").write_text(sources, encoding="utf-8")
    (folder / "a.es.txt").write_text(targets, encoding="utf-8")
    return {"source_files": [folder / "a.en.txt"], "target_files": [folder / "a.es.txt"]}


def texts(source):
    return [(pair.source, pair.target) for pair in source.pairs()]


def test_translation_columns_are_read_by_language(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    source = PairSource(files=[path], source_lang="en", target_lang="es")
    assert texts(source) == BOTH
    assert list(source.source_texts()) == ["one", "two"]
    assert list(source.target_texts()) == ["uno", "dos"]
    other_way = PairSource(files=[path], source_lang="es", target_lang="en")
    assert texts(other_way) == [(b, a) for a, b in BOTH]


def test_columns_source_and_target_need_no_option(tmp_path):
    path = write_jsonl(
        tmp_path / "a.jsonl", [{"source": a, "target": b, "x": "y"} for a, b in BOTH]
    )
    assert texts(PairSource(files=[path])) == BOTH


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".tsv", "\t")])
def test_columns_of_csv_are_named(tmp_path, suffix, delimiter):
    path = tmp_path / f"a{suffix}"
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, delimiter=delimiter).writerows([("q", "a"), *BOTH, ("with, comma", "x")])
    source = PairSource(files=[path], source_column="q", target_column="a")
    assert texts(source) == [*BOTH, ("with, comma", "x")]


def test_parquet_and_plain_columns_named_by_language(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = {"en": ["one", "two"], "es": ["uno", "dos"], "n": [1, 2]}
    parquet.write_table(arrow.table(table), tmp_path / "a.parquet")
    source = PairSource(files=[tmp_path / "a.parquet"], source_lang="en", target_lang="es")
    assert texts(source) == BOTH


def test_lines_of_parallel_files_belong_together(tmp_path):
    files = write_parallel(tmp_path, "one\r\n\r\ntwo\r\n", "uno\nnada\ndos")
    source = PairSource(**files)
    assert [pair.source for pair in source.all_pairs()] == ["one", "", "two"]
    assert texts(source) == BOTH
    assert source.size_in_bytes() == sum(f[0].stat().st_size for f in files.values())


def test_several_parallel_files_are_read_in_order(tmp_path):
    for name, text in (("1.en", "a"), ("2.en", "b"), ("1.es", "c"), ("2.es", "d")):
        (tmp_path / f"{name}.txt").write_text(text)
    source = PairSource(
        source_files=[tmp_path / "*.en.txt"],
        target_files=[tmp_path / "1.es.txt", tmp_path / "2.es.txt"],
    )
    assert texts(source) == [("a", "c"), ("b", "d")]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_dataset(tmp_path, monkeypatch, streaming):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    write_jsonl(tmp_path / "set" / "train.jsonl", ROWS)
    options = {"dataset_name": str(tmp_path / "set"), "streaming": streaming}
    source = PairSource(source_lang="en", target_lang="es", **options)
    assert texts(source) == BOTH
    assert source.size_in_bytes() is None
    assert len(source.fingerprint()) == 64
    with pytest.raises(UserError, match=r"no language 'fr'.*Languages: en, es"):
        PairSource(source_lang="fr", target_lang="es", **options).check()


def test_groups_and_other_columns_are_kept(tmp_path):
    rows = [
        {"source": "a", "target": "b", "author": "X", "year": 0},
        {"source": "c", "target": "d"},
    ]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    source = PairSource(files=[path], group_column="author", columns=("year",))
    assert list(source.pairs()) == [
        Pair("a", "b", "X", {"year": "0"}),
        Pair("c", "d", "", {"year": ""}),
    ]


def test_whole_texts_are_cut_into_opening_and_continuation(tmp_path):
    rows = [
        {"author": "A", "content": "秦川雄帝宅，函谷壯皇居。綺殿千尋起，離宮百雉餘。"},  # noqa: RUF001
        {"author": "B", "content": "one line only"},
    ]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    source = PairSource(files=[path], text_column="content", group_column="author")
    (pair,) = source.pairs()
    assert (pair.source, pair.target) == (rows[0]["content"][:12], rows[0]["content"][12:])
    assert pair.group == "A"
    assert [pair.empty for pair in source.all_pairs()] == [False, True]


@pytest.mark.parametrize(
    ("text", "share", "parts"),
    [
        ("a\nb\nc\nd", 0.5, ("a\nb", "c\nd")),
        ("a\nb\nc\nd", 0.2, ("a", "b\nc\nd")),
        ("One. Two! Three? Four.", 0.9, ("One. Two! Three?", "Four.")),
        ("He said “go.” Then he went.", 0.5, ("He said “go.”", "Then he went.")),
        ("Pi is 3.14 and no more.", 0.5, None),
        ("「花落。」春去。", 0.5, ("「花落。」", "春去。")),
        ("\n one \n\n", 0.5, None),
        ("", 0.5, None),
    ],
)
def test_texts_are_cut_at_the_nearest_line_or_sentence_end(text, share, parts):
    assert split_opening(text, share) == parts


def test_fingerprint_follows_content_and_reading_but_not_names(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", ROWS)
    first = PairSource(files=[path], source_lang="en", target_lang="es").fingerprint()
    copy = tmp_path / "b.jsonl"
    copy.write_bytes(path.read_bytes())
    assert PairSource(files=[copy], source_lang="en", target_lang="es").fingerprint() == first
    assert PairSource(files=[copy], source_lang="es", target_lang="en").fingerprint() != first
    write_jsonl(copy, ROWS[::-1])
    assert PairSource(files=[copy], source_lang="en", target_lang="es").fingerprint() != first
    poems = write_jsonl(tmp_path / "c.jsonl", [{"text": "a. b. c."}])
    digests = {
        PairSource(files=[poems], text_column="text", split_at=s).fingerprint() for s in (0.3, 0.6)
    }
    parallel = write_parallel(tmp_path, "a\n", "b\n")
    swapped = {"source_files": parallel["target_files"], "target_files": parallel["source_files"]}
    digests |= {PairSource(**parallel).fingerprint(), PairSource(**swapped).fingerprint()}
    assert len(digests) == 4


def test_size_counts_the_text_of_both_sides(tmp_path):
    rows = [{"source": "some words " * 20, "target": "x" * 80, "other": "y" * 99}] * 500
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    assert PairSource(files=[path]).size_in_bytes() == pytest.approx(500 * 300, rel=0.05)


@pytest.mark.parametrize("kind", ["table", "parallel"])
def test_memory_does_not_grow_with_the_files(tmp_path, kind):
    number = 50_000
    if kind == "table":
        path = tmp_path / "a.jsonl"
        path.write_text(json.dumps({"source": "x " * 50, "target": "y " * 50}) + "\n")
        path.write_text(path.read_text() * number)
        source = PairSource(files=[path])
    else:
        source = PairSource(**write_parallel(tmp_path, "x " * 50 + "\n", "y " * 50 + "\n"))
        for file in (*source.source_files, *source.target_files):
            file.write_text(file.read_text() * number)
    tracemalloc.start()
    assert sum(1 for _ in source.pairs()) == number
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert source.size_in_bytes() > 9_000_000
    assert peak < 4_500_000


def test_different_numbers_of_lines_are_refused_with_both_counts(tmp_path):
    files = write_parallel(tmp_path, "a\nb\nc\n", "a\n\nb\nc")
    with pytest.raises(UserError, match=r"a\.en\.txt' has 3 lines and .*a\.es\.txt' has 4"):
        PairSource(**files).check()


@settings(deadline=None)
@given(content=st.text(alphabet="a\n\r\u2028\x85 ", max_size=20), chunk=st.integers(1, 4))
def test_lines_are_counted_as_they_are_read(content, chunk, tmp_path_factory):
    file = tmp_path_factory.mktemp("lines") / "a.txt"
    file.write_bytes(content.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "_CHUNK_BYTES", chunk)
        assert text_files.count_lines(file) == len(list(text_files.text_lines(file)))


def test_pairs_that_are_all_empty_are_refused(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"source": "a", "target": " "}] * 3)
    with pytest.raises(UserError, match="3 have an empty side"):
        list(PairSource(files=[path]).pairs())


NEITHER = {"title": "t", "body": "b", "n": 1}


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        (
            NEITHER,
            {},
            r"Which columns .*--source_column .*hold text: title, body. Other columns: n",
        ),
        (ROWS[0], {}, r"Which way .*--source_lang and --target_lang. Languages: en, es"),
        (
            ROWS[0],
            {"source_lang": "en", "target_lang": "ess"},
            r"Did you mean 'es'\? Languages: en",
        ),
        (NEITHER, {"source_lang": "en", "target_lang": "es"}, "neither a column 'translation'"),
        (NEITHER, {"source_column": "titel", "target_column": "body"}, "Did you mean 'title'"),
        (NEITHER, {"source_column": "n", "target_column": "body"}, "type int, not text"),
        (
            ROWS[0],
            {"source_column": "translation", "target_column": "translation.es"},
            "--source_column translation.en or translation.es",
        ),
        (NEITHER, {"source_column": "title"}, "--source_column was given without --target_column"),
        (NEITHER, {"target_lang": "es"}, "--target_lang was given without --source_lang"),
        (NEITHER, {"source_column": "body", "target_column": "body"}, "are both 'body'"),
        (ROWS[0], {"source_lang": "en", "target_lang": "en"}, "are both 'en'"),
        (
            NEITHER,
            {"source_column": "title", "target_column": "body", "text_column": "body"},
            "Name the texts in one way",
        ),
        (NEITHER, {"text_column": "boddy"}, "Did you mean 'body'"),
        (
            NEITHER,
            {"text_column": "body", "group_column": "titl"},
            "'titl', which --group_column names.* Did you mean 'title'",
        ),
        (NEITHER, {"text_column": "body", "columns": ["x"]}, "'x', which --columns names"),
        (NEITHER, {"text_column": "body", "split_at": 1.0}, "between 0 and 1"),
    ],
)
def test_columns_and_languages_that_are_not_there_are_explained(tmp_path, row, options, message):
    path = write_jsonl(tmp_path / "a.jsonl", [row])
    with pytest.raises(UserError, match=message):
        PairSource(files=[path], **options).check()


def test_a_value_further_in_that_is_no_text_is_located(tmp_path):
    rows = [{"source": "a", "target": "b"}] * 150 + [{"source": "a", "target": 3}]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(UserError, match=r"Row 151 .* int in the column 'target'"):
        list(PairSource(files=[path]).pairs())


def test_contradictory_options_are_refused(tmp_path):
    parallel = write_parallel(tmp_path, "a\n", "b\n")
    table = write_jsonl(tmp_path / "a.jsonl", ROWS)
    text = parallel["source_files"][0]
    cases = [
        ({}, "none of them was given"),
        ({"files": [table], "dataset_name": "x"}, "more than one was given"),
        ({"files": [table], **parallel}, "more than one was given"),
        ({"files": str(table)}, "files must be a list"),
        ({"columns": "author", "files": [table]}, "columns must be a list"),
        ({"dataset_name": str(table)}, "Give files with --train_file"),
        ({"files": [text]}, "holds one side only"),
        ({"source_files": [text]}, "sources were given without files of targets"),
        ({"target_files": [text]}, "targets were given without files of sources"),
        ({"source_files": [text], "target_files": [text]}, "given for both sides"),
        ({"source_files": [text], "target_files": [table]}, "Parallel files are plain text"),
        ({**parallel, "source_files": [text, text]}, "2 source files and 1 target files"),
        ({**parallel, "group_column": "author"}, "have no columns"),
        ({"files": [tmp_path / "b.jsonl"]}, "Did you mean"),
    ]
    for options, message in cases:
        with pytest.raises(UserError, match=message):
            PairSource(**options).check()
