"""The training and validation pictures of a language model that draws."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_genmodels.config.pixels import PixelOptions
from hf_genmodels.data.image_set import ImageSet
from hf_genmodels.data.images import ImageData
from hf_genmodels.data.pixel_documents import (
    EncodedPictures,
    PixelDocuments,
    TaskDocuments,
    prompts_of,
)
from hf_genmodels.models.image_processing_pixels import GenPixelsImageProcessor
from hf_genmodels.tokenization.pixels import PixelVocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

COLOURS = {1: "greys", 3: "colours", 4: "colours with transparency"}


@dataclass(frozen=True)
class PixelData:
    """What a language model that draws is trained and validated on.

    Attributes:
        windows: Training documents.
        validation: Validation documents of each task that is learned; `None` without validation images.
        processor: Palette and sizes.
        images: The images themselves.
        shown: Pictures that are shown beside drawn ones: those of validation, if there are any.
        shown_prompts: Their prompts.
        vocabulary: Tokens of pictures.
        fingerprint: Digest of all of it.
        stream: There is none.
    """

    windows: PixelDocuments
    validation: dict[str, TaskDocuments] | None
    processor: GenPixelsImageProcessor
    images: ImageData
    shown: EncodedPictures
    shown_prompts: list[list[str]]
    vocabulary: PixelVocabulary
    fingerprint: str
    stream: None = None

    @property
    def validation_name(self) -> str:
        """Where the validation images are from, in words."""
        return self.images.validation_name

    @property
    def facts(self) -> dict[str, Any]:
        """Facts about the training data, for people."""
        size, *small = self.processor.image_sizes
        return {
            "pictures": f"{len(self.windows):,}",
            "left out": f"{len(self.images.skipped):,}",
            "size": " and ".join(f"{side} x {side}" for side in (size, *small)),
            "palette": f"{len(self.processor.palette)} {COLOURS[self.processor.num_channels]}",
            "tasks": ", ".join(self.windows.tasks).replace("_", " "),
        }

    @property
    def in_words(self) -> str:
        """How much there is to train and to validate on."""
        facts = self.facts
        validation = f"{len(self.shown):,}" if self.validation is not None else "none"
        return (
            f"{facts['pictures']} pictures of {facts['size']} in {facts['palette']} to train on "
            f"({facts['tasks']}), {validation} to validate on"
        )

    def prompts(self, number: int) -> list[str]:
        """Return some prompts: the classes, or the first ones of the validation images.

        Args:
            number: Most prompts.
        """
        if self.processor.labels:
            return self.processor.labels[:number]
        texts = [own[0] for own in self.shown_prompts]
        return list(dict.fromkeys(texts[:: max(1, len(texts) // number)]))[:number]

    def pictures_of(self, prompt: str, most: int) -> list[np.ndarray]:
        """Return the colours of some pictures with a prompt, (size * size,) each."""
        fitting = (n for n, own in enumerate(self.shown_prompts) if prompt in own)
        return [self.shown.picture(index)[0] for index in islice(fitting, most)]


def pixel_data(
    images: ImageData,
    processor: GenPixelsImageProcessor,
    tokenizer: PreTrainedTokenizerFast,
    options: PixelOptions,
    *,
    seed: int,
    max_eval_images: int | None,
) -> PixelData:
    """Make documents of images.

    Args:
        images: The images and what is known about them.
        processor: Palette and sizes.
        tokenizer: The model's tokenizer.
        options: Which tasks are learned.
        seed: Seed of the run.
        max_eval_images: Most validation images of a task.

    Raises:
        UserError: If the tokenizer does not fit, or nothing is known that a task needs.
    """
    vocabulary = PixelVocabulary.of(tokenizer, len(processor.image_sizes), len(processor.palette))

    def encoded(part: ImageSet) -> EncodedPictures:
        names, longest = images.label_names, options.max_prompt_tokens
        return EncodedPictures.of(part, names, processor, tokenizer, longest)

    windows = PixelDocuments(encoded(images.train), vocabulary, options, seed=seed)
    shown, pictures, validation = images.train, windows.pictures, None
    if images.validation is not None:
        shown, pictures = images.validation, encoded(images.validation)
        validation = {
            task: TaskDocuments(pictures, vocabulary, task, max_eval_images)
            for task in windows.tasks
        }
    palette = hashlib.sha256(json.dumps(processor.palette).encode()).hexdigest()
    return PixelData(
        windows=windows,
        validation=validation,
        processor=processor,
        images=images,
        shown=pictures,
        shown_prompts=prompts_of(shown, images.label_names),
        vocabulary=vocabulary,
        fingerprint=images.fingerprint + palette,
    )
