"""The demo of a language model that draws, its functions being called as gradio does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_genmodels.demo.app import build_app
from hf_genmodels.demo.pixels import PixelPainter
from hf_genmodels.errors import UserError
from tests.hub.painters import painter

gradio = pytest.importorskip("gradio")
HOW = (2, 1, 1.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def toy(models: dict[str, Path]) -> PixelPainter:
    return PixelPainter(models["pixels"])


def names_of(app: object) -> set[str]:
    return {function.api_name for function in app.fns.values()}


def test_there_is_a_tab_for_each_thing_that_the_model_was_trained_for(
    models: dict[str, Path], tmp_path: Path
) -> None:
    less = painter(sizes=[4], labels=["cat"], caption_token_id=None).publish(tmp_path / "less")

    assert names_of(build_app(models["pixels"])) == {"draw", "complete", "enlarge", "describe"}
    assert names_of(build_app(less)) == {"draw", "complete"}


def test_pictures_are_drawn_completed_enlarged_and_described(toy: PixelPainter) -> None:
    picture = Image.new("RGB", (8, 8), "white")

    drawn, note = toy.draw("red heart", *HOW)
    completed, _ = toy.complete(picture, "", 0.5, *HOW)
    enlarged, _ = toy.enlarge(picture, *HOW)
    text, _ = toy.describe(picture, "red")

    assert [seed for _, seed in drawn] == ["seed 1", "seed 2"]
    assert note == ""
    assert all((np.asarray(image)[:2] == 255).all() for image, _ in completed)
    assert [image.size for image, _ in enlarged] == [(4, 4)] * 2
    assert text.startswith("red")
    assert "was cut" in toy.draw("heart " * 50, *HOW)[1]


def test_mistakes_are_told(toy: PixelPainter) -> None:
    for function, inputs, said in (
        (toy.draw, ("x" * 2000, *HOW), "Prompt has 2,000 characters"),
        (toy.draw, ("cat", 1000, *HOW[1:]), "Pictures is 1000"),
        (toy.draw, ("cat", *HOW[:2], 5.0, 1.0, 1.0), "Temperature is 5.0"),
        (toy.complete, (None, "", 0.5, *HOW), "No picture was chosen"),
        (toy.complete, (Image.new("L", (4, 4)), "", 7, *HOW), "Keep is 7"),
        (toy.enlarge, (None, *HOW), "No picture was chosen"),
    ):
        with pytest.raises(UserError, match=said):
            function(*inputs)
