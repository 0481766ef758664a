"""Folders and tables of small images, for the tests of image data."""

from __future__ import annotations

import csv
import io
import json

import pytest
from PIL import Image

RED = (255, 0, 0)


def png(colour=RED, size=(10, 8)):
    stream = io.BytesIO()
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


def fill(folder, files):
    """Write files: name -> bytes or text."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def lines(rows):
    return "\n".join(json.dumps(row) for row in rows)


def commas(rows):
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def shades(number):
    return {f"{i}.png": png(i) for i in range(number)}


def first_pixels(images):
    """The first value of each image."""
    return images.images[:, 0, 0, 0].tolist()


def parquet(path, rows, features):
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_list(rows, features=datasets.Features(features))
    dataset.to_parquet(str(path))
    return path
