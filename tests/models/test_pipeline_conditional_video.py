"""The pipelines that draw clips: what they give, whom they refuse, and the files they write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hf_genmodels.models.pipeline_conditional_image import (
    ClassToImagePipeline,
    TextToImagePipeline,
)
from hf_genmodels.models.pipeline_conditional_video import (
    ClassToVideoPipeline,
    TextToVideoPipeline,
)
from tests.hub import generators

FRAMES = generators.CLIPS["num_frames"]


@pytest.fixture(scope="module")
def pipe() -> Any:
    return ClassToVideoPipeline(model=generators.generator(**generators.CLIPS), device="cpu")


@pytest.fixture(scope="module")
def texts() -> Any:
    model, tokenizer = generators.text_generator(**generators.CLIPS)
    return TextToVideoPipeline(model=model, tokenizer=tokenizer, device="cpu")


def values(clip: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(frame).astype(int) for frame in clip])


def test_a_prompt_gives_the_frames_of_one_clip_and_many_prompts_a_list_of_them(texts: Any) -> None:
    frames = texts("a bag moving up", seed=0)
    assert [(frame.mode, frame.size) for frame in frames] == [("L", (8, 8))] * FRAMES
    many = texts(["a bag moving up", "a boot"], seed=0)
    assert [len(clip) for clip in many] == [FRAMES, FRAMES]
    assert abs(values(many[0]) - values(frames)).max() <= 1
    assert [len(clip) for clip in texts(iter(["a", "b", "c"]))] == [FRAMES] * 3


def test_a_number_of_clips_gives_a_list_of_clips(pipe: Any) -> None:
    clips = pipe("Bag", num_videos=3, seed=5)
    assert [len(clip) for clip in clips] == [FRAMES] * 3
    assert abs(values(clips[1]) - values(pipe("Bag", seed=6))).max() <= 1
    [alone] = pipe("Bag", num_videos=1, seed=5)
    assert len(alone) == FRAMES
    both = pipe(["Bag", 1], num_videos=2, batch_size=1)
    assert [[len(clip) for clip in of_one] for of_one in both] == [[FRAMES] * 2] * 2


def test_frames_of_a_clip_differ_and_so_do_clips_of_other_seeds(pipe: Any) -> None:
    first, second = pipe("Bag", num_videos=2, seed=0)
    assert (values(first)[0] != values(first)[-1]).any()
    assert (values(first) != values(second)).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_images": 2}, "num_videos"),
        ({"num_videos": 0}, "num_videos is 0"),
        ({"num_videos": True}, "num_videos is True"),
        ({"truncation": 2}, "truncation is 2"),
        ({"seed": [1, 2]}, "2 seeds"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str, pipe: Any):
    with pytest.raises(ValueError, match=message):
        pipe("Bag", **options)


def test_models_of_images_and_of_clips_are_told_apart(pipe: Any, texts: Any) -> None:
    still, tokenizer = generators.text_generator()
    with pytest.raises(ValueError, match=r"draws images.*text-to-image"):
        TextToVideoPipeline(model=still, tokenizer=tokenizer, device="cpu")
    with pytest.raises(ValueError, match=r"draws videos.*text-to-video"):
        TextToImagePipeline(model=texts.model, tokenizer=tokenizer, device="cpu")
    with pytest.raises(ValueError, match="class-to-video"):
        TextToImagePipeline(model=pipe.model, tokenizer=tokenizer, device="cpu")
    with pytest.raises(ValueError, match=r"draws videos.*class-to-video"):
        ClassToImagePipeline(model=pipe.model, device="cpu")


def test_a_clip_is_saved_as_it_is(pipe: Any, tmp_path: Path) -> None:
    clip = pipe("Bag", seed=0)
    file = pipe.save(clip, tmp_path / "new" / "bag.webp", frames_per_second=4, scale=2)
    with Image.open(file) as saved:
        assert (saved.n_frames, saved.size) == (FRAMES, (16, 16))
        saved.seek(2)
        again = np.asarray(saved.convert("L"))[::2, ::2]
    assert (again == np.asarray(clip[2])).all()
