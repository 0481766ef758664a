"""The training and validation pictures of a language model that draws."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

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


@dataclass(frozen=True)
class PixelData:
    """What a language model that draws is trained and validated on.

    Attributes:
        windows: Training documents.
        validation: Validation documents of each task that is learned; `None` without validation images.
        processor: Palette and sizes.
        images: The images themselves.
        vocabulary: Tokens of pictures.
        fingerprint: Digest of all of it.
        stream: There is none.
    """

    windows: PixelDocuments
    validation: dict[str, TaskDocuments] | None
    processor: GenPixelsImageProcessor
    images: ImageData
    vocabulary: PixelVocabulary
    fingerprint: str
    stream: None = None

    @property
    def validation_name(self) -> str:
        """Where the validation images are from, in words."""
        return self.images.validation_name

    def prompts(self, number: int) -> list[str]:
        """Return some prompts: the classes, or the first ones of the validation images.

        Args:
            number: Most prompts.
        """
        if self.images.kind == "class":
            return self.images.label_names[:number]
        shown = self.images.validation or self.images.train
        own = prompts_of(shown, self.images.label_names)
        texts = [texts[0] for texts in own[:: max(1, len(own) // number)]]
        return list(dict.fromkeys(texts))[:number]


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
    validation = None
    if images.validation is not None:
        pictures = encoded(images.validation)
        validation = {
            task: TaskDocuments(pictures, vocabulary, task, max_eval_images)
            for task in windows.tasks
        }
    palette = hashlib.sha256(json.dumps(processor.palette).encode()).hexdigest()
    return PixelData(
        windows, validation, processor, images, vocabulary, images.fingerprint + palette
    )
