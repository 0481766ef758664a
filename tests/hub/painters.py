"""Small language models that draw, with their tokenizer and their processor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from hf_genmodels.hub.folder import publish_folder
from hf_genmodels.models.image_processing_pixels import GenPixelsImageProcessor
from hf_genmodels.models.modeling_gpt import GenGPTForCausalLM
from hf_genmodels.tokenization.pixels import PixelVocabulary, train_pixel_tokenizer
from tests.models import pixels

SIZES = [4, 2]
COLOURS = 8
PROMPTS = ["red heart", "blue cat"]


@dataclass(frozen=True)
class Painter:
    """What a folder holds."""

    model: GenGPTForCausalLM
    tokenizer: PreTrainedTokenizerFast
    processor: GenPixelsImageProcessor

    @property
    def parts(self) -> dict[str, Any]:
        """What a pipeline is given."""
        parts = {"tokenizer": self.tokenizer, "image_processor": self.processor}
        return {"model": self.model, "device": "cpu", **parts}

    def publish(self, folder: Path) -> Path:
        """Write the folder."""
        return publish_folder(self.model, self.tokenizer, folder, image_processor=self.processor)


def painter(
    sizes: list[int] | None = None,
    labels: list[str] | None = None,
    palette: list[list[int]] | None = None,
    **fields: Any,
) -> Painter:
    """Return a model that draws grey pictures of 4 x 4 and knows small ones of 2 x 2."""
    sizes = sizes or SIZES
    palette = palette or [[round(255 * i / (COLOURS - 1))] for i in range(COLOURS)]
    tokenizer = train_pixel_tokenizer(
        PROMPTS, vocab_size=270, num_colours=len(palette), model_max_length=64
    )
    vocabulary = PixelVocabulary.of(tokenizer, len(sizes))
    ids = {
        name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")
    }
    model = pixels.model(
        vocab_size=len(tokenizer),
        max_position_embeddings=40,
        image_sizes=sizes,
        **{**vocabulary.config_fields, **ids, **fields},
    )
    return Painter(model, tokenizer, GenPixelsImageProcessor(palette, sizes, "crop", labels or []))
