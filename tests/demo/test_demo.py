"""The demo without a browser: its pages are built, and their functions are called as gradio does."""

from __future__ import annotations

import os
import socket
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hf_genmodels.demo.app import build_app, open_gradio, with_notices
from hf_genmodels.demo.checks import MOST_CHARACTERS, check_seed
from hf_genmodels.demo.command import DemoOptions, main, start
from hf_genmodels.demo.drawing import MOST_IMAGES, Painter
from hf_genmodels.demo.rewriting import Rewriter
from hf_genmodels.demo.writing import Writer
from hf_genmodels.errors import UserError
from hf_genmodels.models.configuration_judge import GenJudgeConfig
from hf_genmodels.models.modeling_judge import GenJudgeForImageClassification
from hf_genmodels.plain_text import printable

gradio = pytest.importorskip("gradio")
HIDDEN = "\x1b[31m\u202e"
NUMBERS = {
    "writer": ("Once", 8, 0.8, 0.9, 1),
    "translator": ("Good morning.", 2, 2),
    "class": (1, 2, 0, 1.0),
    "attributes": ([0, 2], 2, 0, 1.0),
    "text": ("a red heart", 2, 0, 1.0),
    "none": (2, 0, 1.0),
    "pixels": ("a red heart", 2, 0, 1.0, 2.0, 1.0),
}


@pytest.fixture(scope="module")
def writer(models: dict[str, Path]) -> Writer:
    return Writer(models["writer"])


@pytest.fixture(scope="module")
def rewriter(models: dict[str, Path]) -> Rewriter:
    return Rewriter(models["translator"])


@pytest.fixture(scope="module")
def painters(models: dict[str, Path]) -> dict[str, Painter]:
    return {kind: Painter(models[kind]) for kind in ("class", "attributes", "text", "none")}


def function_of(app: Any) -> Any:
    (function,) = [
        one.fn for one in app.fns.values() if one.api_name in ("write", "rewrite", "draw")
    ]
    return function


@pytest.mark.parametrize("kind", NUMBERS)
def test_every_family_has_a_page_whose_button_works(kind: str, models: dict[str, Path]):
    app = build_app(models[kind])
    made = function_of(app)(*NUMBERS[kind])
    if kind == "writer":
        assert list(made)[-1][0].startswith("Once")
    elif kind == "translator":
        assert made[0] == made[1][0][1]
        assert made[2].size[0] > 100
    else:
        side = 4 if kind == "pixels" else 8
        assert [image.size for image, _ in made] == [(side, side)] * 2
    assert not app.analytics_enabled
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"


def test_the_text_is_what_the_model_writes_and_grows_on_the_page(writer: Writer):
    shown = list(writer.write("Once upon", 12, 0, 1, 5))
    ids = writer.tokenizer("Once upon", return_tensors="pt")["input_ids"]
    rows = writer.model.generate(ids, max_new_tokens=12, do_sample=False, top_p=1.0, top_k=50)
    expected = writer.tokenizer.decode(rows[0, ids.shape[1] :], skip_special_tokens=True)
    assert shown[-1] == (f"Once upon{expected}", "")
    assert len(shown) > 2
    assert [len(text) for text, _ in shown] == sorted(len(text) for text, _ in shown)


def test_equal_seeds_write_and_draw_the_same(writer: Writer, painters: dict[str, Painter]):
    texts = [list(writer.write("Once", 12, 1.5, 1, seed))[-1] for seed in (3, 3, 4)]
    assert texts[0] == texts[1] != texts[2]
    assert texts[0][1] == "seed 3"
    assert 0 <= check_seed(None) != check_seed(-1) >= 0
    images = [painters["class"].draw(1, 3, seed)[0] for seed in (3, 3, 4)]
    pixels = [np.stack([np.asarray(image) for image, _ in one]) for one in images]
    assert (pixels[0] == pixels[1]).all()
    assert (pixels[0][1:] == pixels[2][:2]).all()
    assert [words for _, words in images[0]] == ["seed 3", "seed 4", "seed 5"]


def test_who_leaves_in_the_middle_stops_the_model(writer: Writer, monkeypatch: pytest.MonkeyPatch):
    before = threading.active_count()
    steps: list[int] = []
    forward = writer.model.forward
    monkeypatch.setattr(
        writer.model, "forward", lambda *a, **k: steps.append(1) or forward(*a, **k)
    )
    stream = writer.write(" ", 60, 1.0, 1, 0)
    next(stream)
    stream.close()
    for thread in threading.enumerate():
        if thread.daemon and thread.name.endswith("(compute)"):
            thread.join(10)
    assert threading.active_count() <= before
    assert len(steps) < 60


