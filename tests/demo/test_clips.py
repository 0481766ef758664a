"""The demo of a GAN of clips: animations in the app, and in a Space without this package."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from hf_genmodels.demo.app import build_app
from hf_genmodels.demo.drawing import Painter
from hf_genmodels.demo.space import write_space
from hf_genmodels.errors import UserError
from hf_genmodels.hub.folder import publish_folder
from tests.hub import generators

gradio = pytest.importorskip("gradio")
FRAMES = generators.CLIPS["num_frames"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, tokenizer = generators.text_generator(**generators.CLIPS)
    return publish_folder(model, tokenizer, tmp_path_factory.mktemp("demo") / "clips")


def frames_of(file: str) -> int:
    with Image.open(file) as picture:
        assert picture.size == (128, 128)
        return int(picture.n_frames)


def test_clips_are_files_that_move_with_their_seeds(folder: Path) -> None:
    painter = Painter(folder)
    made, note = painter.draw("a red heart", 2, 7)
    assert note == ""
    assert [words for _, words in made] == ["seed 7", "seed 8"]
    assert [frames_of(file) for file, _ in made] == [FRAMES, FRAMES]
    with pytest.raises(UserError, match="Clips"):
        painter.draw("a red heart", 0)


def test_files_of_earlier_calls_do_not_pile_up(folder: Path) -> None:
    painter = Painter(folder)
    calls = [Path(painter.draw("a red heart", 1, seed)[0][0][0]) for seed in range(4)]
    assert [file.exists() for file in calls] == [False, False, True, True]


def test_the_app_draws_clips(folder: Path) -> None:
    app = build_app(folder)
    (function,) = [one.fn for one in app.fns.values() if one.api_name == "draw"]
    made = function("a red heart", 2, 0, 1.0)
    assert [frames_of(file) for file, _ in made] == [FRAMES, FRAMES]


def test_a_space_shows_clips(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = write_space(folder, tmp_path / "space", "ada/toy-clips")
    source = (space / "app.py").read_text(encoding="utf-8")
    assert 'pipeline("text-to-video"' in source
    assert "hf_genmodels" not in source
    for command in (["check", "--select", "E,F,I,UP,B"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--line-length=100", str(space / "app.py")],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.setenv("MODEL_ID", str(folder))
    draw = runpy.run_path(str(space / "app.py"))["draw"]
    assert [frames_of(file) for file in draw("a red heart", 2, 0, 1.0)] == [FRAMES, FRAMES]
    with pytest.raises(gradio.Error):
        draw("a red heart", 2, 0, 2.0)
