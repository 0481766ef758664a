"""Drawing pictures pixel by pixel: what the model says, nothing else, and what was asked for."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from transformers import ImageGPTConfig, ImageGPTForCausalImageModeling

from hf_genmodels.models.pixel_positions import find_pixel_positions
from hf_genmodels.models.pixel_sampling import (
    PixelSettings,
    describing_prompt,
    draw_pixels,
    picture_prompt,
)
from hf_genmodels.models.token_steps import TokenSteps
from tests.models import pixels

GREEDY = PixelSettings(temperature=0)
TEXTS = [[5, 6, 7, 8], [9], []]
AREA = pixels.SIZE**2


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def prompts_of(model: Any) -> list[list[int]]:
    return [picture_prompt(model.config, text) for text in TEXTS]


def colour_logits(model: Any, prompt: list[int], drawn: torch.Tensor) -> torch.Tensor:
    """Return what the whole model says of each pixel of a picture, (S, N)."""
    ids = torch.tensor([[*prompt, *(drawn + pixels.FIRST_COLOUR).tolist()]])
    with torch.no_grad():
        logits = model(ids).logits[0, len(prompt) - 1 : -1]
    return logits[:, pixels.FIRST_COLOUR : pixels.FIRST_COLOUR + pixels.COLOURS]


@pytest.mark.parametrize("variant", pixels.VARIANTS)
def test_steps_compute_what_the_whole_model_computes(variant: str) -> None:
    model = pixels.model(**pixels.VARIANTS[variant])
    rows = [[0, 5, 6, 7, pixels.IMAGE, 44], [0, pixels.IMAGE, 45]]
    added = torch.tensor([[46, 43, 47, 50, 49], [43, 43, 44, 48, 46]])
    length = max(map(len, rows))
    ids = torch.tensor([[0] * (length - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    found = find_pixel_positions(ids, [4, 2], [pixels.IMAGE, pixels.SMALL_IMAGE])

    with torch.inference_mode():
        steps = TokenSteps(model.model, ids, mask, added.shape[1], found)
        states = [steps.last_hidden]
        states += [steps.step(added[:, i], 1 + i) for i in range(added.shape[1])]
        for index, row in enumerate(rows):
            whole = model.model(torch.tensor([[*row, *added[index].tolist()]])).last_hidden_state
            ours = torch.stack([state[index] for state in states])
            torch.testing.assert_close(ours, whole[0, len(row) - 1 :], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("variant", pixels.VARIANTS)
def test_the_likeliest_colours_are_those_of_the_whole_model(variant: str) -> None:
    model = pixels.model(**pixels.VARIANTS[variant])

    drawn = draw_pixels(model, prompts_of(model), GREEDY)

    assert drawn.shape == (3, AREA)
    for prompt, picture in zip(prompts_of(model), drawn, strict=True):
        assert torch.equal(colour_logits(model, prompt, picture).argmax(dim=-1), picture)


def test_what_is_drawn_follows_the_probabilities() -> None:
    model = pixels.model(image_sizes=[1, 2])
    prompt = picture_prompt(model.config, [5])

    torch.manual_seed(0)
    drawn = draw_pixels(model, [prompt] * 4000, PixelSettings(temperature=2.0))

    shares = torch.bincount(drawn[:, 0], minlength=pixels.COLOURS) / len(drawn)
    expected = (colour_logits(model, prompt, drawn[0])[0] / 2.0).softmax(dim=-1)
    assert (shares - expected).abs().max() < 0.03
    assert (expected > 0.02).sum() > 3


@pytest.mark.parametrize(("name", "value"), [("top_k", 2), ("top_p", 0.5)])
def test_only_likely_colours_are_drawn(name: str, value: float) -> None:
    model = pixels.model()
    prompts = prompts_of(model) * 10

    drawn = draw_pixels(model, prompts, PixelSettings(temperature=3.0, **{name: value}))

    for prompt, picture in zip(prompts, drawn, strict=True):
        chances = (colour_logits(model, prompt, picture) / 3.0).softmax(dim=-1)
        own = chances.gather(1, picture[:, None])
        likelier = (chances > own + 1e-6).float()
        if name == "top_k":
            assert likelier.sum(dim=-1).max() < 2
        else:
            assert (likelier * chances).sum(dim=-1).max() < 0.5 + 1e-5


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])
def test_guidance_goes_from_what_is_drawn_without_prompt_to_what_is_drawn_with_it(
    scale: float,
) -> None:
    model = pixels.model()
    prompt = picture_prompt(model.config, [5, 6])

    [drawn] = draw_pixels(model, [prompt], PixelSettings(temperature=0, guidance_scale=scale))

    bare = colour_logits(model, picture_prompt(model.config), drawn)
    guided = bare + scale * (colour_logits(model, prompt, drawn) - bare)
    assert torch.equal(guided.argmax(dim=-1), drawn)


def test_given_pixels_stay_and_the_others_follow_them() -> None:
    model = pixels.model()
    given = torch.randint(pixels.COLOURS, (3, 6), generator=torch.Generator().manual_seed(1))

    drawn = draw_pixels(model, prompts_of(model), GREEDY, given=given)

    assert torch.equal(drawn[:, :6], given)
    for prompt, picture in zip(prompts_of(model), drawn, strict=True):
        found = colour_logits(model, prompt, picture).argmax(dim=-1)
        assert torch.equal(found[6:], picture[6:])
    assert torch.equal(draw_pixels(model, prompts_of(model), given=drawn), drawn)


def test_a_small_copy_is_enlarged() -> None:
    model = pixels.model()
    small = [1, 5, 2, 7]
    prompt = picture_prompt(model.config, small=small)

    [drawn] = draw_pixels(model, [prompt], GREEDY)

    colours = [pixels.FIRST_COLOUR + colour for colour in small]
    assert prompt == [0, pixels.SMALL_IMAGE, *colours, pixels.IMAGE]
    assert torch.equal(colour_logits(model, prompt, drawn).argmax(dim=-1), drawn)


def test_small_pictures_can_be_drawn_too() -> None:
    model = pixels.model()

    assert draw_pixels(model, [[0, pixels.SMALL_IMAGE]]).shape == (1, pixels.SMALL**2)


def test_a_picture_is_described_after_its_pixels() -> None:
    colours = list(range(pixels.COLOURS)) * 2

    prompt = describing_prompt(pixels.config(), colours)

    assert prompt[:2] == [0, pixels.IMAGE]
    assert prompt[2:-1] == [pixels.FIRST_COLOUR + colour for colour in colours]
    assert prompt[-1] == pixels.CAPTION


def test_equal_seeds_give_equal_pictures_whatever_is_drawn_beside_them() -> None:
    model = pixels.model()
    prompts = prompts_of(model)

    together = draw_pixels(model, prompts, generators=generators(1, 2, 3))

    for index, prompt in enumerate(prompts):
        [alone] = draw_pixels(model, [prompt], generators=generators(1 + index))
        assert torch.equal(alone, together[index])
    others = draw_pixels(model, prompts, generators=generators(4, 5, 6))
    assert not torch.equal(others, together)


def test_a_model_with_8_bit_weights_draws_nearly_the_same() -> None:
    model = pixels.model()
    drawn = draw_pixels(model, prompts_of(model), GREEDY)

    model.quantize_int8()
    found = draw_pixels(model, prompts_of(model), GREEDY, given=drawn[:, :8])

    assert found.shape == drawn.shape
    logits = torch.stack(
        [colour_logits(model, p, d) for p, d in zip(prompts_of(model), found, strict=True)]
    )
    own = logits.gather(-1, found[..., None])[..., 0]
    assert (logits.amax(dim=-1) - own)[:, 8:].max() < 0.2  # rounding differs with the batch


def test_the_model_is_as_it_was() -> None:
    model = pixels.model(residual_dropout=0.5).train()

    first, second = (draw_pixels(model, prompts_of(model), GREEDY) for _ in range(2))

    assert model.training
    assert torch.equal(first, second)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"temperature": -1}, "temperature is -1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": 1.5}, "top_k is 1.5"),
        ({"top_p": 0}, "top_p is 0"),
        ({"guidance_scale": "3"}, "guidance_scale is '3'"),
    ],
)
def test_settings_that_cannot_work_are_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PixelSettings(**settings)


def test_what_cannot_be_drawn_is_said_before_anything_is() -> None:
    model = pixels.model()
    prompt = picture_prompt(model.config)
    for prompts in ([[0, 5]], [prompt, [0, pixels.SMALL_IMAGE]], [[]]):
        with pytest.raises(ValueError, match="the one token that begins pictures of a size"):
            draw_pixels(model, prompts)
    for given in (torch.zeros(2, 1), torch.zeros(1, AREA + 1), torch.zeros(3)):
        with pytest.raises(ValueError, match=r"It must be \(1, at most 16\)"):
            draw_pixels(model, [prompt], given=given)
    with pytest.raises(ValueError, match="must lie from 0 to 7"):
        draw_pixels(model, [prompt], given=torch.full((1, 2), 8))
    with pytest.raises(ValueError, match="longer than max_position_embeddings=48"):
        draw_pixels(model, [picture_prompt(model.config, [5] * 40)])
    texts = pixels.model(image_sizes=[], image_token_ids=[])
    with pytest.raises(ValueError, match="not trained on pictures"):
        draw_pixels(texts, [prompt])
    assert draw_pixels(model, []).shape == (0, AREA)


@pytest.mark.slow
def test_it_is_faster_than_generate_of_image_gpt() -> None:
    sizes = {"num_hidden_layers": 4, "num_attention_heads": 4, "hidden_size": 128}
    ours = pixels.model(**sizes, image_sizes=[14, 7], max_position_embeddings=200)
    theirs = ImageGPTForCausalImageModeling(
        ImageGPTConfig(vocab_size=17, n_positions=196, n_embd=128, n_layer=4, n_head=4)
    ).eval()
    start = torch.full((8, 1), 16)

    def seconds(draw: Any) -> float:
        times = []
        for _ in range(3):
            begin = time.process_time()
            draw()
            times.append(time.process_time() - begin)
        return min(times)

    own = seconds(lambda: draw_pixels(ours, [picture_prompt(ours.config)] * 8))
    other = seconds(
        lambda: theirs.generate(
            start,
            attention_mask=torch.ones_like(start),
            do_sample=True,
            min_length=197,
            max_length=197,
            pad_token_id=16,
            eos_token_id=None,
        )
    )
    assert own * 1.5 < other
