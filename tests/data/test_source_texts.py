"""Texts that a model is to read."""

from __future__ import annotations

import csv
import json

import pytest

from hf_genmodels.data.source_texts import SourceTexts
from hf_genmodels.errors import UserError

TEXTS = ["The river.", "", "Éva said: «come in»", "  17 boats "]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "lines.txt").write_text("\ufeff" + "\r\n".join(TEXTS), encoding="utf-8")
    rows = [{"n": 1, "source": text, "other": "x", "nested": {"en": text}} for text in TEXTS]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["source", "other"])
        writer.writeheader()
        writer.writerows({"source": text, "other": "x"} for text in TEXTS)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lines.txt", {}),
        ("rows.jsonl", {}),
        ("rows.csv", {}),
        ("rows.jsonl", {"column": "nested.en"}),
    ],
)
def test_every_format_gives_the_same_texts_in_order(folder, name, options):
    source = SourceTexts(folder / name, **options)
    source.check()

    assert list(source) == [text.strip() for text in TEXTS]
    assert list(source) == list(source)


def test_the_digest_depends_on_content_and_column_and_not_on_the_name(folder):
    digest = SourceTexts(folder / "rows.jsonl").digest()

    (folder / "rows.jsonl").rename(folder / "renamed.jsonl")
    assert SourceTexts(folder / "renamed.jsonl").digest() == digest
    assert SourceTexts(folder / "renamed.jsonl", column="other").digest() != digest
    (folder / "renamed.jsonl").write_text('{"source": "changed"}\n')
    assert SourceTexts(folder / "renamed.jsonl").digest() != digest
    assert SourceTexts(texts=["a b"]).digest() != SourceTexts(texts=["a", "b"]).digest()


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ('{"a": "x", "b": "y"}', {}, "Name it with --source_column"),
        ('{"a": "x", "b": "y"}', {"column": "c"}, "no column 'c'.*a, b"),
        ('{"a": "x"}', {"language": "en"}, "neither a column 'translation'"),
        ('{"a": 3}', {"column": "a"}, "not text"),
        ("", {}, "is empty"),
    ],
)
def test_tables_that_cannot_be_read_are_refused_with_what_is_there(
    tmp_path, content, options, message
):
    (tmp_path / "rows.jsonl").write_text(content)
    with pytest.raises(UserError, match=message):
        SourceTexts(tmp_path / "rows.jsonl", **options).check()


def test_a_number_further_in_is_named_by_its_row(tmp_path):
    lines = ['{"source": "x"}'] * 200 + ['{"source": 3}']
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    source = SourceTexts(tmp_path / "rows.jsonl")
    source.check()

    with pytest.raises(UserError, match=r"Row 201 .* holds int"):
        list(source)


def test_one_file_at_a_time(folder):
    with pytest.raises(UserError, match="means 2 files"):
        SourceTexts(folder / "rows.*").check()
