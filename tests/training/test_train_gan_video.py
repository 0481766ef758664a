"""`genmodels train gan` on clips: every way of conditioning, every loss, pictures, mistakes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hf_genmodels.errors import UserError
from hf_genmodels.hub.loading import load_model
from hf_genmodels.training import train_gan
from hf_genmodels.training.train_judge import main as train_judge
from tests import runs

FRAMES = runs.TINY_CLIPS["num_frames"]
WAYS = {
    "class": {"label_column": "label", "model__conditioning": "class"},
    "attributes": {"attribute_columns": ["is_left", "is_top"]},
    "text": {
        "text_column": "caption",
        "loss__agreement_weight": 1,
        "loss__masked_token_weight": 1,
        "loss__reconstruction_weight": 1,
        "loss__matching_penalty": 0.1,
        "loss__paired_weight": 1,
        "loss__frames_judged": 2,
        "model__video_frame_step": 2,
    },
    "classifier": {
        "label_column": "label",
        "model__conditioning": "class",
        "model__discriminator_conditioning": "classifier",
        "loss__augment": ["color", "translation", "cutout"],
        "loss__consistency_weight": 1,
    },
    "gradient penalty": {
        "model__conditioning": "none",
        "loss__adversarial": "wasserstein",
        "loss__penalty": "interpolated",
        "model__architecture": "dcgan",
        "model__spectral_norm": "true",
    },
    "residual": {
        "model__conditioning": "none",
        "loss__adversarial": "hinge",
        "loss__penalty": "divergence",
        "model__architecture": "resnet",
    },
}


def main(arguments: list[str]) -> None:
    runs.forget_accelerator()
    train_gan.main(arguments)


def train(data: Path, output: Path, **options):
    command = runs.tiny_clips(data, output_dir=output, **({"max_steps": 2} | options))
    main(command[2:])
    return output


def losses(output: Path):
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "d_loss" in line]


@pytest.mark.parametrize("way", WAYS)
def test_clips_are_learned_in_every_way_and_published(way: str, image_table: Path, tmp_path: Path):
    output = train(image_table, tmp_path / "run", **WAYS[way])
    for line in losses(output):
        values = [value for name, value in line.items() if name[:2] in ("d_", "g_")]
        assert np.isfinite(values).all()
    generator = load_model(output)
    assert generator.config.num_frames == FRAMES
    discriminator = load_model(output / "discriminator")
    assert discriminator.video is not None


def test_strips_and_moving_grids_are_drawn(image_table: Path, tmp_path: Path):
    options = {"label_column": "label", "grid__columns": 3, "eval_every": 1, "publish": "last"}
    report = train(image_table, tmp_path / "run", **options) / "report"
    strip = Image.open(report / "grid.png")
    assert strip.width > FRAMES * 64
    for name in ("clips.webp", "real_clips.webp"):
        assert Image.open(report / name).n_frames == FRAMES
    assert (report / "real.png").is_file()
    assert Image.open(report / "progress.webp").n_frames == 2


@pytest.mark.parametrize("way", ["text", "class"])
def test_a_judge_says_how_often_what_and_where_are_right(
    way: str, image_table: Path, tmp_path: Path
):
    sprites = ["--num_frames", str(FRAMES), "--sprite_size", "8", "--image_size", "16"]
    sizes = ["--width", "4", "--feature_dim", "4", "--max_steps", "2", "--label_column", "label"]
    judge = tmp_path / "judge"
    train_judge(["--train_file", str(image_table), "--output_dir", str(judge), *sprites, *sizes])
    options = {"judge__features": judge, "judge__num_samples": 16, "model__conditioning": way}
    output = train(image_table, tmp_path / "run", label_column="label", **options)
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    measured = lines[-1]
    assert measured["eval_fid"] > 0
    assert 0 <= measured["eval_class_accuracy"] <= 1
    assert ("eval_direction_accuracy" in measured) == (way == "text")


def test_a_trained_model_is_trained_on(image_table: Path, tmp_path: Path):
    first = train(image_table, tmp_path / "first", label_column="label")
    options = {"label_column": "label", "model_name_or_path": first, "optim__lr": 1e-9}
    again = train(image_table, tmp_path / "again", **options)
    expected, found = load_model(first).state_dict(), load_model(again).state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=1e-5)
    with pytest.raises(UserError, match="draws 4 frames, and --num_frames is 5"):
        train(image_table, tmp_path / "other", **(options | {"num_frames": 5}))


def test_what_cannot_draw_clips_is_refused_before_any_work(image_table: Path, tmp_path: Path):
    with pytest.raises(UserError, match="architecture=mlp draws single images"):
        train(image_table, tmp_path / "run", model__architecture="mlp")
    with pytest.raises(UserError, match="video_downsampling=3"):
        train(image_table, tmp_path / "run", model__video_downsampling=3)
    assert not (tmp_path / "run").exists()


def test_a_dry_run_counts_clips(image_table: Path, tmp_path: Path, capsys):
    train(image_table, tmp_path / "run", label_column="label", dry_run="true")
    assert "clips           114 of 16 x 16 x 1, text" in capsys.readouterr().out


def test_the_preset_trains_on_bundled_images(tmp_path: Path):
    few = ["--max_train_images", "60", "--max_steps", "1", "--judge.features", "none"]
    output = tmp_path / "run"
    main(["--config", "video-sprites", "--output_dir", str(output), *few, "--grid.columns", "1"])
    assert np.isfinite(losses(output)[0]["d_loss"])
    clip = Image.open(output / "report" / "clips.webp")
    assert clip.n_frames == load_model(output).config.num_frames == 16
