"""`genmodels train lm` on images: what it leaves, resumes, fine-tuning, mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForCausalLM, AutoTokenizer, pipeline

from hf_genmodels.errors import UserError
from hf_genmodels.hub.folder import published_files
from hf_genmodels.hub.loading import load_image_processor_if_any
from hf_genmodels.training import train_lm
from tests import runs


def command(images: Path, output_dir: Path | None = None, **options: Any) -> list[str]:
    """A small run that draws at its end."""
    drawing = {"sample__max_new_tokens": None}
    return runs.tiny_pixels(images, output_dir=output_dir, **(drawing | options))


def main(arguments: list[str]) -> None:
    runs.forget_accelerator()
    train_lm.main(arguments)


@pytest.fixture(scope="module")
def trained(image_table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps, verified in a clean process. Not to be changed."""
    output = tmp_path_factory.mktemp("runs") / "trained"
    main(command(image_table, output)[2:])
    return output


@pytest.mark.verified
def test_a_run_leaves_a_folder_that_loads_without_the_package(trained: Path):
    processor = AutoImageProcessor.from_pretrained(trained)
    tokenizer = AutoTokenizer.from_pretrained(trained)
    model = AutoModelForCausalLM.from_pretrained(trained)
    config = model.config
    assert config.image_sizes == processor.image_sizes == [8, 4]
    assert processor.labels == ["inside", "left"]
    assert config.palette_size == len(processor.palette) == 6
    names = tokenizer.convert_ids_to_tokens([*config.image_token_ids, config.caption_token_id])
    assert names == ["<|image|>", "<|small_image|>", "<|caption|>"]
    assert tokenizer.convert_ids_to_tokens(config.palette_token_id) == "<|c0|>"
    files = {str(file) for file in published_files(trained)}
    assert {"preprocessor_config.json", "image_processing_pixels.py", "picture_fitting.py"} <= files
    auto_map = json.loads((trained / "preprocessor_config.json").read_text())["auto_map"]
    name = "image_processing_pixels.GenPixelsImageProcessor"
    assert auto_map == {"AutoImageProcessor": name, "AutoProcessor": name}


def test_a_run_measures_every_task_and_draws_pictures(trained: Path):
    results = json.loads((trained / "report" / "results.json").read_text())
    bits = results["eval_loss"] / np.log(2)
    assert results["eval_bits_per_dimension"] == pytest.approx(bits)
    assert results["eval_tokens"] == 4 * 64
    assert results["eval_super_resolution_tokens"] == 4 * 64
    assert results["eval_caption_loss"] > 0
    assert results["prompts"] == ["inside", "left"]
    for name in ("grid.png", "super_resolution.png"):
        with Image.open(trained / "report" / name) as picture:
            assert picture.width > 64


def test_the_card_shows_how_to_draw_and_what_was_drawn(trained: Path):
    card = (trained / "README.md").read_text()
    assert "report/grid.png" in card
    assert "text-to-image" in card
    assert "bits per dimension" in card
    assert "6 colours" in card


def test_text_generation_of_transformers_draws_pixels(trained: Path):
    write = pipeline("text-generation", model=str(trained), device="cpu")
    made = write("left<|image|>", max_new_tokens=5, min_new_tokens=5, return_tensors=True)
    assert len(made[0]["generated_token_ids"]) >= 6


def test_a_run_does_not_go_on_with_other_tasks(trained: Path):
    with pytest.raises(UserError, match=r"pixels\.caption"):
        main(["--resume", str(trained), "--max_steps", "6", "--pixels.caption", "0.9"])


def test_a_model_of_pictures_is_trained_further(trained: Path, image_table: Path, tmp_path: Path):
    output = tmp_path / "further"
    options = {"model_name_or_path": trained, "max_steps": 1, "sample__max_new_tokens": 0}
    main(command(image_table, output, **options)[2:])
    theirs, ours = load_image_processor_if_any(trained), load_image_processor_if_any(output)
    assert ours.palette == theirs.palette
    before = AutoModelForCausalLM.from_pretrained(trained).state_dict()
    after = AutoModelForCausalLM.from_pretrained(output).state_dict()
    assert before.keys() == after.keys()
    assert not all(torch.equal(before[name], after[name]) for name in before)


def test_captions_are_prompts(image_table: Path, tmp_path: Path):
    output = tmp_path / "captions"
    options = {"text_column": "caption", "pixels__label_column": None, "max_steps": 1}
    main(command(image_table, output, **options, max_eval_windows=2)[2:])
    prompts = json.loads((output / "report" / "results.json").read_text())["prompts"]
    assert all(prompt.startswith("a bar ") for prompt in prompts)
    assert load_image_processor_if_any(output).labels == []


