"""GANs of clips and their judges in Hub format: published, verified by a stranger, named tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hf_genmodels.auto import task_of
from hf_genmodels.cli import _dispatch as main
from hf_genmodels.errors import UserError
from hf_genmodels.hub.folder import publish_folder, published_files
from hf_genmodels.hub.judge_card import publish_judge
from hf_genmodels.hub.loading import refuse_companion
from hf_genmodels.hub.verify import verify_folder
from hf_genmodels.models.configuration_judge import GenJudgeConfig
from hf_genmodels.models.modeling_judge import GenJudgeForImageClassification
from hf_genmodels.training.evaluate import main as evaluate
from hf_genmodels.training.generate import main as generate
from tests import runs
from tests.hub import generators


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published pair that draws and judges clips of texts. Not to be changed."""
    model, tokenizer = generators.text_generator(**generators.CLIPS)
    fields = generators.CLIPS | generators.text_fields(tokenizer)
    return publish_folder(
        model,
        tokenizer,
        tmp_path_factory.mktemp("clips") / "toy",
        companions={"discriminator": generators.discriminator(**fields)},
    )


def test_the_task_tells_clips_from_images() -> None:
    for kind in ("none", "class", "attributes", "text"):
        still = task_of(generators.config(conditioning=kind)).name
        moving = task_of(generators.config(conditioning=kind, **generators.CLIPS)).name
        assert moving == still.replace("image", "video")


def test_a_folder_of_clips_holds_its_pipeline_and_its_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    [(name, entry)] = config["custom_pipelines"].items()
    assert (name, entry["impl"]) == (
        "text-to-video",
        "pipeline_conditional_video.TextToVideoPipeline",
    )
    listed = {path.as_posix() for path in published_files(folder)}
    assert {
        "gan_video.py",
        "pipeline_conditional_video.py",
        "pipeline_conditional_image.py",
        "video_files.py",
        "discriminator/model.safetensors",
    } <= listed


@pytest.mark.verified
def test_a_stranger_draws_the_same_clips(folder: Path) -> None:
    report = verify_folder(folder)

    assert report.steps[-1] == "text-to-video pipeline"
    assert "discriminator" in report.steps
    assert report.num_values == 2 * 4 * 8 * 8
    first, second = report.generated.splitlines()
    assert first.count("; ") == 3  # digests of four frames
    assert first != second


@pytest.mark.verified
def test_a_clip_that_differs_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hf_genmodels.hub import verify

    original = verify.written_by
    monkeypatch.setattr(verify, "written_by", lambda *given: original(*given)[::-1])
    with pytest.raises(UserError, match="draws other"):
        verify_folder(folder)


@pytest.mark.verified
def test_a_stranger_sees_the_same_in_clips(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = GenJudgeConfig(
        backbone="r2plus1d",
        num_frames=4,
        image_size=8,
        width=8,
        feature_dim=4,
        task="factors",
        factors={"class": ["bag", "coat"], "direction": ["left", "right"]},
        accuracy=0.9,
        factor_accuracies={"class": 0.8, "direction": 1.0},
    )
    place = publish_judge(
        GenJudgeForImageClassification(config).eval(), tmp_path / "judge", "clips"
    )

    assert verify_folder(place).num_values == 2 * 4
    card = (place / "README.md").read_text()
    assert "4 frames of 8 x 8" in card
    assert "class of 80.0 % and direction of 100.0 % of held-out clips are told rightly" in card


def test_a_discriminator_is_told_from_the_model_that_it_belongs_to(
    folder: Path, tmp_path: Path
) -> None:
    judge = folder / "discriminator"
    message = rf"is a discriminator: it generates nothing.*'{folder}'"
    for command in ([generate, "bag", "--output", str(tmp_path / "bag.gif")], [evaluate]):
        with pytest.raises(UserError, match=message):
            command[0]([str(judge), *command[1:]])
    for family in ("gan", "lm", "lm-adversarial", "seq2seq"):
        start = {"model_name_or_path": judge, "output_dir": tmp_path / "run"}
        line = runs.command_of(family, tmp_path / "none", **start)
        with pytest.raises(UserError, match=rf"--model_name_or_path {judge} {message}"):
            main(line)
    refuse_companion(folder)
    refuse_companion(None)
    refuse_companion("discriminator")


def test_options_of_another_family_are_refused_by_what_is_drawn(
    folder: Path, tmp_path: Path
) -> None:
    for options, hint in (
        (["--num_return_sequences", "2"], "The number of clips is --num_videos"),
        (["--label", "bag"], "write them behind the folder"),
        (["--greedy"], "--truncation"),
    ):
        with pytest.raises(UserError, match=f"a model that draws clips.*{hint}"):
            generate([str(folder), "bag", *options, "--output", str(tmp_path / "bag.gif")])