def test_a_failure_of_the_model_reaches_the_page(writer: Writer, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(writer.model, "forward", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(writer.write("Once", 8, 1, 1, 0))


def test_results_and_scores_are_those_of_the_pipeline(rewriter: Rewriter, models: dict[str, Path]):
    import transformers

    pipe = transformers.pipeline("text-to-text", model=str(models["translator"]), device="cpu")
    expected = pipe("Good morning.", num_beams=4, num_return_sequences=3)
    made = rewriter.rewrite("Good morning.", 4, 3)
    assert [score for score, _ in made.rows] == pytest.approx([one["score"] for one in expected])
    assert made.rows[0][1] == printable(expected[0]["generated_text"].strip())
    assert made.note == ""
    assert "was cut" in rewriter.rewrite("x" * 100, 1).note


def test_images_are_those_of_the_pipeline(painters: dict[str, Painter]):
    for kind, given in (("class", 2), ("attributes", [1]), ("text", "a cat"), ("none", None)):
        pipe = painters[kind].pipe
        expected = pipe(given, num_images=2, seed=7, truncation=0.5)
        made, note = painters[kind].draw(given, 2, 7, 0.5)
        assert note == ""
        assert [image.tobytes() for image, _ in made] == [one.tobytes() for one in expected]
    assert "were cut" in painters["text"].draw("x" * 100, 1)[1]
    assert painters["class"].labels == [("T-shirt/top", 0), ("Ankle boot", 1), ("Bag", 2)]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("x" * 63, 9999, 1, 1, 0), "Length"),
        (("x" * 64, 8, 1, 1, 0), "Shorten the prompt"),
        (("x" * (MOST_CHARACTERS + 1), 8, 1, 1, 0), "more than 10,000"),
        (("x", 8, float("nan"), 1, 0), "Temperature"),
        (("x", 8, 1, 0, 0), "Top-p"),
        (("x", 8.5, 1, 1, 0), "whole number"),
        (("x", None, 1, 1, 0), "Length"),
        (("x", 8, 1, 1, 2**40), "Seed"),
        (("x", 8, 1, 1, -2), "Seed"),
        ((["x"], 8, 1, 1, 0), "a text was expected"),
        (("\ud800", 8, 1, 1, 0), "half a character"),
    ],
)
def test_a_writer_says_what_cannot_work(given: tuple[Any, ...], words: str, writer: Writer):
    with pytest.raises(UserError, match=words):
        list(writer.write(*given))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("  ", 1, 1), "Text is empty"),
        (("x", 2, 3), "Raise the beams"),
        (("x", 17, 1), "Beams"),
        (("x", 1, 0), "Results"),
    ],
)
def test_a_rewriter_says_what_cannot_work(given: Any, words: str, rewriter: Rewriter):
    with pytest.raises(UserError, match=words):
        rewriter.rewrite(*given)


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        ("class", (None, 1, 0, 1), "No label"),
        ("class", ("Bagg", 1, 0, 1), "Did you mean 'Bag'"),
        ("class", (3, 1, 0, 1), "no label 3"),
        ("class", (1, MOST_IMAGES + 1, 0, 1), "Images"),
        ("class", (1, 1, 0, 0), "Truncation"),
        ("attributes", ([7], 1, 0, 1), "no label 7"),
        ("text", ("", 1, 0, 1), "Prompt is empty"),
        ("text", ("x" * 1001, 1, 0, 1), "more than 1,000"),
        ("none", ("Bag", 1, 0, 1), "without a label"),
    ],
)
def test_a_painter_says_what_cannot_work(kind, given, words, painters: dict[str, Painter]):
    with pytest.raises(UserError, match=words):
        painters[kind].draw(*given)


def test_a_mistake_becomes_a_notice_without_markup_or_control_characters():
    def fail() -> None:
        raise UserError(f"<b>{HIDDEN}")

    with pytest.raises(gradio.Error) as notice:
        with_notices(gradio, fail)()
    assert notice.value.message == "&lt;b&gt;\ufffd[31m\ufffd"
    assert not notice.value.print_exception


def test_control_characters_are_shown_harmlessly(
    writer: Writer, painters: dict[str, Painter], monkeypatch: pytest.MonkeyPatch
):
    for text, _ in writer.write(HIDDEN, 4, 1, 1, 0):
        assert text.startswith("\ufffd[31m\ufffd")
        assert all(c.isprintable() or c in "\n\t" for c in text)
    monkeypatch.setattr(painters["class"].config, "id2label", {0: HIDDEN})
    assert painters["class"].labels == [("\ufffd[31m\ufffd", 0)]


def test_it_listens_on_this_machine_only_and_a_taken_port_is_told(models: dict[str, Path]):
    app = build_app(models["none"])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen at 127.0.0.1:{port}"):
            start(app, DemoOptions("x", port=port))
    try:
        address = start(app, DemoOptions("x", port=port))
        assert address.startswith(f"http://127.0.0.1:{port}")
        assert app.server.config.host == "127.0.0.1"
        with urllib.request.urlopen(address, timeout=20) as page:
            text = page.read().decode()
        assert "none" in text
        for stranger in ("fonts.googleapis", "cdnjs", "jsdelivr", "unpkg", "huggingface.co"):
            assert stranger not in text
    finally:
        app.close(verbose=False)
    assert app.share is False


def test_a_judge_and_a_missing_library_are_told(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    torch.manual_seed(0)
    judge = GenJudgeForImageClassification(GenJudgeConfig())
    judge.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="it generates nothing"):
        build_app(tmp_path)
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"hf_genmodels\[demo\]"):
        main([str(models["writer"])])
    with pytest.raises(UserError, match=r"hf_genmodels\[demo\]"):
        open_gradio()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--port", "70000"], "--port"),
        (["--hub_model_id", "a/b"], "--space"),
        (["--prot", "1"], "Did you mean"),
    ],
)
def test_options_that_cannot_work_are_told(line: list[str], words: str):
    with pytest.raises(UserError, match=words):
        main(["folder", *line])
