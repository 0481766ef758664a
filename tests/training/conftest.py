"""One small text for all runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import runs


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_GENMODELS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="session")
def train_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of some 23 windows of 32 tokens: about 11 steps of two windows are an epoch."""
    path = tmp_path_factory.mktemp("text") / "train.txt"
    path.write_text(runs.text(60), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def validation_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "validation.txt"
    path.write_text(runs.text(90)[-1500:], encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def pair_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty short pairs: about twelve batches of 80 tokens are an epoch."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text(runs.pairs(60), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def image_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty grey pictures of bars: what is lit is class, attributes and caption."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    rows = []
    for number in range(60):
        pixels = random.integers(60, size=(16, 16), dtype=np.uint8)
        is_left, is_top = number % 2, number // 2 % 2
        pixels[:, 4 - 4 * is_left :][:, :8] += 120
        pixels[8 - 8 * is_top :][:8] += 60
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
        words = f"a bar {'left' if is_left else 'inside'} and {'above' if is_top else 'below'}"
        rows.append({"file_name": f"{number:02d}.png", "label": ["inside", "left"][is_left],
                     "is_left": is_left, "is_top": is_top, "caption": words})  # fmt: skip
    table = folder / "images.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return table


@pytest.fixture(scope="session")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random model of 32 positions that writes up to 12 bytes. Not to be changed."""
    return runs.random_translator(tmp_path_factory.mktemp("translator") / "toy")


@pytest.fixture(autouse=True)
def no_clean_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """Leave out the check in a clean interpreter, except in tests that ask for it."""
    if not request.node.get_closest_marker("verified"):
        from hf_genmodels.engine import publishing

        monkeypatch.setattr(publishing, "verify_folder", lambda _folder: "not verified")
