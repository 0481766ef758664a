"""Language models that draw in Hub format: what is published, found by pipelines, and verified."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, pipeline

from hf_genmodels.auto import code_files_for, kind_of, tasks_of
from hf_genmodels.errors import UserError
from hf_genmodels.hub.folder import processor_classes, publish_folder, published_files
from hf_genmodels.hub.loading import load_image_processor_if_any, load_model, model_kind
from hf_genmodels.hub.verify import verify_folder
from hf_genmodels.models.configuration_gpt import GenGPTConfig
from hf_genmodels.models.modeling_gpt import GenGPTForCausalLM
from tests.hub import generators
from tests.hub.painters import painter

TASKS = ["text-to-image", "image-completion", "image-super-resolution", "image-to-caption"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published model. Not to be changed."""
    return painter().publish(tmp_path_factory.mktemp("pixels") / "toy")


def test_what_is_published_is_whole_and_nothing_else_is_listed(folder: Path) -> None:
    listed = [path.as_posix() for path in published_files(folder)]

    expected = {"preprocessor_config.json", "pipeline_pixels.py", "token_steps.py"}
    assert {"config.json", "model.safetensors", "tokenizer.json", *expected} <= set(listed)
    on_disk = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert on_disk == set(listed)


def test_config_json_names_every_pipeline_that_the_model_was_trained_for(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())

    assert sorted(config["custom_pipelines"]) == sorted(TASKS)
    assert {entry["pt"][0] for entry in config["custom_pipelines"].values()} == {
        "AutoModelForCausalLM"
    }
    small = painter(sizes=[4], caption_token_id=None).model.config
    assert [task.name for task in tasks_of(small)] == [*TASKS[:2], "text-generation"]


def test_a_model_of_texts_is_what_it_was() -> None:
    config = GenGPTConfig()

    assert kind_of(config) == "language model"
    assert [task.name for task in tasks_of(config)] == ["text-generation"]
    names = {file.stem for file in code_files_for(config)}
    assert not names & {"pipeline_pixels", "image_processing_pixels", "pixel_sampling"}


def test_a_folder_says_what_it_holds_and_loads(folder: Path) -> None:
    toy = painter()

    assert model_kind(folder) == "pixel model"
    processor = load_image_processor_if_any(folder)
    assert processor is not None
    assert processor.palette == toy.processor.palette
    assert AutoImageProcessor.from_pretrained(folder).palette == toy.processor.palette
    model = load_model(folder)
    for name, value in toy.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.parametrize("trust_remote_code", [None, True])
def test_auto_processor_gives_the_palette_and_auto_tokenizer_the_tokenizer(
    folder: Path, trust_remote_code: bool | None
) -> None:
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=trust_remote_code)

    assert type(processor).__name__ == "GenPixelsImageProcessor"
    assert processor.palette == painter().processor.palette
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    assert tokenizer.get_vocab() == painter().tokenizer.get_vocab()
    text = pipeline("text-generation", model=str(folder), trust_remote_code=trust_remote_code)
    assert text.tokenizer.get_vocab() == tokenizer.get_vocab()


def test_auto_processor_gives_the_tokenizer_of_a_model_of_texts(tmp_path: Path) -> None:
    toy = painter()
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = GenGPTForCausalLM(GenGPTConfig(vocab_size=len(toy.tokenizer), **sizes))
    publish_folder(model, toy.tokenizer, tmp_path / "texts")

    loaded = AutoProcessor.from_pretrained(tmp_path / "texts")

    assert loaded.get_vocab() == toy.tokenizer.get_vocab()


def test_a_folder_that_names_no_auto_processor_is_verified_by_auto_image_processor(
    folder: Path, tmp_path: Path
) -> None:
    earlier = Path(shutil.copytree(folder, tmp_path / "earlier"))
    file = earlier / "preprocessor_config.json"
    fields = json.loads(file.read_text())
    assert processor_classes(earlier) == ["AutoImageProcessor", "AutoProcessor"]
    del fields["auto_map"]["AutoProcessor"]
    file.write_text(json.dumps(fields))

    assert processor_classes(earlier) == ["AutoImageProcessor"]


@pytest.mark.timeout(300)
def test_all_pipelines_work_in_a_clean_process_without_the_package(folder: Path) -> None:
    report = verify_folder(folder, load_model(folder))

    processors = ["AutoImageProcessor", "AutoProcessor"]
    loaded = ["AutoConfig", "AutoTokenizer", *processors, "AutoModel"]
    pipelines = [f"{task} pipeline" for task in TASKS]
    assert list(report.steps) == [*loaded, "AutoModelForCausalLM", *pipelines]
    assert report.warnings == ()
    drawn = [line for line in report.generated.splitlines() if line.startswith("L (4, 4) ")]
    assert len(drawn) == 6


@pytest.mark.timeout(300)
def test_code_that_draws_something_else_is_found(tmp_path: Path) -> None:
    place = painter().publish(tmp_path / "toy")
    code = place / "pixel_sampling.py"
    text = code.read_text()
    assert "logits = logits / settings.temperature" in text
    code.write_text(text.replace("logits / settings.temperature", "logits * 0"))

    with pytest.raises(UserError, match="draws other images"):
        verify_folder(place)


def test_pipelines_of_one_name_are_those_of_the_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: object) -> str:
        raise AssertionError("code of the folder was about to run")

    monkeypatch.setattr("builtins.input", ask)
    gan, tokenizer = generators.text_generator()
    publish_folder(gan, tokenizer, tmp_path / "gan")

    pipes = [
        pipeline("text-to-image", model=str(place), device="cpu")
        for place in (folder, tmp_path / "gan")
    ]

    assert [type(pipe).__name__ for pipe in pipes] == [
        "TextToPixelsPipeline",
        "TextToImagePipeline",
    ]
    for pipe in pipes:
        assert type(pipe).__module__.startswith("hf_genmodels.models.")
        assert isinstance(pipe("red heart", seed=0)[0], Image.Image)
    for task in TASKS[1:]:
        found = pipeline(task, model=str(folder), device="cpu")(Image.new("L", (4, 4)))
        assert len(found) == 1


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{" * 100_000,
        '{"palette": "red"}',
        '{"palette": [[0], [1e400]]}',
        '{"palette": [[0], [null]]}',
        '{"palette": {"a": 1}, "image_sizes": [8]}',
        '{"image_sizes": 7}',
        '{"image_sizes": ["x"]}',
    ],
)
def test_a_damaged_image_processor_is_one_clear_error(folder: Path, tmp_path: Path, content: str):
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    (damaged / "preprocessor_config.json").write_text(content)
    with pytest.raises(UserError):
        load_image_processor_if_any(damaged)


def test_code_that_the_image_processor_names_is_not_run(folder: Path, tmp_path: Path):
    evil = tmp_path / "evil"
    shutil.copytree(folder, evil)
    file = evil / "preprocessor_config.json"
    auto_map = {"auto_map": {"AutoImageProcessor": "evil.Processor"}}
    file.write_text(json.dumps(json.loads(file.read_text()) | auto_map))
    (evil / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    load_image_processor_if_any(evil)
    AutoImageProcessor.from_pretrained(evil)
    assert not (tmp_path / "ran").exists()
