"""Draw pictures with a language model of pixels: for a prompt, from their beginning, from a small copy.

The colours of a picture are drawn one after the other in raster order (Chen et al. 2020, "Generative
Pretraining from Pixels"), with temperature, top-k, top-p (Holtzman et al. 2019, arXiv:1904.09751) and
classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598; of language models Sanchez et al. 2023,
arXiv:2306.17806). `generate` of transformers draws the same, several times slower, and with one
stream of random numbers for all pictures of a batch.

Shapes are written with these letters: B pictures, S pixels of a picture, G given pixels, N colours of
the palette, T tokens of a prompt.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .configuration_gpt import GenGPTConfig
from .linear import linear
from .linear_cross_entropy import head_is_plain
from .modeling_gpt import GenGPTForCausalLM
from .pixel_positions import find_pixel_positions
from .token_steps import TokenSteps


@dataclass(frozen=True)
class PixelSettings:
    """How freely colours are drawn.

    Attributes:
        temperature: Divides the logits; 0 always takes the likeliest colour.
        top_k: Draw from so many likeliest colours; 0 for all.
        top_p: Draw from the fewest colours that have this probability together.
        guidance_scale: How far to go from what is drawn without the prompt to what is drawn with it:
            0 leaves the prompt out, 1 is the model itself, more follows the prompt closer.

    Raises:
        ValueError: If a value cannot work.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance_scale: float = 1.0

    def __post_init__(self) -> None:
        """Check every value."""
        for name, lowest in (("temperature", 0), ("top_k", 0), ("guidance_scale", 0)):
            value = getattr(self, name)
            is_whole = name == "top_k"
            if not _is_number(value, is_whole) or not lowest <= value < float("inf"):
                kind = "whole number" if is_whole else "number"
                raise ValueError(f"{name} is {value!r}. It must be a {kind}, at least {lowest}.")
        if not _is_number(self.top_p) or not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p!r}. It must be a number above 0, at most 1.")


def _is_number(value: Any, is_whole: bool = False) -> bool:
    kinds = (int,) if is_whole else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool)


def picture_prompt(
    config: GenGPTConfig, text_ids: Sequence[int] = (), small: Sequence[int] | None = None
) -> list[int]:
    """Return the tokens before the pixels of a picture.

    Args:
        config: Configuration of a model of pictures.
        text_ids: Tokens of the prompt.
        small: Colours of its small copy in raster order, which shall be enlarged.

    Returns:
        The tokens, the last one beginning a picture of the first size.
    """
    begin = [] if config.bos_token_id is None else [config.bos_token_id]
    before = [*begin, *(int(token) for token in text_ids)]
    if small is not None:
        first = config.palette_token_id
        before += [config.image_token_ids[1], *(first + int(colour) for colour in small)]
    return [*before, config.image_token_ids[0]]


def describing_prompt(config: GenGPTConfig, colours: Sequence[int]) -> list[int]:
    """Return the tokens before a text about a picture.

    Args:
        config: Configuration of a model of pictures.
        colours: Colours of the picture in raster order, of the first size.

    Returns:
        The tokens, after which the text follows.

    Raises:
        ValueError: If the model describes no pictures.
    """
    first = config.palette_token_id
    picture = [*picture_prompt(config), *(first + int(colour) for colour in colours)]
    if config.caption_token_id is None:
        raise ValueError("This model was not trained to describe pictures.")
    return [*picture, config.caption_token_id]


@torch.inference_mode()
def draw_pixels(
    model: GenGPTForCausalLM,
    prompts: Sequence[Sequence[int]],
    settings: PixelSettings = PixelSettings(),
    *,
    given: torch.Tensor | None = None,
    generators: Sequence[torch.Generator] | None = None,
) -> torch.Tensor:
    """Draw a picture after each prompt.

    Args:
        model: A model of pictures; one with 8-bit weights too.
        prompts: Tokens before the pixels of each picture, as `picture_prompt` returns them. The last
            ones begin pictures of one size.
        settings: How freely colours are drawn.
        given: Colours of the first pixels of each picture, which are kept, (B, G).
        generators: A source of random numbers for each picture, on the CPU, so that a picture does not
            depend on those drawn beside it; `None`: torch's own.

    Returns:
        The colours in raster order, given ones included, (B, S), int64, on the CPU.

    Raises:
        ValueError: If the model draws no pictures, the prompts do not begin pictures of one size, what is
            given does not fit, or there is no room for so many tokens.
    """
    config = model.config
    size, offset = _size_of(config, prompts)
    first, area = config.palette_token_id, size * size
    given = _checked(given, len(prompts), area, config.palette_size)
    rows = [[*prompt, *(given[i] + first).tolist()] for i, prompt in enumerate(prompts)]
    is_guided = settings.guidance_scale != 1
    if is_guided:
        bare = [*picture_prompt(config)[:-1], prompts[0][-1]]
        rows += [[*bare, *(given[i] + first).tolist()] for i in range(len(prompts))]
    drawn = torch.empty(len(prompts), area, dtype=torch.long)
    begun = given.shape[1]
    drawn[:, :begun] = given
    if begun == area or not len(prompts):
        return drawn
    was_training = model.training
    model.eval()
    try:
        steps = _begin(model, rows, area - begun - 1)
        head = _palette_head(model)
        noise: torch.Tensor | None = None
        for pixel in range(begun, area):
            if settings.temperature and (noise is None or not len(noise)):
                count = min(size, area - pixel)
                noise = _gumbel_noise((count, config.palette_size), len(prompts), generators)
            logits = head(steps.last_hidden).float().cpu()
            chosen = _choose(logits, None if noise is None else noise[0], settings)
            noise = None if noise is None else noise[1:]
            drawn[:, pixel] = chosen
            if pixel + 1 < area:
                tokens = (chosen + first).to(model.device)
                steps.step(tokens.repeat(2) if is_guided else tokens, offset + pixel)
    finally:
        model.train(was_training)
    return drawn


