"""Images on the way from one to another: between conditions, between noise vectors, or both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from hf_genmodels.metrics.image_features import as_bytes
from hf_genmodels.models.gan_text import Words


def draw_way(
    pipe: Any,
    ends: Sequence[tuple[Any, Any]],
    seeds: Sequence[tuple[int, int]],
    frames: int,
    truncation: float = 1.0,
) -> np.ndarray:
    """Draw images on the way from one to another, both ends included.

    Encoded conditions are mixed linearly, noise on the sphere on which it lies (slerp, Shoemake 1985;
    White 2016, arXiv:1609.04468).

    Args:
        pipe: A pipeline that draws images.
        ends: For each way, what the pipeline would be given at its two ends.
        seeds: For each way, the seeds of the noise at its two ends.
        frames: Images on each way, at least 2.
        truncation: In (0, 1]: scales the noise.

    Returns:
        Bytes, (ways, frames, C, H, W).
    """
    model = pipe.model
    first, second = (_encode(pipe, [one[side] for one in ends]) for side in (0, 1))
    noise = [_noise(model, [one[side] for one in seeds]) * truncation for side in (0, 1)]
    columns = []
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for fraction in torch.linspace(0, 1, frames).tolist():
                latents = slerp(noise[0], noise[1], fraction)
                vector, words = _mix(first, second, fraction)
                columns.append(as_bytes(model.draw(latents, vector, words)).cpu().numpy())
    finally:
        model.train(was_training)
    return np.stack(columns, axis=1)


def slerp(first: torch.Tensor, second: torch.Tensor, fraction: float) -> torch.Tensor:
    """Return vectors on the arc between two, row by row.

    Args:
        first: Vectors (B, D).
        second: Vectors (B, D).
        fraction: 0 is the first end, 1 the second.
    """
    if fraction in (0.0, 1.0):
        return second if fraction else first
    cosine = torch.nn.functional.cosine_similarity(first, second, dim=1).clamp(-1, 1)
    angle = torch.arccos(cosine)[:, None]
    straight = torch.lerp(first, second, fraction)
    arc = (
        torch.sin((1 - fraction) * angle) * first + torch.sin(fraction * angle) * second
    ) / torch.sin(angle)
    # Along one line, or in opposite directions, there is no arc.
    return torch.where(torch.sin(angle) > 1e-4, arc, straight)


def _encode(pipe: Any, given: list[Any]) -> tuple[torch.Tensor | None, Words | None]:
    """Return encoded conditions, a row for each."""
    inputs: dict[str, Any] = dict.fromkeys(("class_labels", "input_ids", "attention_mask"))
    rows = {name: value.to(pipe.device) for name, value in pipe.preprocess(given).items()}
    was_training = pipe.model.training
    pipe.model.eval()
    try:
        with torch.no_grad():
            encoded: tuple[torch.Tensor | None, Words | None] = pipe.model.condition(
                **inputs | rows
            )
    finally:
        pipe.model.train(was_training)
    return encoded


def _noise(model: Any, seeds: list[int]) -> torch.Tensor:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    noise: torch.Tensor = model.draw_latents(len(seeds), generators)
    return noise.to(device=model.device, dtype=model.dtype)


def _mix(
    first: tuple[torch.Tensor | None, Words | None],
    second: tuple[torch.Tensor | None, Words | None],
    fraction: float,
) -> tuple[torch.Tensor | None, Words | None]:
    """Return conditions between two; at the ends they are what they are."""
    if fraction in (0.0, 1.0):
        return second if fraction else first
    (vector, words), (other_vector, other_words) = first, second
    if vector is None or other_vector is None:
        return None, None
    mixed = torch.lerp(vector, other_vector, fraction)
    if words is None or other_words is None:
        return mixed, None
    # Where only one text has a word, it fades in or out.
    states = (1 - fraction) * words.states * words.mask[..., None]
    states = states + fraction * other_words.states * other_words.mask[..., None]
    return mixed, Words(states, words.mask | other_words.mask)
