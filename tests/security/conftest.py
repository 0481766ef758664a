"""One tiny folder of each family, and bounds of memory and time for whoever reads it."""

from __future__ import annotations

import resource
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from hf_genmodels.errors import UserError
from hf_genmodels.hub.folder import publish_folder
from hf_genmodels.models.configuration_judge import GenJudgeConfig
from hf_genmodels.models.modeling_judge import GenJudgeForImageClassification
from tests import runs
from tests.hub import generators
from tests.hub.conftest import byte_tokenizer, random_model
from tests.training.conftest import no_clean_process

__all__ = ["no_clean_process"]
FAMILIES = ("lm", "seq2seq", "recurrent", "gan", "judge")
LIMIT = 1 << 30
SECONDS = 30


def published(family: str, folder: Path) -> Path:
    torch.manual_seed(0)
    if family == "lm":
        tokenizer = byte_tokenizer()
        return publish_folder(random_model(tokenizer), tokenizer, folder)
    if family in ("seq2seq", "recurrent"):
        return runs.random_translator(folder, recurrent=family == "recurrent")
    if family == "judge":
        config = GenJudgeConfig(image_size=16, num_channels=1, num_labels=3)
        GenJudgeForImageClassification(config).save_pretrained(folder)
        return folder
    companions = {"discriminator": generators.discriminator()}
    return publish_folder(generators.generator(), None, folder, companions=companions)


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Published folders. Not to be changed."""
    base = tmp_path_factory.mktemp("families")
    return {family: published(family, base / family) for family in FAMILIES}


@pytest.fixture
def copy_of(families: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    def copy(family: str) -> Path:
        return shutil.copytree(families[family], tmp_path / family)

    return copy


@contextmanager
def bounded(megabytes: int = LIMIT >> 20, seconds: float = SECONDS) -> Iterator[None]:
    """Give a block so much more memory than there is, and so much time."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + (megabytes << 20)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    began = time.monotonic()
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert time.monotonic() - began < seconds


def refusal(function: Callable[..., object], *arguments: object) -> str:
    """The words of a UserError, which is not the end of the memory in other clothes."""
    with bounded(), pytest.raises(UserError) as caught:
        function(*arguments)
    words = str(caught.value)
    assert "memory" not in words.lower(), words
    assert "alloc" not in words.lower(), words
    return words


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Short runs with averages and two checkpoints. Not to be changed."""
    base = tmp_path_factory.mktemp("runs")
    (base / "text.txt").write_text(runs.text(60), encoding="utf-8")
    commands = {
        "lm": lambda out: runs.tiny_run(base / "text.txt", output_dir=out, **SHORT),
        "gan": lambda out: runs.tiny_gan("sample:fashion_mnist/train.parquet", output_dir=out, **SHORT, max_train_images=40),
    }  # fmt: skip

    def run(family: str) -> Path:
        out = base / family
        if not out.exists():
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("HF_GENMODELS_CACHE", str(base / "cache"))
                patch.setenv("HF_HUB_OFFLINE", "1")
                runs.run(commands[family](out), base / f"{family}.log").succeeded()
        return out

    return run


SHORT = {"max_steps": 3, "save_every": 2, "ema_decay": 0.5, "keep_checkpoints": 2}