def _size_of(config: GenGPTConfig, prompts: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Return the size of the pictures that prompts begin, and the position of their first pixel."""
    if not config.image_sizes:
        raise ValueError("This language model was not trained on pictures: it draws none.")
    starts = {prompt[-1] for prompt in prompts if prompt} or {config.image_token_ids[0]}
    known = dict(zip(config.image_token_ids, range(len(config.image_sizes)), strict=True))
    if len(starts) != 1 or not all(prompts) or not starts <= set(known):
        raise ValueError("Every prompt must end with the one token that begins pictures of a size.")
    index = known[starts.pop()]
    return config.image_sizes[index], sum(size * size for size in config.image_sizes[:index])


def _checked(given: torch.Tensor | None, count: int, area: int, num_colours: int) -> torch.Tensor:
    """Return the given colours as (B, G) on the CPU."""
    if given is None:
        return torch.empty(count, 0, dtype=torch.long)
    given = torch.as_tensor(given).cpu().long()
    if given.ndim != 2 or len(given) != count or given.shape[1] > area:
        raise ValueError(
            f"given is {tuple(given.shape)}. It must be ({count}, at most {area}): the first pixels of "
            "each picture."
        )
    if given.numel() and not 0 <= int(given.min()) <= int(given.max()) < num_colours:
        raise ValueError(f"The colours in given must lie from 0 to {num_colours - 1}.")
    return given


def _begin(model: GenGPTForCausalLM, rows: Sequence[Sequence[int]], room: int) -> TokenSteps:
    """Read the prompts."""
    config = model.config
    length = max(map(len, rows))
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, length - len(row) :] = torch.tensor(row)
        mask[index, length - len(row) :] = 1
    # Padding is token 0, which may be one that begins a picture: it is masked before it is looked at.
    pixels = find_pixel_positions(
        ids.masked_fill(mask == 0, -1), config.image_sizes, config.image_token_ids
    )
    device = model.device
    return TokenSteps(model.model, ids.to(device), mask.to(device), room, pixels.to(device))


def _palette_head(model: GenGPTForCausalLM) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the part of the head that says colours: hidden states (R, D) to logits (R, N)."""
    config, head = model.config, model.lm_head
    first, cap = config.palette_token_id, config.logit_softcap
    own = slice(first, first + config.palette_size)
    weight = head.weight[own] if head_is_plain(head) else None

    def logits(hidden: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = head(hidden)[:, own] if weight is None else linear(hidden, weight)
        return found if cap is None else cap * torch.tanh(found / cap)

    return logits


def _gumbel_noise(
    shape: tuple[int, int], count: int, generators: Sequence[torch.Generator] | None
) -> torch.Tensor:
    """Return noise whose argmax, added to logits, is a draw from their softmax, (rows, B, N)."""
    own: Sequence[torch.Generator | None] = [None] * count if generators is None else generators
    noise = [torch.empty(shape).exponential_(generator=generator) for generator in own]
    return torch.stack(noise, dim=1).log_().neg_()


def _choose(
    logits: torch.Tensor, noise: torch.Tensor | None, settings: PixelSettings
) -> torch.Tensor:
    """Return a colour for each picture, (B,).

    Args:
        logits: (B, N); with guidance (2 * B, N), the second half being those without prompt.
        noise: (B, N), or `None` for the likeliest colour.
        settings: How freely colours are drawn.
    """
    if settings.guidance_scale != 1:
        prompted, bare = logits.chunk(2)
        logits = torch.lerp(bare, prompted, settings.guidance_scale)
    if noise is None:
        return logits.argmax(dim=-1)
    logits = logits / settings.temperature
    if 0 < settings.top_k < logits.shape[-1]:
        lowest = logits.topk(settings.top_k).values[:, -1:]
        logits = logits.masked_fill(logits < lowest, float("-inf"))
    if settings.top_p < 1:
        likeliest = logits.softmax(dim=-1).sort(descending=True).values
        before = likeliest.cumsum(dim=-1) - likeliest
        lowest = likeliest.masked_fill(before >= settings.top_p, 2.0).amin(dim=-1, keepdim=True)
        logits = logits.masked_fill(logits.softmax(dim=-1) < lowest, float("-inf"))
    return (logits + noise).argmax(dim=-1)


__all__ = ["PixelSettings", "describing_prompt", "draw_pixels", "picture_prompt"]
