"""Data that were made to do harm: names that lead out, bombs of pixels, lines and brackets."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hf_genmodels.config.images import ImageDataConfig
from hf_genmodels.data import text_files
from hf_genmodels.data.image_decoding import BrokenImageError, open_image
from hf_genmodels.data.image_sources import image_sources
from hf_genmodels.engine.logging import logger, setup_logging
from hf_genmodels.errors import UserError
from hf_genmodels.hub.card_text import block, cell, inline
from hf_genmodels.plain_text import printable
from tests.security.conftest import bounded, refusal

HOSTILE = "a\x1b]0;title\x07\x1b[2Jb\u202ec\u2066d\x00\x9b31me\r\b"


@pytest.mark.parametrize(
    "name",
    [
        "../secret.png",
        "a/../../secret.png",
        "..\\secret.png",
        "link/../../secret.png",
        "/etc/passwd",
        "https://example.org/a.png",
        "file:///etc/passwd",
        "s3://bucket/a.png",
    ],
)
@pytest.mark.parametrize("table", ["metadata.jsonl", "metadata.csv", "names.jsonl"])
def test_a_table_names_files_of_its_own_folder(name: str, table: str, tmp_path: Path):
    folder = tmp_path / "images"
    (folder / "a").mkdir(parents=True)
    (folder / "link").symlink_to(folder / "a")
    for file in (folder / "b.png", tmp_path / "secret.png"):
        Image.new("L", (8, 8)).save(file)
    rows = [{"file_name": "b.png", "text": "x"}, {"file_name": name, "text": "y"}]
    if table.endswith("csv"):
        text = "file_name,text\n" + "".join(f"{row['file_name']},x\n" for row in rows)
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / table).write_text(text)
    given = folder if table.startswith("metadata") else folder / table
    words = refusal(image_sources, ImageDataConfig(train_file=[str(given)]))
    assert "file_name" in words


def png(width: int, height: int, content: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = content or zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def animation() -> bytes:
    frames = [Image.fromarray(np.full((8, 8), n, np.uint8)) for n in range(200)]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    return stream.getvalue()


BROKEN = {
    "a bomb": png(60_000, 60_000),
    "a large bomb": png(2_000_000_000, 2_000_000_000),
    "no size": png(0, 0),
    "data of another size": png(4000, 4000),
    "a TIFF of 4 billion columns": b"II*\0\x08\0\0\0\x02\0"
    + struct.pack("<HHII", 256, 4, 1, (1 << 32) - 1)
    + struct.pack("<HHII", 257, 4, 1, (1 << 32) - 1)
    + b"\0" * 4,
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%true) run\n",
    "a script": b"<svg xmlns='http://www.w3.org/2000/svg'><script>x</script></svg>",
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_image_that_is_too_large_or_none(case: str):
    with bounded(400, 10), pytest.raises(BrokenImageError) as caught:
        open_image(BROKEN[case])
    assert "memory" not in str(caught.value).lower()


def test_of_an_animation_the_first_image_is_taken():
    with bounded(200, 10):
        assert open_image(animation()).size == (8, 8)


def test_a_line_without_an_end_is_not_read_to_it(tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    with file.open("wb") as stream:
        stream.write(b'{"text": "')
        for _ in range(200):
            stream.write(b"x" * (1 << 20))
    with bounded(400, 20), pytest.raises(UserError, match="characters"):
        list(text_files.rows(file, "json"))
    with bounded(400, 20), pytest.raises(UserError, match="characters"):
        list(text_files.rows(file, "csv"))


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, '{"text": ' + "[" * 100_000])
def test_rows_that_are_nested_deeply(text: str, tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    file.write_text(text)
    assert str(file) in refusal(lambda: list(text_files.rows(file, "json")))


@pytest.mark.parametrize("stored", [b"[" * 100_000, b"{", b"[]", b'{"info": 3}'])
def test_a_parquet_file_with_damaged_types(stored: bytes, tmp_path: Path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    stream = io.BytesIO()
    Image.new("L", (8, 8)).save(stream, "PNG")
    table = arrow.table({"image": [stream.getvalue()] * 3})
    parquet.write_table(
        table.replace_schema_metadata({b"huggingface": stored}), tmp_path / "a.parquet"
    )
    refusal(image_sources, ImageDataConfig(train_file=[str(tmp_path / "a.parquet")]))


@pytest.mark.parametrize("shown", [printable, inline, cell, block])
def test_text_does_nothing_to_terminals_and_pages(shown: Any):
    text = shown(f"{HOSTILE}<script>alert(1)</script>")
    assert all(c.isprintable() or c in "\n\t" for c in text)
    if shown in (inline, cell):
        assert "\\<script\\>" in text


def test_joined_emoji_and_words_stay_whole():
    for text in ("👩\u200d🚀", "\u0646\u200c\u062e", "é\n\tb"):
        assert printable(text) == text


def test_logs_and_errors_show_no_control_characters(capfd, monkeypatch):
    from hf_genmodels import cli

    handlers, level, goes_on = logger.handlers, logger.level, logger.propagate
    try:
        setup_logging(is_main=True)
        logger.warning("a sample: %s", HOSTILE)
    finally:
        logger.handlers, logger.propagate = handlers, goes_on
        logger.setLevel(level)

    def fail() -> None:
        raise UserError(f"There is no file {HOSTILE}.")

    with pytest.raises(SystemExit):
        cli.run_command(fail)
    error = capfd.readouterr().err
    assert "a sample: a" in error
    assert "There is no file a" in error
    assert all(c.isprintable() or c == "\n" for c in error), ascii(error)
