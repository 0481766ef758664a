"""`genmodels train judge`, `evaluate` and `generate` with clips: sprites that move, and what draws them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hf_genmodels.config.images import ImageDataConfig
from hf_genmodels.data.images import load_image_data
from hf_genmodels.errors import UserError
from hf_genmodels.hub.folder import publish_folder
from hf_genmodels.hub.loading import load_model
from hf_genmodels.inference import image_scores
from hf_genmodels.inference.video_measuring import frame_data, frames_of
from hf_genmodels.training.evaluate import EvaluateOptions, evaluate, main
from hf_genmodels.training.generate import main as generate
from hf_genmodels.training.train_judge import main as train_judge
from tests.hub import generators

NAMES = ["full", "hollow"]
SPRITES = {"num_frames": 4, "sprite_size": 5, "image_size": 8, "clips_per_image": 4}
TINY = {**SPRITES, "width": 4, "feature_dim": 6, "max_steps": 5}
FRAMES = generators.CLIPS["num_frames"]


def flags(options: dict[str, Any]) -> list[str]:
    return [str(word) for name, value in options.items() for word in (f"--{name}", value)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Squares, full or hollow, in the folders of their classes."""
    root = tmp_path_factory.mktemp("sprites")
    random = np.random.default_rng(0)
    for name in NAMES:
        (root / name).mkdir()
        for number in range(20):
            pixels = np.zeros((5, 5), np.uint8)
            pixels[1:4, 1:4] = random.integers(120, 256)
            pixels[2, 2] *= name == "full"
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def judge(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("judge") / "judge"
    train_judge(["--train_file", str(folder), "--output_dir", str(output), *flags(TINY)])
    return output


def published(place: Path, of_run: dict[str, Any] | None = None, **fields: Any) -> Path:
    """Publish a generator of clips with random weights, as if a run had trained it on sprites."""
    if fields:
        model, tokenizer = generators.generator(**generators.CLIPS, **fields), None
    else:
        model, tokenizer = generators.text_generator(**generators.CLIPS)
    publish_folder(model, tokenizer, place)
    options = {**SPRITES, "seed": 1, **(of_run or {})}
    lines = "".join(f"{name}: {json.dumps(value)}\n" for name, value in options.items())
    (place / "config.yaml").write_text(lines)
    return place


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return published(tmp_path / "gan")


def measured(model: Path, folder: Path, **others: Any) -> dict[str, Any]:
    settings = {"num_samples": 40, "sweep": False, **others}
    return evaluate(EvaluateOptions(str(model), [str(folder)], **settings))


def test_a_judge_of_sprites_is_published_and_says_what_it_knows(judge: Path) -> None:
    model = load_model(judge)
    assert (model.config.task, model.config.num_frames) == ("factors", FRAMES)
    assert model.config.factors == {"class": NAMES, "direction": ["left", "right", "up", "down"]}
    card = (judge / "README.md").read_text()
    assert "A judge of clips" in card
    assert "torch.rand(1, 4, 1, 8, 8)" in card
    assert "direction: left" in card
    assert (judge / "judge_backbones.py").is_file()


def test_clips_are_measured_in_every_way(model: Path, folder: Path, judge: Path, capsys) -> None:
    output = model.parent / "results.json"
    main(
        [
            str(model),
            "--file",
            str(folder),
            "--judge",
            str(judge),
            "--num_samples",
            "70",
            "--sweep",
            "false",
            "--output",
            str(output),
        ]
    )

    results, shown = json.loads(output.read_text()), capsys.readouterr().out
    assert results["unit"] == "clips"
    for name in ("fvd", "precision", "class_accuracy", "direction_accuracy", "frame_fid"):
        assert f"{name}_70" in results, (name, results.get("left_out"))
        assert any(key.startswith(name) for key in results["real"]), name
    for name in ("change", "jerk", "frozen"):
        assert f"motion_{name}_70" in results
        assert f"motion_{name}_70" in results["real"]
    assert "fid_70" not in results
    low, high = (results[f"direction_accuracy_70_{end}"] for end in ("low", "high"))
    assert low <= results["direction_accuracy_70"] <= high
    assert set(results["by_class"]["class_accuracy"]) == set(NAMES)
    for line in ("Fréchet video distance", "accuracy of direction", "jerk between frames"):
        assert line in shown
    assert "70 generated and 152 real clips" in shown  # of 160, eight are held out


def test_pictures_move_and_stand_on_the_card(model: Path, folder: Path, judge: Path) -> None:
    results = measured(model, folder, judge=str(judge))

    assert results["pictures"] == ["samples.webp", "strips.png", "nearest.png"]
    card = (model / "README.md").read_text()
    assert "| score | generated | real | clips |" in card
    for name in results["pictures"]:
        assert f"](report/{name})" in card
        with Image.open(model / "report" / name) as picture:
            assert min(picture.size) > 64
            assert getattr(picture, "n_frames", 1) == (FRAMES if name.endswith("webp") else 1)


def test_a_perfect_generator_reaches_what_real_clips_reach(
    model: Path, folder: Path, judge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Copier(image_scores.ImageDrawer):
        """Draws the training clips of which the captions were asked for."""

        def __init__(self, *parts: Any):
            super().__init__(*parts)
            self.data = parts[2]

        def conditions(self, images: Any, chosen: np.ndarray) -> dict[str, torch.Tensor]:
            return {"place": torch.from_numpy(np.asarray(chosen))}

        def draw(self, conditions: Any, *_: Any, **__: Any) -> np.ndarray:
            return self.data.train.images[conditions["place"].numpy()]

    monkeypatch.setattr(image_scores, "ImageDrawer", Copier)
    results = measured(model, folder, judge=str(judge), num_samples=152)

    assert results["fvd_152"] == pytest.approx(0, abs=1e-6)
    assert results["motion_change_152"] == pytest.approx(1)
    assert results["motion_jerk_152"] == pytest.approx(1)
    assert results["motion_frozen_152"] == 0
    for name in ("class", "direction"):
        assert results[f"{name}_accuracy_152"] == results["real"][f"{name}_accuracy_152"]


def test_what_was_not_asked_for_is_no_accuracy(tmp_path: Path, folder: Path, judge: Path) -> None:
    fields = {"conditioning": "class", "id2label": dict(enumerate(NAMES))}
    of_class = published(tmp_path / "classes", **fields)
    results = measured(of_class, folder, judge=str(judge))
    assert "class_accuracy_40" in results
    assert "direction_accuracy_40" not in results

    plain = published(tmp_path / "plain", conditioning="none", id2label=None)
    results = measured(plain, folder, judge=str(judge))
    assert "class_accuracy_40" not in results
    assert "fvd_40" in results


def test_without_a_judge_one_is_trained_and_found_again(model: Path, folder: Path) -> None:
    (model / "config.yaml").write_text(
        (model / "config.yaml").read_text() + "judge:\n  max_steps: 3\n"
    )
    first, second = (measured(model, folder, num_samples=70) for _ in range(2))
    assert first["fvd_70"] == second["fvd_70"]
    assert "a judge (r2plus1d, class of" in first["features"]


def test_a_judge_of_images_is_refused(model: Path, folder: Path, tmp_path: Path) -> None:
    still = tmp_path / "still"
    tiny = {"image_size": 8, "width": 4, "feature_dim": 6, "max_steps": 2}
    train_judge(["--train_file", str(folder), "--output_dir", str(still), *flags(tiny)])
    with pytest.raises(UserError, match="looks at 1 frames, and the model draws 4"):
        measured(model, folder, judge=str(still))


def test_single_frames_are_judged_by_what_they_show(folder: Path) -> None:
    data = load_image_data(ImageDataConfig(train_file=[str(folder)], **SPRITES))
    stills = frame_data(data)
    assert (stills.kind, stills.label_names) == ("class", NAMES)
    assert stills.train.images.shape == (len(data.train), 1, 8, 8)
    assert (stills.train.labels == data.train.factors["class"]).all()
    clips = data.train.images[:6]
    frames = frames_of(clips, np.arange(6))
    for place, frame in enumerate(frames):
        assert (frame == clips[place, place % FRAMES]).all()


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.mp4"])
def test_a_prompt_becomes_a_file_that_moves(name: str, model: Path, tmp_path: Path) -> None:
    if name.endswith("mp4"):
        pytest.importorskip("av")
    generate([str(model), "full moving up", "--output", str(tmp_path / name), "--seed", "1"])

    assert (tmp_path / name).stat().st_size > 0
    if not name.endswith("mp4"):
        with Image.open(tmp_path / name) as picture:
            assert picture.size == (128, 128)
            assert picture.n_frames == FRAMES


def test_clips_become_numbered_files_and_strips(model: Path, tmp_path: Path, capsys) -> None:
    output, strips = tmp_path / "clips", tmp_path / "strips.png"
    generate(
        [
            str(model),
            "full moving up",
            "hollow moving left",
            "--num_videos",
            "2",
            "--seed",
            "3",
            "--output",
            str(output),
            "--grid",
            str(strips),
            "--frames_per_second",
            "4",
        ]
    )

    names = sorted(file.name for file in output.iterdir())
    assert names[0] == "00001_full_moving_up_seed3.webp"
    assert names[3] == "00004_hollow_moving_left_seed4.webp"
    with Image.open(output / names[0]) as clip:
        assert (clip.size, clip.n_frames) == ((8, 8), FRAMES)
        clip.load()
        assert clip.info["duration"] == 250
    with Image.open(strips) as picture:
        assert picture.width > FRAMES * 64
    assert "drew 4 strips of 4 frames" in capsys.readouterr().out


def test_several_clips_move_side_by_side(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.webp"
    generate([str(model), "full", "hollow", "--num_videos", "3", "--output", str(file)])
    with Image.open(file) as picture:
        assert picture.n_frames == FRAMES
        assert picture.width > 3 * 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["full", "--num_images", "2", "--grid", "a.png"], "The number of clips is --num_videos"),
        (["full", "--interpolate", "1", "2", "--grid", "a.png"], "--interpolate has no meaning"),
        (["full", "--num_videos", "0", "--grid", "a.png"], "must be at least 1"),
        (["full", "--frames_per_second", "0", "--grid", "a.png"], "must be above 0"),
        (["full", "--num_videos", "9999", "--output", "a.gif"], "--output FOLDER"),
        (["full"], "where the images shall go"),
    ],
)
def test_mistakes_are_told(
    arguments: list[str], message: str, model: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    with pytest.raises(UserError, match=message):
        generate([str(model), *arguments])
    assert set(tmp_path.iterdir()) == before


def test_a_model_of_images_writes_no_file_that_moves(tmp_path: Path) -> None:
    still = publish_folder(generators.generator(), None, tmp_path / "still")
    with pytest.raises(UserError, match="draws images, and this is a file for clips"):
        generate([str(still), "Bag", "--output", str(tmp_path / "a.gif")])
    with pytest.raises(UserError, match="The number of images is --num_images"):
        generate([str(still), "Bag", "--num_videos", "2", "--output", str(tmp_path / "a")])
