"""`genmodels generate` with a GAN: grids, files, ways between images, and words for mistakes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_genmodels.errors import UserError
from hf_genmodels.hub.folder import publish_folder
from hf_genmodels.hub.loading import load_model
from hf_genmodels.inference.image_files import file_name
from hf_genmodels.inference.interpolation import draw_way
from hf_genmodels.models.pipeline_conditional_image import ClassToImagePipeline
from hf_genmodels.training.generate import main
from tests.hub import generators


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish_folder(generators.generator(), None, tmp_path_factory.mktemp("gan") / "toy")


@pytest.fixture(scope="module")
def text_gan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, tokenizer = generators.text_generator()
    return publish_folder(model, tokenizer, tmp_path_factory.mktemp("text_gan") / "toy")


@pytest.fixture(scope="module")
def plain_gan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = generators.generator(conditioning="none", num_channels=3)
    return publish_folder(model, None, tmp_path_factory.mktemp("plain_gan") / "toy")


def run(*arguments: object) -> None:
    main([str(argument) for argument in arguments])


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_a_grid_of_one_label_is_square_and_repeats_with_its_seed(gan: Path, tmp_path: Path) -> None:
    common = ("--label", "Bag", "--num_images", 9, "--truncation", "0.8")
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(gan, *common, "--seed", seed, "--grid", tmp_path / f"{name}.png")

    first, again, other = (pixels(tmp_path / f"{name}.png") for name in "abc")
    assert first.shape[0] == first.shape[1]
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_without_a_label_all_are_drawn_and_the_seed_is_told(
    gan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(gan, "--num_images", 2, "--output", tmp_path / "out", "--grid", tmp_path / "grid.png")

    said = capsys.readouterr().out
    seed = int(said.split("--seed ")[1])
    assert "wrote 6 images" in said
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [
        f"00001_T-shirt_top_seed{seed}.png",
        f"00002_T-shirt_top_seed{seed + 1}.png",
        f"00003_Ankle_boot_seed{seed}.png",
        f"00004_Ankle_boot_seed{seed + 1}.png",
        f"00005_Bag_seed{seed}.png",
        f"00006_Bag_seed{seed + 1}.png",
    ]
    run(gan, "Bag", "--num_images", 1, "--seed", seed + 1, "--output", tmp_path / "again")
    [alone] = (tmp_path / "again").iterdir()
    difference = pixels(alone).astype(int) - pixels(tmp_path / "out" / names[5])
    assert abs(difference).max() <= 1


def test_names_numbers_and_words_behind_the_folder_are_labels(gan: Path, tmp_path: Path) -> None:
    run(gan, "Bag", "1", "--num_images", 1, "--seed", 0, "--output", tmp_path / "out")

    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["00001_Bag_seed0.png", "00002_1_seed0.png"]


def test_attributes_between_commas_are_drawn_together(tmp_path: Path) -> None:
    model = generators.generator(conditioning="attributes")
    folder = publish_folder(model, None, tmp_path / "toy")

    run(
        folder,
        "--label",
        "Bag, Ankle boot",
        "--seed",
        5,
        "--num_images",
        1,
        "--output",
        tmp_path / "o",
    )

    [found] = (tmp_path / "o").iterdir()
    [expected] = ClassToImagePipeline(model=model, device="cpu")(["Bag", "Ankle boot"], seed=5)
    assert np.array_equal(pixels(found), np.asarray(expected))


def test_texts_come_from_the_command_line_or_a_file(text_gan: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red heart\n\na cat\n", encoding="utf-8")
    common = ("--seed", 3, "--num_images", 2)
    run(text_gan, "a red heart", "a cat", *common, "--grid", tmp_path / "a.png")
    run(text_gan, "--file", prompts, *common, "--grid", tmp_path / "b.png")

    assert np.array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png"))


def test_a_prompt_that_is_cut_is_told_once(
    text_gan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], recwarn: object
) -> None:
    words = "many words about a red heart"
    run(text_gan, words, "a cat", "--num_images", 2, "--grid", tmp_path / "a.png")

    said = capsys.readouterr().err
    assert said.count("longer than the 16 tokens") == 1
    assert said.startswith(f"note: {words!r}: ")
    assert not list(recwarn)  # type: ignore[call-overload]


def test_untrusted_words_reach_neither_the_terminal_nor_the_path(
    text_gan: Path, gan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b[2J../../etc/\x00x\n\u202eabc"
    run(text_gan, evil, "--num_images", 1, "--seed", 0, "--output", tmp_path / "out")
    with pytest.raises(UserError) as error:
        run(gan, evil, "--grid", tmp_path / "x.png")

    [file] = (tmp_path / "out").iterdir()
    assert file.name == "00001_2J_etc_x_abc_seed0.png"
    assert str(error.value).isprintable()
    assert "\x1b" not in capsys.readouterr().out


def test_the_name_of_a_file_is_short_and_keeps_letters() -> None:
    assert file_name(7, "", 3) == "00007_seed3.png"
    assert file_name(7, "心 / ..", 3) == "00007_心_seed3.png"
    assert len(file_name(7, "x" * 1000, 3)) < 64


def test_between_labels_the_ends_are_the_labels(gan: Path) -> None:
    pipe = ClassToImagePipeline(model=load_model(gan), device="cpu")

    frames = draw_way(pipe, [("Bag", "Ankle boot")], [(4, 4)], 5)

    assert frames.shape == (1, 5, 1, 8, 8)
    for place, label in ((0, "Bag"), (-1, "Ankle boot")):
        difference = frames[0, place, 0].astype(int) - np.asarray(pipe(label, seed=4)[0])
        assert abs(difference).max() <= 1
    steps = abs(np.diff(frames.astype(int), axis=1)).mean(axis=(2, 3, 4))
    assert (steps > 0).all()


def test_between_seeds_the_ends_are_the_seeds_and_the_noise_keeps_its_length(
    text_gan: Path, plain_gan: Path, gan: Path, tmp_path: Path
) -> None:
    pipe = ClassToImagePipeline(model=load_model(plain_gan), device="cpu")
    frames = draw_way(pipe, [(None, None)], [(1, 2)], 3)
    for place, seed in ((0, 1), (-1, 2)):
        expected = np.asarray(pipe(seed=seed)[0]).transpose(2, 0, 1).astype(int)
        assert abs(frames[0, place] - expected).max() <= 1

    for folder, words in ((plain_gan, ()), (gan, ("--label", "Bag")), (text_gan, ("a cat",))):
        run(folder, *words, "--interpolate", 1, 2, "--grid", tmp_path / "way.png")
        assert pixels(tmp_path / "way.png").shape[1] > 8 * 8


@pytest.mark.parametrize("suffix", ["png", "gif", "webp"])
def test_ways_are_pictures_or_animations(
    gan: Path, text_gan: Path, tmp_path: Path, suffix: str
) -> None:
    grid = tmp_path / f"way.{suffix}"
    for folder, ends in ((gan, ("Bag", "1")), (text_gan, ("a cat", "a much longer dog"))):
        run(folder, "--interpolate", *ends, "--grid", grid, "--frames", 4, "--num_images", 2)

        with Image.open(grid) as picture:
            assert getattr(picture, "n_frames", 1) == (1 if suffix == "png" else 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--label", "Bga", "--grid", "x.png"], "'Bga' cannot be drawn.*Did you mean 'Bag'"),
        (["--label", "7", "--grid", "x.png"], "ids go from 0 to 2"),
        (["--label", "Bag"], "Say where the images shall go: --grid FILE.png or --output FOLDER"),
        (["--grid", "x.jpg"], r"extension '\.jpg' is not known. Choose from: \.png"),
        (["--grid", "x.gif"], "Choose from: .png"),
        (["--grid", "nowhere/x.png"], "there is no folder nowhere"),
        (["--num_images", "0", "--grid", "x.png"], "--num_images is 0. It must be at least 1"),
        (["--num_images", "9999", "--grid", "x.png"], "--grid would hold 29,997 images"),
        (["--truncation", "0", "--grid", "x.png"], r"--truncation is 0.0. It must lie in \(0, 1\]"),
        (["--truncation", "1.5", "--grid", "x.png"], "--truncation is 1.5"),
        (["--seed", "-4", "--grid", "x.png"], "seed is -4"),
        (
            ["--temperature", "1", "--grid", "x.png"],
            "--temperature has no meaning here.*--truncation",
        ),
        (["--n_best", "3", "--grid", "x.png"], "--n_best has no meaning here.*--num_images"),
        (["--file", "x.txt", "--grid", "x.png"], "--file has no meaning here.*--label"),
        (["--int8", "--grid", "x.png"], "--int8 has no meaning here"),
        (["--interpolate", "Bag", "--grid", "x.png"], "1 were given"),
        (["--interpolate", "Bag", "Bga", "--grid", "x.png"], "Did you mean 'Bag'"),
        (["--interpolate", "Bag", "1", "--output", "out"], "--interpolate writes to --grid"),
        (["--label", "Bag", "--interpolate", "a", "b", "--grid", "x.png"], "whole numbers"),
        (["--frames", "3", "--grid", "x.png"], "--frames counts the pictures of --interpolate"),
        (["--frames", "1", "--interpolate", "Bag", "1", "--grid", "x.png"], "--frames is 1"),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(
    gan: Path, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UserError, match=message):
        run(gan, *arguments)

    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_in_use_is_left_alone(gan: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(UserError, match="is not empty"):
        run(gan, "--output", tmp_path)
    with pytest.raises(UserError, match="is a file"):
        run(gan, "--output", tmp_path / "notes.txt")
    with pytest.raises(UserError, match="has the name of a file"):
        run(gan, "--output", tmp_path / "drawn.png")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_models_of_other_kinds_refuse_the_flags_of_images(
    translator: Path, text_gan: Path, plain_gan: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"--num_images has no meaning here.*texts"):
        run(translator, "to be", "--num_images", 3)
    with pytest.raises(UserError, match=r"--label has no meaning here.*behind the folder"):
        run(text_gan, "--label", "Bag", "--grid", tmp_path / "x.png")
    with pytest.raises(UserError, match="draws texts: write one behind the folder"):
        run(text_gan, "--grid", tmp_path / "x.png")
    with pytest.raises(UserError, match=r"'' cannot be drawn.*empty"):
        run(text_gan, "", "a", "--grid", tmp_path / "x.png")
    with pytest.raises(UserError, match="draws without labels, and 'Bag' was given"):
        run(plain_gan, "Bag", "--grid", tmp_path / "x.png")
