"""Models as ONNX graphs."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from hf_genmodels.errors import UserError
from hf_genmodels.hub import export_onnx as module
from hf_genmodels.hub import export_report
from hf_genmodels.hub.export import export
from hf_genmodels.hub.export_onnx import export_onnx
from hf_genmodels.hub.folder import publish_folder
from tests.hub import generators
from tests.hub.conftest import MODERN, random_model
from tests.hub.translators import make_tokenizer, make_translator

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def run_readme(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the example of a README as a user would, beside the folder, and return its variables."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(folder.parent)
    (folder.parent / "example.py").write_text(code)
    return runpy.run_path(str(folder.parent / "example.py"))


def test_a_language_model_computes_the_same_with_and_without_memory(
    tokenizer, tmp_path, monkeypatch, capsys
):
    model = random_model(tokenizer, **MODERN)

    report = export_onnx(model, tokenizer, None, tmp_path / "fast")

    assert report.largest_difference < 1e-5
    assert f"{report.largest_difference:.3g}" in report.text
    found = run_readme(tmp_path / "fast", monkeypatch)
    prompt = torch.tensor([tokenizer("Once upon a time")["input_ids"]])
    expected = model.generate(prompt, do_sample=False, max_new_tokens=40)
    assert found["text"] == expected[0].tolist()[: len(found["text"])]
    assert len(found["text"]) > prompt.shape[1]
    assert capsys.readouterr().out.startswith("Once upon a time")
    assert not list(tmp_path.glob(".fast*"))


def test_an_encoder_decoder_translates_as_the_model_does(tmp_path, monkeypatch, capsys):
    fields = {"norm_position": "pre", "position_embedding": "rotary", "source_vocab_size": 264}
    model = make_translator(num_key_value_heads=2, **fields)
    source_tokenizer, target_tokenizer = make_tokenizer(5), make_tokenizer()

    report = export_onnx(model, source_tokenizer, target_tokenizer, tmp_path / "fast")

    assert report.largest_difference < 1e-4
    names = {path.name for path in (tmp_path / "fast").iterdir()}
    assert {"encoder.onnx", "decoder.onnx", "target_tokenizer", "tokenizer.json"} <= names
    found = run_readme(tmp_path / "fast", monkeypatch)
    (expected,) = export_report.translate(model, found["source"].tolist(), 1)
    assert found["target"][1 : 1 + len(expected)] == expected
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    "fields",
    [
        {"architecture": "modern", "image_size": 16},
        {"conditioning": "attributes", "num_channels": 3},
        {"conditioning": "none", "architecture": "mlp"},
        {"conditioning": "text"},
        generators.CLIPS,
        {"conditioning": "text", "num_channels": 3, **generators.CLIPS},
    ],
)
def test_a_generator_draws_the_same_images(fields, tmp_path, monkeypatch):
    model, tokenizer = generators.generator(**fields), None
    if fields.get("conditioning") == "text":
        own = {name: value for name, value in fields.items() if name != "conditioning"}
        model, tokenizer = generators.text_generator(**own)

    report = export_onnx(model, tokenizer, None, tmp_path / "fast")

    assert report.largest_difference < 1e-3
    assert "1, 2, 5 images at once; largest difference of" in report.text
    found = run_readme(tmp_path / "fast", monkeypatch)
    given: dict[str, Any] = {"latents": torch.from_numpy(found["noise"])}
    if "tokens" in found:
        given["input_ids"] = torch.from_numpy(found["tokens"])
    elif "wanted" in found:
        given["class_labels"] = torch.from_numpy(found["wanted"])
    elif model.config.conditioning == "class":
        given["class_labels"] = torch.arange(8) % 3
    expected = model.sample(8, **given)
    torch.testing.assert_close(torch.from_numpy(found["images"]), expected, rtol=0, atol=1e-3)
    file = tmp_path / ("clip.gif" if model.config.is_video else "image.png")
    with Image.open(file) as picture:
        assert getattr(picture, "n_frames", 1) == model.config.num_frames


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"cross_attention": "bidirectional"}, "cross_attention='bidirectional'"),
        ({"refinement_decoder": True}, "refinement_decoder=True"),
    ],
)
def test_what_has_no_form_in_onnx_is_refused_with_the_reason(tmp_path, fields, reason):
    with pytest.raises(UserError, match=reason):
        export_onnx(make_translator(**fields), make_tokenizer(), None, tmp_path / "fast")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_traced_is_refused_with_the_reason(tmp_path, monkeypatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise torch.onnx.errors.OnnxExporterError("no such\noperation")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(UserError, match=r"its generator cannot be traced \(no such\)"):
        export_onnx(generators.generator(), None, None, tmp_path / "fast")
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_where_the_check_fails(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_genmodels.hub.onnx_parts.IMAGE_TOLERANCE", -1.0)
    with pytest.raises(UserError, match="other images than its source: largest difference"):
        export_onnx(generators.generator(), None, None, tmp_path / "fast")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("library", module.LIBRARIES)
def test_without_a_library_the_extra_is_named(tmp_path, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=rf"'{library}'.*hf_genmodels\[export\]"):
        export_onnx(generators.generator(), None, None, tmp_path / "fast")
    assert not list(tmp_path.iterdir())


def test_the_command_takes_a_published_folder(tmp_path):
    folder = publish_folder(generators.generator(), None, tmp_path / "toy")

    report = export(folder, tmp_path / "fast", "onnx")

    assert report.format == "onnx"
    with pytest.raises(UserError, match="--overwrite"):
        export(folder, tmp_path / "fast", "onnx")
