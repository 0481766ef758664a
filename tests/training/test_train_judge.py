"""`genmodels train judge`: from a folder of images to a published classifier."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from hf_genmodels.cli import main as genmodels
from hf_genmodels.errors import UserError
from hf_genmodels.hub.loading import load_model
from hf_genmodels.training.train_judge import main

TINY = [
    "--image_size",
    "16",
    "--width",
    "4",
    "--feature_dim",
    "8",
    "--max_steps",
    "4",
    "--batch_size",
    "16",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Grey images of two classes, bright on the left or on the right."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for name, half in (("left", slice(0, 8)), ("right", slice(8, 16))):
        (root / name).mkdir()
        for number in range(20):
            pixels = generator.integers(80, size=(16, 16), dtype=np.uint8)
            pixels[:, half] += 150
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def test_a_folder_of_images_becomes_a_published_judge(folder, tmp_path, capsys):
    output = tmp_path / "judge"

    main(["--train_file", str(folder), "--output_dir", str(output), *TINY])

    out = capsys.readouterr().out
    assert "images: 38" in out
    assert "of held-out images are classified rightly" in out
    config = json.loads((output / "config.json").read_text())
    assert list(config["id2label"].values()) == ["left", "right"]
    assert config["auto_map"]["AutoModelForImageClassification"].startswith("modeling_judge.")
    card = (output / "README.md").read_text()
    assert 'from_pretrained("judge", trust_remote_code=True)' in card
    assert "left, right" in card
    assert {"modeling_judge.py", "judge_text.py", "config_checks.py"} <= {
        file.name for file in output.iterdir()
    }
    judge = load_model(output)
    assert judge.features(torch.zeros(1, 1, 16, 16)).shape == (1, 8)


def test_the_same_command_gives_the_same_weights(folder, tmp_path):
    first, second = (tmp_path / name for name in "ab")
    for output in (first, second):
        genmodels(
            ["train", "judge", "--train_file", str(folder), "--output_dir", str(output), *TINY]
        )

    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


def test_a_judge_is_replaced_on_request_only(folder, tmp_path):
    output = tmp_path / "judge"
    command = ["--train_file", str(folder), "--output_dir", str(output), *TINY]
    main(command)
    before = (output / "model.safetensors").read_bytes()

    with pytest.raises(UserError, match="is not empty"):
        main(command)
    main([*command, "--overwrite", "true", "--task", "rotation"])

    assert (output / "model.safetensors").read_bytes() != before
    assert load_model(output).config.task == "rotation"
    assert "quarters" in (output / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--train_file"),
        (["--train_file", "IMAGES"], "--output_dir FOLDER"),
        (["--train_file", "missing", "--output_dir", "OUT"], "missing"),
        (["--train_file", "IMAGES", "--output_dir", "OUT", "--task", "matching"], "metadata.jsonl"),
        (["--train_file", "IMAGES", "--output_dir", "OUT", "--task", "clas"], "task"),
        (["--train_file", "IMAGES", "--output_dir", "OUT", "--max_steps", "0"], "--max_steps is 0"),
        (["--train_file", "IMAGES", "--output_dir", "OUT", "--learning_rate", "2"], "(0, 1)"),
        (["--train_file", "IMAGES", "--output_dir", "OUT", "--device", "quantum"], "quantum"),
        (["--train_file", "IMAGES", "--output_dir", "OUT", "--steps", "5"], "--steps"),
        (
            [
                "--train_file",
                "IMAGES",
                "--output_dir",
                "OUT",
                "--backbone",
                "lenet",
                "--image_size",
                "64",
            ],
            "Choose --backbone resnet",
        ),
    ],
)
def test_mistakes_are_one_clear_error_and_write_nothing(folder, tmp_path, arguments, message):
    places = {"IMAGES": str(folder), "OUT": str(tmp_path / "out")}

    with pytest.raises(UserError) as caught:
        main([places.get(argument, argument) for argument in arguments])

    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()
