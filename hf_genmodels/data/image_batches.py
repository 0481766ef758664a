"""Batches of images as a pure function of seed and position."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from hf_genmodels.config.images import ImageDataConfig
from hf_genmodels.data.images import ImageSet, scaled
from hf_genmodels.data.sampling import permutation
from hf_genmodels.data.seeding import mix_seed, mixed_numbers
from hf_genmodels.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger("hf_genmodels")
# Tell the random numbers of one purpose from those of another.
_FLIP_STREAM, _CAPTION_STREAM, _CLASS_STREAM, _IMAGE_STREAM = 11, 12, 13, 14


@dataclass(frozen=True)
class EncodedCaptions:
    """The tokens of all captions, filled up on the right.

    Attributes:
        input_ids: Shape (M, S), int64: the captions of all images one after the other.
        attention_mask: 1 where a token is, shape (M, S), int64.
        starts: Index of each image's first caption, and M at the end, shape (N + 1,), int64.
    """

    input_ids: np.ndarray
    attention_mask: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        """Number of images."""
        return len(self.starts) - 1

    @classmethod
    def from_texts(
        cls,
        captions: Sequence[Sequence[str]],
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
    ) -> EncodedCaptions:
        """Tokenise the captions of images.

        Args:
            captions: One or more texts of each image.
            tokenizer: Its special tokens are added, and its padding token fills up.
            max_length: Longest caption in tokens; what is longer is cut off, with a warning.

        Raises:
            UserError: If an image has no caption, a caption no token, or the tokenizer no padding token.
        """
        if tokenizer.pad_token_id is None:
            raise UserError(
                "The tokenizer of captions has no padding token. Set tokenizer.pad_token."
            )
        texts = [text for own in captions for text in own]
        rows = tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]
        counts = [len(own) for own in captions]
        if not all(counts) or not all(map(len, rows)):
            raise UserError(
                "An image has no caption, or one without a token, and is drawn by none."
            )
        lengths = np.array([len(row) for row in rows])
        full = [text for text, row in zip(texts, rows, strict=True) if len(row) == max_length]
        uncut = tokenizer(full, verbose=False)["input_ids"] if full else []
        if cut := sum(len(row) > max_length for row in uncut):
            logger.warning(
                "%s of %s captions are longer than %d tokens: only their beginnings are read",
                f"{cut:,}",
                f"{len(texts):,}",
                max_length,
            )
        mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
        ids = np.full(mask.shape, tokenizer.pad_token_id, dtype=np.int64)
        ids[mask == 1] = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
        return cls(ids, mask, np.cumsum([0, *counts]).astype(np.int64))

    def rows(self, chosen: np.ndarray) -> dict[str, torch.Tensor]:
        """Return captions as a model takes them.

        Args:
            chosen: Indices of captions, shape (B,).

        Returns:
            ``input_ids`` and ``attention_mask``, shape (B, S), int64.
        """
        return {
            "input_ids": torch.from_numpy(self.input_ids[chosen]),
            "attention_mask": torch.from_numpy(self.attention_mask[chosen]),
        }


class BalancedOrder:
    """An endless order in which every class comes once in as many positions as there are classes.

    The images of a class come one after the other, in an order of their own in every round.

    Args:
        labels: Class of each image, shape (N,).
        seed: Seed of the run.
    """

    def __init__(self, labels: np.ndarray, seed: int):
        order = np.argsort(labels, kind="stable")
        _, starts = np.unique(labels[order], return_index=True)
        self._members = np.split(order, starts[1:])
        self._class_seed = mix_seed(seed, _CLASS_STREAM)
        self._image_seeds = [
            mix_seed(seed, _IMAGE_STREAM, number) for number in range(len(self._members))
        ]
        self._orders: dict[int, tuple[int, np.ndarray]] = {}
        self._classes: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def images(self, positions: np.ndarray) -> np.ndarray:
        """Return which images stand at some positions, shape (B,), int64."""
        return np.array([self._image(position) for position in positions.tolist()], dtype=np.int64)

    def _image(self, position: int) -> int:
        block, place = divmod(position, len(self._members))
        if self._classes[0] != block:
            self._classes = block, permutation(self._class_seed, block, len(self._members)).numpy()
        number = int(self._classes[1][place])
        members = self._members[number]
        turn, place = divmod(block, len(members))
        if self._orders.get(number, (-1,))[0] != turn:
            order = permutation(self._image_seeds[number], turn, len(members)).numpy()
            self._orders[number] = turn, members[order]
        return int(self._orders[number][1][place])


class ShuffledOrder:
    """An endless order in which every image comes once an epoch.

    Args:
        size: Number of images.
        seed: Seed of the run.
    """

    def __init__(self, size: int, seed: int):
        self._size, self._seed = size, seed
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def images(self, positions: np.ndarray) -> np.ndarray:
        """Return which images stand at some positions, shape (B,), int64."""
        epochs, places = np.divmod(positions, self._size)
        found = np.empty(len(positions), dtype=np.int64)
        for epoch in np.unique(epochs).tolist():
            if self._order[0] != epoch:
                self._order = epoch, permutation(self._seed, epoch, self._size).numpy()
            found[epochs == epoch] = self._order[1][places[epochs == epoch]]
        return found


class ImageBatches:
    """An endless iterator over one rank's training batches.

    Batch k of all processes covers the positions from ``start + k * batch_size * world_size``, and each
    process takes its own ``batch_size`` of them. Which image stands at a position, whether it is
    mirrored and which of its captions it has are pure functions of the seed and the position. So the same
    global batches come from 1 process with 4 batches a step, from 2 with 2 and from 4 with 1.

    Args:
        config: Whether images are mirrored, and classes drawn equally often.
        image_set: Training images.
        seed: Seed of the order.
        batch_size: Images in a batch of one process.
        rank: Number of this process.
        world_size: Number of processes.
        start: What `position` was when the batches before had been used.
        captions: Tokens of the captions of ``image_set``, if a model is conditioned on them.

    Raises:
        ValueError: If a number is out of range or the captions are those of other images.
    """

    def __init__(
        self,
        config: ImageDataConfig,
        image_set: ImageSet,
        *,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        start: dict[str, int] | None = None,
        captions: EncodedCaptions | None = None,
    ):
        if batch_size < 1 or not 0 <= rank < world_size:
            raise ValueError(
                f"batch_size {batch_size} must be at least 1 and rank {rank} below {world_size}."
            )
        if captions is not None and len(captions) != len(image_set):
            raise ValueError(f"There are captions of {len(captions)} images, not {len(image_set)}.")
        self._images, self._captions = image_set, captions
        self._flip = config.flip
        self._stride, self._own = batch_size * world_size, batch_size * rank + np.arange(batch_size)
        self._start, self._used = int((start or {"images": 0})["images"]), 0
        self._flip_seed = mix_seed(seed, _FLIP_STREAM)
        self._caption_seed = mix_seed(seed, _CAPTION_STREAM)
        balanced = config.balanced and image_set.labels is not None
        self._order: BalancedOrder | ShuffledOrder = (
            BalancedOrder(np.asarray(image_set.labels), seed)
            if balanced
            else ShuffledOrder(len(image_set), seed)
        )

    def __iter__(self) -> ImageBatches:
        """Return the iterator itself."""
        return self

    def __next__(self) -> dict[str, torch.Tensor]:
        """Return the next batch.

        Returns:
            ``images`` of shape (B, C, H, W), float32, in [-1, 1]; with classes ``class_labels`` of shape
            (B,), int64; with attributes the same of shape (B, A), float32; with captions ``input_ids`` and
            ``attention_mask`` of shape (B, S), int64.
        """
        positions = self._start + self._used * self._stride + self._own
        self._used += 1
        chosen = self._order.images(positions)
        images = self._images.images[chosen]
        if self._flip:
            mirrored = mixed_numbers(self._flip_seed, positions) % 2 == 1
            images[mirrored] = images[mirrored][..., ::-1]
        batch = {"images": scaled(images)}
        if (labels := self._images.labels) is not None:
            found = torch.from_numpy(labels[chosen])
            batch["class_labels"] = found if found.ndim == 1 else found.float()
        if self._captions is not None:
            batch |= self._captions.rows(self._caption_of(chosen, positions))
        return batch

    @property
    def position(self) -> dict[str, int]:
        """Where the batches of all processes stand after the last one, JSON-able."""
        return {"images": self._start + self._used * self._stride}

    def _caption_of(self, chosen: np.ndarray, positions: np.ndarray) -> np.ndarray:
        assert self._captions is not None
        first, counts = self._captions.starts[chosen], np.diff(self._captions.starts)[chosen]
        drawn = mixed_numbers(self._caption_seed, positions) % counts.astype(np.uint64)
        return first + drawn.astype(np.int64)
