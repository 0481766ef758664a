"""Documents of pictures and texts, for a language model that draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset

from hf_genmodels.config.pixels import PixelOptions
from hf_genmodels.data.image_batches import EncodedCaptions
from hf_genmodels.data.image_set import ImageSet
from hf_genmodels.data.packing import IGNORED
from hf_genmodels.data.sampling import permutation
from hf_genmodels.data.seeding import mix_seed, mixed_numbers
from hf_genmodels.errors import UserError
from hf_genmodels.models.image_processing_pixels import GenPixelsImageProcessor
from hf_genmodels.tokenization.pixels import PixelVocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Tell the random numbers of one purpose from those of another.
_TASK_STREAM, _FLIP_STREAM, _TEXT_STREAM, _DROP_STREAM = 21, 22, 23, 24
_SHARE_STREAM, _HIDE_STREAM = 25, 26
_IMAGES_AT_A_TIME = 1024


def prompts_of(images: ImageSet, label_names: Sequence[str]) -> list[list[str]]:
    """Return the prompts of each image: its captions, its class, or its attributes in one line.

    Args:
        images: The images.
        label_names: Names of the classes or attributes.
    """
    if images.captions is not None:
        return images.captions
    if images.labels is None:
        return [[""]] * len(images)
    if images.labels.ndim == 1:
        return [[label_names[label]] for label in images.labels.tolist()]
    names = np.array(label_names)
    return [[", ".join(names[row == 1])] for row in images.labels]


@dataclass(frozen=True)
class EncodedPictures:
    """Pictures as colours, with their prompts as tokens.

    Attributes:
        colours: Of each size the index of every pixel's colour, (N, size * size), int16.
        prompts: The tokens of the prompts; `None` if all are empty.
    """

    colours: list[np.ndarray]
    prompts: EncodedCaptions | None

    @classmethod
    def of(
        cls,
        images: ImageSet,
        label_names: Sequence[str],
        processor: GenPixelsImageProcessor,
        tokenizer: PreTrainedTokenizerBase,
        max_prompt_tokens: int,
    ) -> EncodedPictures:
        """Find the colours of images and the tokens of their prompts.

        Args:
            images: The images.
            label_names: Names of their classes or attributes.
            processor: Knows palette and sizes.
            tokenizer: The model's tokenizer.
            max_prompt_tokens: Longest prompt in tokens.
        """
        colours = []
        for index in range(len(processor.image_sizes)):
            parts = [
                processor(np.array(images.images[start : start + _IMAGES_AT_A_TIME]), index)
                for start in range(0, len(images), _IMAGES_AT_A_TIME)
            ]
            found = np.concatenate([part["pixel_ids"].numpy() for part in parts])
            colours.append(found.astype(np.int16))
        prompts = prompts_of(images, label_names)
        encoded = None
        if any(text for own in prompts for text in own):
            encoded = EncodedCaptions.from_texts(prompts, tokenizer, max_prompt_tokens)
        return cls(colours, encoded)

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.colours[0])

    def prompt(self, index: int, choice: float = 0.0) -> np.ndarray:
        """Return the tokens of one of a picture's prompts, (S,), int64.

        Args:
            index: Number of the picture.
            choice: Which one, in [0, 1).
        """
        if self.prompts is None:
            return np.empty(0, np.int64)
        first, stop = self.prompts.starts[index : index + 2]
        row = first + int(choice * (stop - first))
        return self.prompts.input_ids[row][self.prompts.attention_mask[row] == 1]

    def picture(self, index: int, *, mirrored: bool = False) -> list[np.ndarray]:
        """Return the colours of a picture in each size, (size * size,), int16."""
        own = [colours[index] for colours in self.colours]
        if not mirrored:
            return own
        sides = [round(len(colours) ** 0.5) for colours in own]
        return [
            colours.reshape(side, side)[:, ::-1].ravel()
            for colours, side in zip(own, sides, strict=True)
        ]


def document(
    task: str, prompt: np.ndarray, pictures: Sequence[np.ndarray], vocabulary: PixelVocabulary
) -> tuple[np.ndarray, np.ndarray]:
    """Put a document together.

    | task | document | scored |
    |---|---|---|
    | draw | begin, prompt, image, pixels, end | pixels, end |
    | caption | begin, image, pixels, caption, prompt, end | pixels, prompt, end |
    | super_resolution | begin, small image, its pixels, image, pixels, end | the last pixels, end |

    A caption's picture is one without prompt, and is learned as such.

    Args:
        task: What is learned from it.
        prompt: Tokens of the text.
        pictures: Colours of the picture in each size.
        vocabulary: Tokens between them.

    Returns:
        The tokens, (T,), int64, and which are scored, (T,), bool.
    """
    known, no_text = vocabulary, np.empty(0, np.int64)
    pixels, *small = (picture.astype(np.int64) + known.first_colour for picture in pictures)
    image, begin, end = [known.images[0]], [known.begin], [known.end]
    before: Sequence[np.ndarray | list[int]] = [begin, prompt, image]
    after: Sequence[np.ndarray | list[int]] = [no_text, no_text, end]
    if task == "caption":
        before, after = [begin, image], [[known.caption], prompt, end]
    elif task == "super_resolution":
        before = [begin, [known.images[1]], small[0], image]
    parts = [*before, pixels, *after]
    scored = [*[False] * len(before), True, False, True, True]
    tokens = np.concatenate([np.asarray(part, np.int64) for part in parts])
    return tokens, np.repeat(scored, [len(part) for part in parts])


def filled_up(
    rows: Sequence[tuple[np.ndarray, np.ndarray]],
    pad: int,
    hidden: Sequence[np.ndarray] | None = None,
) -> list[dict[str, torch.Tensor]]:
    """Return documents as models take them, filled up on the right to the longest of them.

    Args:
        rows: Tokens of each, and which are scored.
        pad: Token that fills up; causal attention needs no mask for it.
        hidden: Which tokens of each the model does not see, though they are scored: `pad` stands in
            their place.

    Returns:
        `input_ids` and `labels`, equal to them or -100 (the model shifts them), (T,), int64.
    """
    length = max(len(tokens) for tokens, _ in rows)
    items = []
    for number, (tokens, scored) in enumerate(rows):
        input_ids = np.full(length, pad, np.int64)
        labels = np.full(length, IGNORED, np.int64)
        input_ids[: len(tokens)] = (
            tokens if hidden is None else np.where(hidden[number], pad, tokens)
        )
        labels[: len(tokens)][scored] = tokens[scored]
        items.append({"input_ids": torch.from_numpy(input_ids), "labels": torch.from_numpy(labels)})
    return items


class PixelDocuments(Dataset):
    """The training documents: one a picture, whose task differs from epoch to epoch.

    Task, prompt, whether the prompt is left out and whether the picture is mirrored are pure functions
    of seed, epoch and the picture's number.

    Args:
        pictures: The pictures and their prompts.
        vocabulary: Tokens between them.
        options: Weights of the tasks, and what is drawn at random.
        seed: Seed of the run.

    Attributes:
        tasks: What is learned from the documents.
        pictures: The pictures and their prompts.

    Raises:
        UserError: If no task remains for pictures without texts.
    """

    def __init__(
        self,
        pictures: EncodedPictures,
        vocabulary: PixelVocabulary,
        options: PixelOptions,
        *,
        seed: int,
    ):
        self.pictures, self._vocabulary, self._options = pictures, vocabulary, options
        self._seed = seed
        weights = options.weights | ({} if pictures.prompts is not None else {"caption": 0.0})
        total = sum(weights.values())
        if not total:
            raise UserError(
                "The images have no captions and no classes to learn. Give --text_column or "
                "--pixels.label_column, or set --pixels.draw above 0."
            )
        self.tasks = [name for name, weight in weights.items() if weight]
        self._bounds = np.cumsum([weights[name] / total for name in self.tasks])[:-1]

    def __len__(self) -> int:
        """Number of documents in an epoch."""
        return len(self.pictures)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        """Return one document: `input_ids` and `labels`, (T,), int64."""
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[dict[str, torch.Tensor]]:
        """Return several documents of one length, given epoch and number of each."""
        epochs, indices = np.array(keys, dtype=np.int64).T
        place = _mixed(epochs, indices)
        tasks = np.searchsorted(self._bounds, self._shares(_TASK_STREAM, place), "right")
        drops = self._shares(_DROP_STREAM, place) < self._options.prompt_dropout
        flips = self._shares(_FLIP_STREAM, place) < (0.5 if self._options.flip else 0.0)
        choices = self._shares(_TEXT_STREAM, place)
        rows = []
        for index, number, drop, flip, choice in zip(
            indices.tolist(), tasks, drops, flips, choices, strict=True
        ):
            task = self.tasks[number]
            prompt = self.pictures.prompt(index, choice)
            if drop and task == "draw":
                prompt = prompt[:0]
            pictures = self.pictures.picture(index, mirrored=bool(flip))
            rows.append(document(task, prompt, pictures, self._vocabulary))
        return filled_up(rows, self._vocabulary.pad, self._hidden(rows, place))

    def _hidden(
        self, rows: Sequence[tuple[np.ndarray, np.ndarray]], place: np.ndarray
    ) -> list[np.ndarray] | None:
        """Return which scored pixels of each document the model does not see.

        Bowman et al. 2016 (arXiv:1511.06349) hide words for the same reason: a model that sees all that
        went before has no need to look at what it is given.
        """
        if not self._options.hidden_pixels:
            return None
        shares = self._options.hidden_pixels * self._shares(_SHARE_STREAM, place)
        seeds = mixed_numbers(mix_seed(self._seed, _HIDE_STREAM), place)
        hidden = []
        for (tokens, scored), share, seed in zip(rows, shares, seeds.tolist(), strict=True):
            falls = mixed_numbers(seed, np.arange(len(tokens))) / 2.0**64
            hidden.append(scored & self._vocabulary.is_colour(tokens) & (falls < share))
        return hidden

    def _shares(self, stream: int, place: np.ndarray) -> np.ndarray:
        """Return a random number in [0, 1) for each place."""
        return mixed_numbers(mix_seed(self._seed, stream), place) / 2.0**64


class TaskDocuments(Dataset):
    """The documents of one task in a fixed order: each picture with its first prompt, nothing at random.

    Args:
        pictures: The pictures and their prompts.
        vocabulary: Tokens between them.
        task: The task. Of a caption only the text is scored, of a picture only its pixels.
        limit: Most documents, chosen evenly among the pictures; `None` for all.
    """

    def __init__(
        self,
        pictures: EncodedPictures,
        vocabulary: PixelVocabulary,
        task: str,
        limit: int | None = None,
    ):
        self._pictures, self._vocabulary, self.task = pictures, vocabulary, task
        number = min(len(pictures), limit or len(pictures))
        self.indices = permutation(0, 0, len(pictures))[:number].sort().values.tolist()

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.indices)

    def __getitem__(self, key: int) -> dict[str, torch.Tensor]:
        """Return one document: `input_ids` and `labels`, (T,), int64."""
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """Return several documents of one length."""
        rows = []
        for key in keys:
            index = self.indices[key]
            tokens, scored = document(
                self.task,
                self._pictures.prompt(index),
                self._pictures.picture(index),
                self._vocabulary,
            )
            rows.append((tokens, scored & self._counts(tokens)))
        return filled_up(rows, self._vocabulary.pad)

    def _counts(self, tokens: np.ndarray) -> np.ndarray:
        """Tell which tokens the task is measured by."""
        is_pixel = self._vocabulary.is_colour(tokens)
        return ~is_pixel if self.task == "caption" else is_pixel


def _mixed(epochs: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Return one number for each pair of numbers."""
    return mixed_numbers(0, epochs) + indices.astype(np.uint64)