def test_colour_images_are_drawn_in_colours(tmp_path: Path):
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(8):
            pixels = random.integers(256, size=(8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    output = tmp_path / "run"
    options = {"max_steps": 1, "pixels__label_column": None}
    main(command(tmp_path / "images", output, **options)[2:])
    results = json.loads((output / "report" / "results.json").read_text())
    bits = results["eval_loss"] / np.log(2) / 3
    assert results["eval_bits_per_dimension"] == pytest.approx(bits)


def test_a_dry_run_says_the_size_of_the_model(image_table: Path, capsys):
    main([*command(image_table)[2:], "--dry_run"])
    assert "image_size: 8" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "content", "message"),
    [
        (["a.png", "b.png"], b"broken", r"images of .* can be used: .*a\.png is no image"),
        (["a.png"], None, "too few to hold some out"),
    ],
)
def test_a_dry_run_refuses_images_that_the_run_would_refuse(
    tmp_path: Path, names: list[str], content: bytes | None, message: str
):
    for name in names:
        Image.new("L", (8, 8)).save(tmp_path / name)
        if content is not None:
            (tmp_path / name).write_bytes(content)
    options = {"pixels__label_column": None}
    with pytest.raises(UserError, match=message):
        main([*command(tmp_path, **options)[2:], "--dry_run"])


def test_columns_that_are_not_found_are_asked_for_by_flags_of_pixels(tmp_path: Path):
    table = tmp_path / "table.jsonl"
    table.write_text('{"name": "a", "number": 1}\n' * 8)
    with pytest.raises(UserError, match=r"Name it with --pixels\.image_column"):
        main([*command(table, pixels__label_column=None)[2:], "--dry_run"])


def test_long_captions_are_cut_for_the_pictures_of_a_validation_too(tmp_path: Path):
    rows = []
    for number in range(16):
        Image.new("L", (8, 8), 16 * number).save(tmp_path / f"{number}.png")
        rows.append({"file_name": f"{number}.png", "text": f"{number} " + "long words " * 20})
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    output = tmp_path / "run"
    options = {"text_column": "text", "pixels__label_column": None, "max_steps": 1}
    main(command(tmp_path, output, **options, max_eval_windows=2)[2:])
    assert (output / "report" / "grid.png").is_file()


@pytest.mark.parametrize("given", ["folder", "file"])
def test_pictures_that_are_given_as_texts_are_told_how_to_be_learned(tmp_path: Path, given: str):
    (tmp_path / "pictures" / "shoe").mkdir(parents=True)
    file = tmp_path / "pictures" / "shoe" / "a.png"
    Image.new("L", (8, 8)).save(file)
    data = tmp_path / "pictures" if given == "folder" else file
    with pytest.raises(UserError, match=r"--pixels\.image_size 16, or .* --config pixels-fashion"):
        main(runs.tiny_run(data, output_dir=tmp_path / "run")[2:])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"is a folder") as caught:
        main(runs.tiny_run(tmp_path / "empty", output_dir=tmp_path / "run")[2:])
    assert "pixels" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixels__image_size": 64}, r"image_size is 64.*8 to 32"),
        ({"pixels__small_size": 8}, r"small_size is 8.*below --pixels.image_size 8"),
        ({"streaming": "true"}, r"--streaming reads texts"),
        (
            {"pixels__draw": 0, "pixels__caption": 0, "pixels__super_resolution": 0},
            "must be above 0",
        ),
        ({"pixels__prompt_dropout": 1}, "prompt_dropout is 1"),
        ({"pixels__hidden_pixels": 1.5}, "hidden_pixels is 1.5"),
        ({"pixels__label_column": "labels"}, "labels"),
        ({"pixels__palette_size": 1}, "palette_size"),
    ],
)
def test_what_cannot_work_is_said_before_any_work(
    image_table: Path, tmp_path: Path, options: dict[str, Any], message: str
):
    output = tmp_path / "run"
    with pytest.raises(UserError, match=f"(?s){message}"):
        main(command(image_table, output, **options)[2:])
    assert not output.exists()


def test_a_model_of_texts_is_not_trained_on_pictures(
    image_table: Path, train_file: Path, tmp_path: Path
):
    texts = tmp_path / "texts"
    main(runs.tiny_run(train_file, output_dir=texts, max_steps=1)[2:])
    with pytest.raises(UserError, match="is a model of texts"):
        main(command(image_table, tmp_path / "run", model_name_or_path=texts)[2:])


def test_a_full_disk_costs_the_pictures_and_not_the_run(
    image_table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hf_genmodels.engine.pixels.draw_grid", full)
    output = tmp_path / "run"
    main(command(image_table, output, max_steps=1, max_eval_windows=2)[2:])
    assert not (output / "report" / "grid.png").exists()
    assert (output / "model.safetensors").is_file()
