"""Draw, describe and enlarge the pictures of some data with a language model of pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from hf_genmodels.data.image_set import ImageSet
from hf_genmodels.data.images import ImageData
from hf_genmodels.data.pixel_documents import prompts_of
from hf_genmodels.inference.image_sampling import Conditions
from hf_genmodels.models.pixel_sampling import (
    PixelSettings,
    describing_prompt,
    draw_pixels,
    picture_prompt,
)

PIXELS_AT_ONCE = 64 * 16 * 16
LONGEST_CAPTION = 32


class PixelDrawer:
    """A language model of pixels, with the methods by which generators of images are measured.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        processor: Its palette.
        data: Real images, whose classes, attributes or captions are prompts.
        settings: How freely colours are drawn.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        processor: Any,
        data: ImageData,
        settings: PixelSettings,
    ):
        self.model, self.tokenizer, self.processor = model, tokenizer, processor
        self.settings, self._names = settings, data.label_names
        self.kind: str = data.kind

    def conditions(self, images: ImageSet, chosen: np.ndarray) -> dict[str, torch.Tensor]:
        """Return the prompts of some real images, N rows.

        Args:
            images: Real images.
            chosen: Which of them, (N,); the first caption of each counts.
        """
        prompts = prompts_of(images, self._names)
        return self.texts([prompts[place][0] for place in chosen.tolist()])

    def texts(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return the tokens of texts, cut to the room that there is beside a picture."""
        config = self.model.config
        room = config.max_position_embeddings - config.image_sizes[0] ** 2 - 2
        rows = [self.tokenizer(text, verbose=False)["input_ids"][:room] for text in texts]
        mask = torch.arange(max(map(len, rows), default=0)) < torch.tensor(
            [len(row) for row in rows]
        ).unsqueeze(1)
        ids = torch.zeros(mask.shape, dtype=torch.long)
        ids[mask] = torch.tensor([token for row in rows for token in row], dtype=torch.long)
        return {"input_ids": ids, "attention_mask": mask}

    def noise(self, number: int, seed: int) -> torch.Tensor:
        """Return the seed of each picture, (number,); the first ones are the same for any number."""
        return torch.arange(number) + (seed << 32)

    def draw(
        self,
        conditions: Conditions,
        latents: torch.Tensor,
        truncation: float = 1.0,
        progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Draw a picture for each prompt.

        Args:
            conditions: What `texts` returned, N rows.
            latents: What `noise` returned, (N,).
            truncation: Scales the temperature, as it scales the noise of other generators.
            progress: Is told the number of pictures of each batch.

        Returns:
            Bytes, (N, C, S, S).
        """
        rows = zip(conditions["input_ids"], conditions["attention_mask"], strict=True)
        prompts = [picture_prompt(self.model.config, ids[mask].tolist()) for ids, mask in rows]
        settings = replace(self.settings, temperature=self.settings.temperature * truncation)
        return self._drawn(prompts, latents.tolist(), settings, progress)

    def enlarged(
        self, small: np.ndarray, progress: Callable[[int], None] | None = None
    ) -> np.ndarray:
        """Draw a picture for each small one, always in the likeliest colour.

        Args:
            small: Colours of the small pictures, (N, S * S).
            progress: Is told the number of pictures of each batch.

        Returns:
            Bytes, (N, C, S, S).
        """
        prompts = [picture_prompt(self.model.config, small=row.tolist()) for row in small]
        return self._drawn(prompts, [0] * len(prompts), PixelSettings(temperature=0), progress)

    @torch.inference_mode()
    def described(
        self, colours: np.ndarray, progress: Callable[[int], None] | None = None
    ) -> list[str]:
        """Write the likeliest text about each picture.

        Args:
            colours: Colours of the pictures, (N, S * S).
            progress: Is told the number of pictures of each batch.
        """
        config, texts = self.model.config, list[str]()
        size = self._batch_size()
        for start in range(0, len(colours), size):
            rows = [describing_prompt(config, row) for row in colours[start : start + size]]
            ids = torch.tensor(rows, device=self.model.device)
            room = config.max_position_embeddings - ids.shape[1]
            written = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=min(room, LONGEST_CAPTION),
                pad_token_id=config.pad_token_id,
            )
            texts += self.tokenizer.batch_decode(
                written[:, ids.shape[1] :], skip_special_tokens=True
            )
            if progress is not None:
                progress(len(rows))
        return [text.strip() for text in texts]

    def _batch_size(self) -> int:
        return max(1, PIXELS_AT_ONCE // self.model.config.image_sizes[0] ** 2)

    def _drawn(
        self,
        prompts: list[list[int]],
        seeds: list[int],
        settings: PixelSettings,
        progress: Callable[[int], None] | None,
    ) -> np.ndarray:
        drawn, size = [], self._batch_size()
        for start in range(0, len(prompts), size):
            own = slice(start, start + size)
            generators = [torch.Generator().manual_seed(seed) for seed in seeds[own]]
            colours = draw_pixels(self.model, prompts[own], settings, generators=generators)
            drawn.append(self.processor.to_pixels(colours).numpy())
            if progress is not None:
                progress(len(colours))
        return np.concatenate(drawn)
