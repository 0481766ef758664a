"""The pipelines that draw images: what they give, in which order, and what they refuse."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModel, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from hf_genmodels.hub.folder import publish_folder
from hf_genmodels.models.pipeline_conditional_image import (
    ClassToImagePipeline,
    TextToImagePipeline,
)
from tests.hub import generators

NAMES = generators.LABELS


def same(first: Any, second: Any) -> bool:
    """Whether pictures are equal up to the rounding of sums in batches of other sizes."""
    first, second = np.asarray(first).astype(int), np.asarray(second).astype(int)
    return first.shape == second.shape and int(abs(first - second).max()) <= 1


@pytest.fixture(scope="module")
def pipe() -> Any:
    return ClassToImagePipeline(model=generators.generator(), device="cpu")


@pytest.fixture(scope="module")
def attributes() -> Any:
    model = generators.generator(conditioning="attributes")
    return ClassToImagePipeline(model=model, device="cpu")


@pytest.fixture(scope="module")
def texts() -> Any:
    model, tokenizer = generators.text_generator()
    return TextToImagePipeline(model=model, tokenizer=tokenizer, device="cpu")


def test_a_name_an_id_and_another_spelling_draw_the_same(pipe: Any) -> None:
    [by_name] = pipe("Ankle boot", seed=3)

    assert by_name.size == (8, 8)
    assert by_name.mode == "L"
    for label in (1, np.int64(1), "ankle BOOT"):
        assert same(pipe(label, seed=3)[0], by_name)
    assert not same(pipe("Bag", seed=3)[0], by_name)


def test_one_input_gives_a_list_of_images_and_many_a_list_of_lists(pipe: Any) -> None:
    assert len(pipe("Bag", num_images=5)) == 5
    many = pipe(["Bag", 1], num_images=3)
    assert [len(images) for images in many] == [3, 3]
    assert pipe([]) == []


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
def test_an_image_depends_on_its_seed_and_on_nothing_beside_it(pipe: Any, batch_size: int) -> None:
    expected = [pipe("Bag", seed=seed)[0] for seed in (7, 8, 9)]

    for drawn in (
        pipe("Bag", num_images=3, seed=7, batch_size=batch_size),
        pipe("Bag", num_images=3, seed=[7, 8, 9], batch_size=batch_size),
        pipe(["T-shirt/top", "Bag"], num_images=3, seed=7, batch_size=batch_size)[1],
        [images[0] for images in pipe(["Bag"] * 3, seed=[7, 8, 9], batch_size=batch_size)],
    ):
        assert all(map(same, drawn, expected))
    assert not same(expected[0], expected[1])


def test_without_a_seed_images_differ_from_call_to_call(pipe: Any) -> None:
    assert not same(pipe("Bag")[0], pipe("Bag")[0])


def test_generators_and_datasets_are_streamed(pipe: Any) -> None:
    expected = pipe(["Bag", "Ankle boot"], seed=1)

    for inputs in (
        (name for name in ("Bag", "Ankle boot")),
        KeyDataset([{"label": name} for name in ("Bag", "Ankle boot")], "label"),
    ):
        drawn = pipe(inputs, seed=1)
        assert not isinstance(drawn, list)
        assert all(same(a[0], b[0]) for a, b in zip(drawn, expected, strict=True))


def test_truncation_shrinks_the_noise(pipe: Any) -> None:
    whole = np.stack([np.asarray(i, float) for i in pipe("Bag", num_images=16, seed=0)])
    shrunk = pipe("Bag", num_images=16, seed=0, truncation=0.2)

    assert np.stack([np.asarray(i, float) for i in shrunk]).std(0).mean() < whole.std(0).mean()


def test_a_training_model_draws_as_in_eval_mode_and_stays_in_training() -> None:
    model = generators.generator()
    pipe = ClassToImagePipeline(model=model, device="cpu")
    expected = pipe("Bag", num_images=4, seed=0)
    model.train()

    assert all(map(same, pipe("Bag", num_images=4, seed=0), expected))
    assert model.training


def test_attributes_come_as_lists_and_dictionaries(attributes: Any) -> None:
    expected = attributes(["Bag", "Ankle boot"], seed=2)[0]

    for given in ({"Bag": True, "Ankle boot": 1.0, "T-shirt/top": False}, ("Bag", 1)):
        assert same(attributes(given, seed=2)[0], expected)
    many = attributes([["Bag", "Ankle boot"], {"Bag": 0.5}, []], seed=2)
    assert len(many) == 3
    assert same(many[0][0], expected)
    assert same(attributes("Bag", seed=2)[0], attributes({"Bag": True}, seed=2)[0])


def test_a_model_without_labels_is_called_with_nothing() -> None:
    model = generators.generator(conditioning="none", num_channels=4)
    pipe = ClassToImagePipeline(model=model, device="cpu")

    images = pipe(num_images=3, seed=0)

    assert [image.mode for image in images] == ["RGBA"] * 3
    with pytest.raises(ValueError, match="'Bag' was given, but this model draws without a label"):
        pipe("Bag")


def test_texts_are_drawn_whatever_stands_beside_them(texts: Any) -> None:
    alone = texts("a red heart", num_images=2, seed=4)

    many = texts(["x", "a red heart", "a much longer prompt"], num_images=2, seed=4)

    assert all(map(same, many[1], alone))
    assert not same(many[0][0], alone[0])


def test_a_text_that_is_too_long_is_cut_with_a_warning(texts: Any) -> None:
    with pytest.warns(UserWarning, match="1 of 2 prompts are longer than the 16 tokens"):
        first, _ = texts(["abcdefghijklmnopqrstuvwxyz", "a"], seed=0)
    with pytest.warns(UserWarning, match="1 of 1"):
        assert same(texts("abcdefghijklmnop and so on", seed=0)[0], first[0])


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (
            "Ankle bot",
            {},
            r"no label 'Ankle bot'\. Did you mean 'Ankle boot'\?.*'T-shirt/top', 'Ankle",
        ),
        ("\x1b[2Jx", {}, r"no label '\\x1b\[2Jx'"),
        (3, {}, "ids go from 0 to 2"),
        (-1, {}, "There is no label -1"),
        (True, {}, "True is a bool: give a label"),
        (None, {}, "give a label, by name or number"),
        ({"Bag": True}, {}, "give a label"),
        ("Bag", {"num_images": 0}, "num_images is 0. It must be a whole number, at least 1"),
        ("Bag", {"num_images": -3}, "num_images is -3"),
        ("Bag", {"num_images": 1.5}, "num_images is 1.5"),
        ("Bag", {"batch_size": 0}, "batch_size is 0"),
        ("Bag", {"truncation": 0}, "truncation is 0. It must be a number above 0, at most 1"),
        ("Bag", {"truncation": 1.01}, "truncation is 1.01"),
        ("Bag", {"truncation": float("nan")}, "truncation is nan"),
        ("Bag", {"truncation": "1"}, "truncation is '1'"),
        ("Bag", {"seed": -1}, "seed is -1. It must be a whole number from 0"),
        ("Bag", {"seed": 2**63}, "seed is 9223372036854775808"),
        ("Bag", {"seed": 1.0}, "seed is 1.0"),
        ("Bag", {"seed": True}, "seed is True"),
        ("Bag", {"seed": [1, 2], "num_images": 3}, "2 seeds were given for 3 images"),
        ("Bag", {"seed": ["a"]}, "seed is 'a'"),
        ("Bag", {"num_image": 3}, "no option 'num_image'. Did you mean 'num_images'"),
    ],
)
def test_what_cannot_work_is_refused_in_words(
    pipe: Any, given: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pipe(given, **options)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"Bga": True}, "Did you mean 'Bag'"),
        ({"Bag": 2}, "The attribute 'Bag' is 2. Give True, False"),
        ({"Bag": float("nan")}, "The attribute 'Bag' is nan"),
        ([["Bag"], None], "None was given: give a list of attributes"),
    ],
)
def test_attributes_that_cannot_be_are_refused(attributes: Any, given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attributes(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "Prompt 0 is empty: ''"),
        (["a", " \n"], r"Prompt 1 is empty: ' \\n'"),
        (["a", 3], "Prompt 1 is a int, and a text was expected"),
        (None, "Prompt 0 is a NoneType"),
        (3, "3 is a int: a text was expected"),
    ],
)
def test_prompts_that_say_nothing_are_refused(texts: Any, given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        texts(given)


def test_no_prompt_or_label_however_strange_breaks_it(pipe: Any, texts: Any) -> None:
    """Untrusted words: control characters, other scripts, surrogates, very long ones."""
    letters = random.Random(0)
    for _ in range(50):
        word = "".join(
            chr(letters.choice((letters.randrange(32), letters.randrange(0xD000))))
            for _ in range(9)
        )
        with pytest.raises(ValueError, match="There is no label") as error:
            pipe(word)
        assert str(error.value).isprintable()
    for prompt in ("\x1b[31mred\x07", "\x00a", "心❤️", "a" * 15):
        [image] = texts(prompt, seed=0)
        assert image.size == (8, 8)


def test_a_model_of_another_kind_is_refused_with_the_right_task() -> None:
    model, tokenizer = generators.text_generator()

    with pytest.raises(ValueError, match="text-to-image"):
        ClassToImagePipeline(model=model, device="cpu")
    with pytest.raises(ValueError, match="class-to-image"):
        TextToImagePipeline(model=generators.generator(), tokenizer=tokenizer, device="cpu")
    with pytest.raises(ValueError, match="give the tokenizer"):
        TextToImagePipeline(model=model, device="cpu")


def test_defaults_are_set_when_the_pipeline_is_made_and_go_around_with_it(tmp_path: Path) -> None:
    folder = publish_folder(generators.generator(), None, tmp_path / "toy")
    pipe = pipeline("class-to-image", model=str(folder), device="cpu", num_images=3, seed=1)
    assert type(pipe) is ClassToImagePipeline
    expected = pipe("Bag")
    assert len(expected) == 3

    pipe.save_pretrained(tmp_path / "saved")

    again = pipeline("class-to-image", model=str(tmp_path / "saved"), device="cpu")
    assert all(map(same, again("Bag", num_images=3, seed=1), expected))


def test_the_auto_class_finds_generator_and_discriminator(tmp_path: Path) -> None:
    pair = {"discriminator": generators.discriminator()}
    folder = publish_folder(generators.generator(), None, tmp_path / "toy", companions=pair)

    names = [
        type(AutoModel.from_pretrained(folder, subfolder=subfolder)).__name__
        for subfolder in ("", "discriminator", "")
    ]

    assert names == ["GenGANGenerator", "GenGANDiscriminator", "GenGANGenerator"]
    assert type(AutoModel.from_config(generators.config())).__name__ == "GenGANGenerator"
