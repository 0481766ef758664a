"""`genmodels generate` with a language model that draws."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_genmodels.config.generate import GenerateOptions
from hf_genmodels.errors import UserError
from hf_genmodels.inference.pixels import PixelDrawing
from hf_genmodels.training.generate import main
from tests.hub.painters import painter


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of texts that draws 4 x 4 pixels. Not to be changed."""
    return painter().publish(tmp_path_factory.mktemp("pixels") / "toy")


@pytest.fixture(scope="module")
def of_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two classes, which neither enlarges nor describes. Not to be changed."""
    labels = ["red heart", "blue cat"]
    toy = painter(sizes=[4], labels=labels, caption_token_id=None)
    return toy.publish(tmp_path_factory.mktemp("classes") / "toy")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    colours = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "shoe.png")
    return tmp_path / "shoe.png"


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_prompts_are_drawn_into_a_folder_and_a_grid(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, grid = tmp_path / "out", tmp_path / "grid.png"
    line = [str(folder), "red heart", "cat", "--num_images", "2", "--seed", "3"]

    main(
        [*line, "--top_k", "4", "--guidance_scale", "2", "--output", str(out), "--grid", str(grid)]
    )

    names = sorted(file.name for file in out.iterdir())
    assert names == [
        "00001_red_heart_seed3.png",
        "00002_red_heart_seed4.png",
        "00003_cat_seed3.png",
        "00004_cat_seed4.png",
    ]
    assert pixels(out / names[0]).shape == (4, 4)
    assert Image.open(grid).width > 2 * 64
    assert capsys.readouterr().out == f"wrote 4 images to {out}\ndrew 4 images into {grid}\n"


def test_equal_seeds_draw_equal_pictures_and_a_random_one_is_told(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        main(
            [
                str(folder),
                "cat",
                "--num_images",
                "2",
                "--seed",
                "1",
                "--output",
                str(tmp_path / name),
            ]
        )
    main([str(folder), "cat", "--num_images", "1", "--output", str(tmp_path / "c")])

    first, second = (sorted((tmp_path / name).iterdir()) for name in ("a", "b"))
    assert all(np.array_equal(pixels(x), pixels(y)) for x, y in zip(first, second, strict=True))
    assert "drawn with --seed " in capsys.readouterr().out.splitlines()[-1]


def test_without_prompts_all_classes_are_drawn_and_else_nothing_in_particular(
    folder: Path, of_classes: Path
) -> None:
    def names(options: GenerateOptions) -> list[str]:
        return [row.name for row in PixelDrawing(options).rows()]

    assert names(GenerateOptions(str(of_classes))) == ["red heart", "blue cat"]
    assert names(GenerateOptions(str(of_classes), label=["blue cat"])) == ["blue cat"]
    assert names(GenerateOptions(str(folder))) == [""]


def test_a_completed_picture_stands_between_the_given_and_the_real_one(
    folder: Path, picture: Path, tmp_path: Path
) -> None:
    options = GenerateOptions(
        str(folder), complete=[str(picture)], keep=0.25, prompts=["cat"], seed=0
    )
    drawing = PixelDrawing(options)

    [row] = drawing.rows()
    main(
        [
            str(folder),
            "cat",
            "--complete",
            str(picture),
            "--keep",
            "0.25",
            "--num_images",
            "3",
            "--seed",
            "0",
            "--output",
            str(tmp_path / "out"),
            "--grid",
            str(tmp_path / "grid.png"),
        ]
    )

    given, real = np.asarray(row.shown), np.asarray(row.real)
    assert row.name == "shoe: cat"
    assert np.array_equal(given[:1], real[:1])
    assert (given[1:] == 255).all()
    drawn = [pixels(file) for file in sorted((tmp_path / "out").iterdir())]
    assert all(np.array_equal(one[:1], real[:1]) for one in drawn)
    assert Image.open(tmp_path / "grid.png").width > 5 * 64


def test_a_small_picture_is_enlarged_beside_the_large_one_if_that_is_known(
    folder: Path, picture: Path, tmp_path: Path
) -> None:
    Image.new("L", (2, 2)).save(tmp_path / "small.png")
    files = [str(picture), str(tmp_path / "small.png")]

    rows = PixelDrawing(GenerateOptions(str(folder), enlarge=files)).rows()
    main(
        [
            str(folder),
            "--enlarge",
            *files,
            "--num_images",
            "1",
            "--greedy",
            "--int8",
            "--grid",
            str(tmp_path / "grid.png"),
        ]
    )

    assert [row.real is None for row in rows] == [False, True]
    given = np.asarray(rows[0].shown)
    assert given.shape == (4, 4)
    assert (given[::2, ::2] == given[1::2, 1::2]).all()
    assert (tmp_path / "grid.png").is_file()


def test_one_picture_is_not_several(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(
        [str(folder), "cat", "--num_images", "1", "--seed", "0", "--grid", str(tmp_path / "a.png")]
    )

    assert capsys.readouterr().out == f"drew 1 image into {tmp_path / 'a.png'}\n"


def test_a_prompt_that_is_cut_is_told_in_a_few_words(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [str(folder), "a red heart " * 99, "--num_images", "1", "--seed", "0"]

    main([*line, "--grid", str(tmp_path / "grid.png")])

    told = capsys.readouterr().err
    assert "tokens that this model reads, and was cut." in told
    assert told.count("heart") < 10


def test_pictures_are_described(
    folder: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "texts.jsonl"

    main([str(folder), "red", "--describe", str(picture), "--max_new_tokens", "4"])
    main([str(folder), "--describe", str(picture), str(picture), "--output", str(out)])

    first, last = capsys.readouterr().out.rstrip("\n").rsplit("\n", 1)
    assert first.startswith("red")
    assert last == f"wrote 2 texts to {out}"
    one, two = (json.loads(line) for line in out.read_text().splitlines())
    assert one == two
    assert one["file"] == str(picture)


def test_mistakes_are_named_before_anything_is_written(
    folder: Path, of_classes: Path, picture: Path, tmp_path: Path
) -> None:
    grid = ["--grid", str(tmp_path / "grid.png")]
    (tmp_path / "text.png").write_text("no picture")
    cases = [
        ([str(folder), "cat"], "Say where the pictures shall go"),
        ([str(folder), "--truncation", "0.5", *grid], "--truncation has no meaning here"),
        ([str(folder), "--max_new_tokens", "5", *grid], "--max_new_tokens has no meaning here"),
        ([str(folder), "--keep", "0.3", *grid], "--keep is for --complete"),
        ([str(folder), "--complete", str(picture), "--keep", "3", *grid], "--keep is 3"),
        ([str(folder), "--guidance_scale", "-1", *grid], "--guidance_scale is -1"),
        ([str(folder), "a", "b", "--complete", str(picture), *grid], "2 prompts were given for 1"),
        (
            [str(folder), "--complete", str(tmp_path / "text.png"), *grid],
            "cannot be read as a pict",
        ),
        ([str(folder), "--describe", str(picture), *grid], "--grid has no meaning here"),
        (
            [str(folder), "--describe", str(picture), "how many"],
            "A prompt stands before --describe",
        ),
        ([str(of_classes), "red hart", *grid], "Did you mean 'red heart'"),
        ([str(of_classes), "--enlarge", str(picture), *grid], "was not trained for image-super"),
        ([str(of_classes), "--describe", str(picture)], "was not trained for image-to-caption"),
    ]
    before = sorted(tmp_path.iterdir())
    for line, said in cases:
        with pytest.raises(UserError, match=said):
            main(line)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "words"), [([], True), (["--greedy"], False), (["--top_k", "1"], False)]
)
def test_a_seed_is_told_where_something_is_drawn_at_random(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    words: bool,
) -> None:
    main([str(folder), "cat", *options, "--grid", str(tmp_path / "grid.png")])
    assert ("drawn with --seed" in capsys.readouterr().out) is words
