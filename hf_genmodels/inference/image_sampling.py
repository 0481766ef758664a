"""Draw images with a generator for what is known about real ones: their classes, attributes or captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from hf_genmodels.data.images import ImageData, ImageSet
from hf_genmodels.errors import UserError
from hf_genmodels.metrics.image_features import as_bytes

PIXELS_AT_ONCE = 250 * 32 * 32
Conditions = Mapping[str, torch.Tensor]


class Drawer(Protocol):
    """What draws images such as real ones, and is measured by them.

    Attributes:
        model: The model.
        kind: What it draws by: `class`, `attributes`, `text` or `none`.
    """

    model: Any
    kind: str

    def conditions(self, images: ImageSet, chosen: np.ndarray) -> dict[str, torch.Tensor]:
        """Return what is needed to draw images such as some real ones, N rows."""

    def texts(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return what is needed to draw images of texts, N rows."""

    def noise(self, number: int, seed: int) -> torch.Tensor:
        """Return what the images differ by, number rows; the first ones are the same for any number."""

    def draw(
        self,
        conditions: Conditions,
        latents: torch.Tensor,
        truncation: float = 1.0,
        progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Draw images, bytes (N, C, S, S)."""


class ImageDrawer:
    """A generator, and how the labels of some data are called by it.

    Args:
        model: The generator.
        tokenizer: Its tokenizer, if it reads texts.
        data: Real images. What the generator draws by must be known about them.

    Raises:
        UserError: If it is not, or a label of the data is none of the model's.
    """

    def __init__(self, model: Any, tokenizer: Any | None, data: ImageData):
        self.model, self.tokenizer = model, tokenizer
        self.kind: str = model.config.conditioning
        if self.kind not in ("none", data.kind):
            raise UserError(
                f"The model draws by {_WORDS[self.kind]}, and of these images {_WORDS[data.kind]} "
                "are known. Name the column that holds what it needs."
            )
        self._places = (
            _places(model, data.label_names) if self.kind in ("class", "attributes") else None
        )

    def conditions(self, images: ImageSet, chosen: np.ndarray) -> dict[str, torch.Tensor]:
        """Return what the generator needs to draw images such as some real ones.

        Args:
            images: Real images.
            chosen: Which of them, (N,); the first caption of each counts.
        """
        if self.kind == "none":
            return {}
        if self.kind == "text":
            captions = images.captions or []
            return self.texts([captions[place][0] for place in chosen.tolist()])
        assert self._places is not None
        labels = np.asarray(images.labels)[chosen]
        if self.kind == "class":
            return {"class_labels": torch.from_numpy(self._places[labels])}
        rows = np.zeros((len(chosen), self.model.config.num_labels), np.float32)
        rows[:, self._places] = labels
        return {"class_labels": torch.from_numpy(rows)}

    def texts(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return the tokens of texts as the model reads them, cut to its longest."""
        assert self.tokenizer is not None
        encoded = self.tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=self.model.config.max_position_embeddings,
            padding_side="right",
            return_tensors="pt",
        )
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}

    def draw(
        self,
        conditions: Conditions,
        latents: torch.Tensor,
        truncation: float = 1.0,
        progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Draw images; see `draw_images`."""
        return draw_images(self.model, conditions, latents, truncation, progress)

    def noise(self, number: int, seed: int) -> torch.Tensor:
        """Return noise (number, latent_dim); the first rows are the same for any number."""
        latents: torch.Tensor = self.model.draw_latents(number, torch.Generator().manual_seed(seed))
        return latents


def draw_images(
    model: Any,
    conditions: Conditions,
    latents: torch.Tensor,
    truncation: float = 1.0,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Draw any number of images, some at once.

    Args:
        model: A generator.
        conditions: Keywords of its `sample`, N rows each.
        latents: Noise, (N, latent_dim).
        truncation: Scales the noise.
        progress: Is told the number of images of each batch.

    Returns:
        Bytes, (N, C, S, S), or of clips (N, T, C, S, S).
    """
    pixels = model.config.image_size**2 * model.config.num_frames
    size = max(1, PIXELS_AT_ONCE // pixels)
    drawn = []
    for start in range(0, len(latents), size):
        rows = slice(start, start + size)
        own = {name: value[rows] for name, value in conditions.items()}
        images = model.sample(
            len(latents[rows]), latents=latents[rows], truncation=truncation, **own
        )
        drawn.append(as_bytes(images).cpu().contiguous().numpy())
        if progress is not None:
            progress(len(images))
    return np.concatenate(drawn)


def spread_places(images: ImageSet, number: int) -> np.ndarray:
    """Choose images evenly, every class as often as its share of all images asks for.

    Args:
        images: Real images.
        number: How many; they repeat where there are not as many.

    Returns:
        Their places, (number,), sorted by class.
    """
    order = np.arange(len(images))
    if images.labels is not None and images.labels.ndim == 1:
        order = np.argsort(images.labels, kind="stable")
    steps = (np.arange(number) * (len(images) / number)).astype(np.int64)
    return order[steps]


def _places(model: Any, names: Sequence[str]) -> np.ndarray:
    """Return the model's id of each label of the data."""
    known = {str(name): int(number) for name, number in model.config.label2id.items()}
    missing = [name for name in names if name not in known]
    if missing:
        raise UserError(
            f"The images have the label {missing[0]!r}, which the model does not know. Its labels: "
            f"{', '.join(list(known)[:20])}{', ...' if len(known) > 20 else ''}."
        )
    return np.array([known[name] for name in names], dtype=np.int64)


_WORDS = {"none": "nothing", "class": "classes", "attributes": "attributes", "text": "captions"}
