"""GANs in Hub format: what is published, loaded, verified, exported and said about them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from transformers import pipeline

from hf_genmodels.auto import task_of
from hf_genmodels.errors import UserError
from hf_genmodels.hub import folder as publishing
from hf_genmodels.hub.card import CardData, Metric, render_card
from hf_genmodels.hub.export import export
from hf_genmodels.hub.folder import finish_publishing, publish_folder, published_files
from hf_genmodels.hub.loading import (
    load_companion,
    load_model,
    load_tokenizer_if_any,
    model_kind,
)
from hf_genmodels.hub.verify import verify_folder
from tests.hub import generators

DISCRIMINATOR = ["discriminator/config.json", "discriminator/model.safetensors"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published pair. Not to be changed."""
    return publish_folder(
        generators.generator(),
        None,
        tmp_path_factory.mktemp("gan") / "toy",
        companions={"discriminator": generators.discriminator()},
    )


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published generator that reads texts. Not to be changed."""
    model, tokenizer = generators.text_generator()
    discriminator = generators.discriminator(**generators.text_fields(tokenizer))
    out = tmp_path_factory.mktemp("text_gan") / "toy"
    return publish_folder(model, tokenizer, out, companions={"discriminator": discriminator})


def test_what_is_published_is_whole_and_nothing_else_is_listed(folder: Path) -> None:
    listed = [path.as_posix() for path in published_files(folder)]

    assert {"config.json", "model.safetensors", "README.md", *DISCRIMINATOR} <= set(listed)
    assert "pipeline_conditional_image.py" in listed
    assert "tokenizer.json" not in listed
    on_disk = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert on_disk == set(listed)


@pytest.mark.parametrize(
    ("conditioning", "task"),
    [
        ("none", "class-to-image"),
        ("class", "class-to-image"),
        ("attributes", "class-to-image"),
        ("text", "text-to-image"),
    ],
)
def test_the_task_depends_on_what_images_are_drawn_for(conditioning: str, task: str) -> None:
    assert task_of(generators.config(conditioning=conditioning)).name == task


def test_config_json_names_the_one_pipeline_and_the_classes(
    folder: Path, text_folder: Path
) -> None:
    for place, task in ((folder, "class-to-image"), (text_folder, "text-to-image")):
        config = json.loads((place / "config.json").read_text())
        [(name, entry)] = config["custom_pipelines"].items()
        assert (name, entry["pt"]) == (task, ["AutoModel"])
        assert config["auto_map"]["AutoModel"] == "modeling_gan.GenGANGenerator"
        below = json.loads((place / "discriminator" / "config.json").read_text())
        assert below["auto_map"]["AutoModel"] == "modeling_gan.GenGANDiscriminator"


def test_a_folder_says_what_it_holds_and_loads(
    folder: Path, text_folder: Path, published: Path
) -> None:
    assert [model_kind(place) for place in (folder, text_folder)] == ["gan", "gan"]
    assert model_kind(published) == "language model"
    assert type(load_model(folder)).__name__ == "GenGANGenerator"
    assert type(load_companion(folder, "discriminator")).__name__ == "GenGANDiscriminator"
    assert load_tokenizer_if_any(folder) is None
    assert load_tokenizer_if_any(text_folder) is not None


def test_weights_come_back_to_the_last_bit(folder: Path) -> None:
    for model, expected in (
        (load_model(folder), generators.generator()),
        (load_companion(folder, "discriminator"), generators.discriminator()),
    ):
        assert model is not None
        found = {**model.state_dict(), **dict(model.named_buffers())}
        assert found.keys() == {**expected.state_dict(), **dict(expected.named_buffers())}.keys()
        for name, value in expected.state_dict().items():
            assert torch.equal(found[name], value), name


def test_a_model_without_a_companion_has_none(tmp_path: Path, published: Path) -> None:
    alone = publish_folder(generators.generator(), None, tmp_path / "alone")

    assert load_companion(alone, "discriminator") is None
    assert load_companion(published, "discriminator") is None
    with pytest.raises(ValueError, match="no companion 'critic'"):
        publish_folder(
            generators.generator(),
            None,
            tmp_path / "other",
            companions={"critic": generators.discriminator()},
        )
    assert not any((tmp_path / "other").iterdir())


def test_a_damaged_companion_is_named(folder: Path, tmp_path: Path) -> None:
    pair = {"discriminator": generators.discriminator()}
    place = publish_folder(generators.generator(), None, tmp_path / "toy", companions=pair)
    (place / "discriminator" / "model.safetensors").write_bytes(b"short")

    with pytest.raises(UserError, match=r"discriminator/model\.safetensors' are damaged"):
        load_companion(place, "discriminator")


def test_an_interrupted_publication_is_finished_with_its_companion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "toy"
    old, new = generators.discriminator(), generators.discriminator()
    publish_folder(generators.generator(), None, place, companions={"discriminator": old})
    with torch.no_grad():
        next(new.parameters()).add_(1)
    (place / "discriminator" / "model-00001-of-00002.safetensors").write_bytes(b"stale")
    with monkeypatch.context() as patch:
        patch.setattr(publishing, "_move_into_place", lambda *_: None)
        publish_folder(generators.generator(), None, place, companions={"discriminator": new})
    assert (place / ".published").is_dir()

    assert finish_publishing(place)

    loaded = load_companion(place, "discriminator")
    assert loaded is not None
    assert torch.equal(next(loaded.parameters()), next(new.parameters()))
    names = [file.name for file in (place / "discriminator").iterdir()]
    assert sorted(names) == ["config.json", "model.safetensors"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["class", "text"])
def test_it_works_in_a_clean_process_without_the_package(
    kind: str, folder: Path, text_folder: Path
) -> None:
    place = folder if kind == "class" else text_folder

    report = verify_folder(place, load_model(place))

    tokenizer = ["AutoTokenizer"] if kind == "text" else []
    task = f"{kind}-to-image pipeline"
    assert list(report.steps) == ["AutoConfig", *tokenizer, "AutoModel", "discriminator", task]
    assert (report.output, report.num_values) == ("images", 2 * 8 * 8)
    assert report.warnings == ()
    digests = report.generated.splitlines()
    assert len(set(digests)) == 2
    assert all(line.startswith("L (8, 8) ") for line in digests)


def test_code_that_draws_something_else_is_found(tmp_path: Path) -> None:
    place = publish_folder(generators.generator(), None, tmp_path / "toy")
    code = place / "pipeline_conditional_image.py"
    text = code.read_text()
    assert "pictures: list[Any] = self.model.to_pil(images)" in text
    code.write_text(text.replace("self.model.to_pil(images)", "self.model.to_pil(-images)"))

    with pytest.raises(UserError, match="draws other images"):
        verify_folder(place)


def test_export_takes_the_discriminator_and_the_pictures_along(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_genmodels.hub.verify.verify_folder", lambda *_: "not verified")

    export(folder, tmp_path / "out")

    listed = [path.as_posix() for path in published_files(tmp_path / "out")]
    assert listed == [path.as_posix() for path in published_files(folder)]


def test_it_draws_where_the_task_is_not_even_named(folder: Path) -> None:
    drawn = pipeline("class-to-image", model=str(folder), device="cpu")("Bag", num_images=2)

    assert [type(image) for image in drawn] == [Image.Image] * 2


FULL = CardData(
    name="toy",
    model_id="user/toy",
    license="mit",
    datasets=["user/clothes"],
    training_data={"images": 60_000},
    credit="Made by somebody, under the MIT licence.",
    training={"steps": 300},
    health="healthy",
    metrics=[
        Metric("fid", 12.5, "clothes", "test", num_images=5000, features="judge", real=1.25),
        Metric("precision", 0.5, "clothes", "test", num_images=5000, low=0.486, high=0.514),
    ],
    versions={"torch": "9.9"},
)


def test_the_hub_reads_the_metadata_of_a_gan() -> None:
    data = ModelCard(render_card(FULL, generators.config())).data

    assert data.library_name == "transformers"
    assert data.pipeline_tag == "unconditional-image-generation"
    assert {"gan", "gen_gan", "custom_code"} <= set(data.tags)
    fid, precision = data.eval_results
    assert (fid.metric_type, fid.metric_value) == ("fid", 12.5)
    assert fid.metric_name == "FID of 5,000 images"
    assert fid.metric_args == {"num_images": 5000, "features": "judge", "real": 1.25}
    ends = {"confidence_interval_95": [0.486, 0.514]}
    assert precision.metric_args == {"num_images": 5000, **ends}
    text = render_card(FULL, generators.config(conditioning="text"))
    assert ModelCard(text).data.pipeline_tag == "text-to-image"


def test_the_card_of_a_gan_shows_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    for name in ("grid.png", "progress.webp", "curves.png"):
        (tmp_path / "report" / name).write_bytes(b"x")

    text = render_card(FULL, generators.config(), folder=tmp_path, companions=["discriminator"])

    for expected in (
        'draw = pipeline("class-to-image", model="user/toy", trust_remote_code=True)',
        'images = draw("T-shirt/top", num_images=8, seed=0)',
        "`T-shirt/top`, `Ankle boot`, `Bag`",
        "(report/grid.png)",
        "(report/progress.webp)",
        "(report/curves.png)",
        "| FID of 5,000 images | 12.5 | not known | 1.25 | clothes (test) | judge |",
        "not FIDs of the\nInception network",
        'subfolder="discriminator"',
        "Made by somebody, under the MIT licence.",
        "healthy",
    ):
        assert expected in text
    assert "real.png" not in text


@pytest.mark.parametrize("conditioning", ["none", "class", "attributes", "text"])
def test_a_card_without_facts_has_no_empty_heading(conditioning: str) -> None:
    text = render_card(CardData("toy"), generators.config(conditioning=conditioning))

    lines = [line for line in text.split("---\n", 2)[2].splitlines() if line]
    headings = [index for index, line in enumerate(lines) if line.startswith("#")]
    assert all(not lines[index + 1].startswith("#") for index in headings)
    assert not {"## Results", "## Pictures", "## Training data"} & set(lines)
    drawn = {
        "none": "draw(num",
        "class": 'draw("T-sh',
        "attributes": 'draw(["T-sh',
        "text": 'draw("a',
    }
    assert drawn[conditioning] in text


def test_labels_cannot_write_into_the_card() -> None:
    names = {0: 'x"); import os #', 1: "`a`\n# Heading", 2: "\x1b[31mred"}

    text = render_card(CardData("toy"), generators.config(id2label=names))

    assert 'draw("x\\"); import os #", num_images' in text
    assert "\n# Heading" not in text
    assert "\x1b" not in text
