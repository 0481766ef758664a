"""Pipelines of a language model that draws: pictures of prompts, completed, enlarged and described."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hf_genmodels.models.pipeline_pixels import (
    CaptionPipeline,
    CompletionPipeline,
    SuperResolutionPipeline,
    TextToPixelsPipeline,
)
from tests.hub.painters import Painter, painter


@pytest.fixture(scope="module")
def toy() -> Painter:
    return painter()


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    colours = np.random.default_rng(0).integers(0, 256, (9, 7), dtype=np.uint8)
    return Image.fromarray(colours)


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


def same(first: list[Any], second: list[Any]) -> bool:
    return [array(one).tolist() for one in first] == [array(one).tolist() for one in second]


def test_pictures_of_a_prompt_have_the_models_size_and_colours(toy: Painter) -> None:
    draw = TextToPixelsPipeline(**toy.parts)

    images = draw("red heart", num_images=3, seed=0)

    assert [(image.mode, image.size) for image in images] == [("L", (4, 4))] * 3
    known = {colour for [colour] in toy.processor.palette}
    assert all(set(array(image).flatten().tolist()) <= known for image in images)
    assert not same(images[:1], images[1:2])


def test_many_prompts_give_the_pictures_that_each_gives_alone(toy: Painter) -> None:
    draw = TextToPixelsPipeline(**toy.parts)
    prompts = ["red heart", None, "a blue cat", ""]

    together = draw(prompts, num_images=2, seed=5)
    streamed = list(draw((text for text in prompts), num_images=2, seed=5, batch_size=3))

    assert [len(images) for images in together] == [2] * 4
    for text, images, others in zip(prompts, together, streamed, strict=True):
        alone = draw(text, num_images=2, seed=5)
        assert same(images, alone)
        assert same(images, others)
    assert same(together[1], together[3])
    assert draw([]) == []


def test_options_change_what_is_drawn(toy: Painter) -> None:
    draw = TextToPixelsPipeline(**toy.parts, temperature=2.0)
    plain = draw("red heart", num_images=4, seed=0)

    for option in ({"temperature": 0.1}, {"top_k": 1}, {"top_p": 0.1}, {"guidance_scale": 4}):
        assert not same(plain, draw("red heart", num_images=4, seed=0, **option)), option
    greedy = draw("red heart", num_images=2, seed=0, temperature=0)
    assert same(greedy[:1], greedy[1:])


def test_coloured_and_transparent_pictures_come_out_as_such() -> None:
    for palette, mode in (
        ([[255, 0, 0], [0, 0, 255]], "RGB"),
        ([[255, 0, 0, 255], [0, 0, 0, 0]], "RGBA"),
    ):
        [image] = TextToPixelsPipeline(**painter(palette=palette).parts)("cat", seed=0)
        assert image.mode == mode
        assert set(map(tuple, array(image).reshape(-1, len(mode)).tolist())) <= set(
            map(tuple, palette)
        )


def test_a_model_of_classes_knows_their_names_whatever_the_case() -> None:
    draw = TextToPixelsPipeline(**painter(labels=["red heart", "blue cat"]).parts)

    assert same(draw("red heart", seed=0), draw("Red Heart", seed=0))
    assert len(draw(None, seed=0)) == 1
    with pytest.raises(ValueError, match=r"no label 'red hart'\. Did you mean 'red heart'\?"):
        draw("red hart")


def test_names_of_tokens_in_a_prompt_are_letters(toy: Painter) -> None:
    draw = TextToPixelsPipeline(**toy.parts)

    rows = draw.preprocess(["<|c0|>"])["prompts"][0].tolist()

    assert toy.tokenizer.convert_tokens_to_ids("<|c0|>") not in rows
    assert len(rows) > 4
    assert rows[-1] == toy.model.config.image_token_ids[0]


def test_a_long_prompt_is_cut_with_a_warning(toy: Painter) -> None:
    draw = TextToPixelsPipeline(**toy.parts)

    with pytest.warns(UserWarning, match="longer than the 22 tokens"):
        [image] = draw("heart " * 50, seed=0)

    assert image.size == (4, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw("red heart", seed=0)


def test_a_completed_picture_keeps_what_was_given(toy: Painter, picture: Image.Image) -> None:
    complete = CompletionPipeline(**toy.parts)
    [seen] = toy.processor.to_images(toy.processor(picture)["pixel_ids"])

    half = complete(picture, num_images=4, seed=0)
    quarter = complete({"image": picture, "text": "red heart"}, num_images=4, seed=0, keep=0.25)

    for images, rows in ((half, 2), (quarter, 1)):
        for image in images:
            assert np.array_equal(array(image)[:rows], array(seen)[:rows])
        assert any(not np.array_equal(array(image), array(seen)) for image in images)
    assert same(complete(picture, keep=1), [seen])
    many = complete([picture, {"image": picture}], num_images=4, seed=0)
    assert same(many[0], half)
    assert same(many[1], half)


def test_an_enlarged_picture_depends_on_the_small_one(
    toy: Painter, picture: Image.Image, tmp_path: Path
) -> None:
    enlarge = SuperResolutionPipeline(**toy.parts)
    picture.save(tmp_path / "small.png")

    images = enlarge([picture, Image.new("L", (2, 2)), str(tmp_path / "small.png")], seed=0)

    assert [len(own) for own in images] == [1] * 3
    assert images[0][0].size == (4, 4)
    assert not same(images[0], images[1])
    assert same(images[0], images[2])


def test_a_caption_is_text_and_goes_on_from_its_beginning(
    toy: Painter, picture: Image.Image
) -> None:
    describe = CaptionPipeline(**toy.parts)

    [found] = describe(picture, max_new_tokens=4)
    begun, other = describe([{"image": picture, "text": "red"}, picture], max_new_tokens=4)

    assert isinstance(found["generated_text"], str)
    assert begun[0]["generated_text"].startswith("red")
    assert other == [found]
    ids = toy.tokenizer(found["generated_text"])["input_ids"]
    config = toy.model.config
    assert all(not 0 <= i - config.palette_token_id < config.palette_size for i in ids)
    drawn = describe(picture, max_new_tokens=4, do_sample=True, num_return_sequences=3)
    assert len(drawn) == 3


def test_what_cannot_work_is_said(toy: Painter, picture: Image.Image, tmp_path: Path) -> None:
    draw, complete = TextToPixelsPipeline(**toy.parts), CompletionPipeline(**toy.parts)
    describe = CaptionPipeline(**toy.parts)
    (tmp_path / "no.png").write_text("no picture")
    cases: list[tuple[Any, tuple[Any, ...], dict[str, Any], str]] = [
        (draw, ("cat",), {"truncation": 0.5}, "no option 'truncation'"),
        (draw, ("cat",), {"top_k": -1}, "top_k is -1"),
        (draw, ("cat",), {"num_images": 0}, "num_images is 0"),
        (draw, ([3],), {}, "Prompt 0 is a int"),
        (complete, (picture,), {"keep": 2}, "keep is 2"),
        (complete, (str(tmp_path / "no.png"),), {}, "cannot be read as a picture"),
        (complete, ([3],), {}, "a picture was expected"),
        (complete, ({"text": "cat"},), {}, "a picture was expected"),
        (describe, ({"image": picture, "text": "cat " * 60},), {}, "Shorten it"),
    ]
    for pipe, inputs, options, said in cases:
        with pytest.raises(ValueError, match=said):
            pipe(*inputs, **options)


def test_parts_that_do_not_belong_together_are_refused(toy: Painter) -> None:
    other = painter(sizes=[4])
    with pytest.raises(ValueError, match="not that of this checkpoint"):
        TextToPixelsPipeline(**toy.parts | {"image_processor": other.processor})
    with pytest.raises(ValueError, match="not trained to enlarge"):
        SuperResolutionPipeline(**other.parts)
    with pytest.raises(ValueError, match="not trained to describe"):
        CaptionPipeline(**painter(caption_token_id=None).parts)
    with pytest.raises(ValueError, match="Give the tokenizer and the image processor"):
        TextToPixelsPipeline(model=toy.model, tokenizer=toy.tokenizer, device="cpu")
