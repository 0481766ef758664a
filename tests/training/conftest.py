"""One small text for all runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import runs


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_GENMODELS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="session")
def train_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of 44 windows of 32 tokens: 22 steps of two windows are an epoch."""
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
    return runs.write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def data_of(train_file: Path, pair_file: Path, image_table: Path) -> dict[str, Path]:
    """What each family is trained on."""
    return {
        "lm": train_file, "seq2seq": pair_file, "gan": image_table, "pixels": image_table,
        "lm-adversarial": train_file, "clips": image_table,
    }  # fmt: skip


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
