"""The vocabulary of a language model that draws: texts, colours, and what stands between them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from hf_genmodels.errors import UserError
from hf_genmodels.tokenization.bpe import train_bpe

IMAGE_TOKENS = ("<|image|>", "<|small_image|>")
CAPTION_TOKEN = "<|caption|>"
COLOUR_TOKEN = re.compile(r"<\|c\d+\|>")


def train_pixel_tokenizer(
    texts: Iterable[str], *, vocab_size: int, num_colours: int, model_max_length: int
) -> PreTrainedTokenizerFast:
    """Train a tokenizer of prompts, in which the colours of a palette are tokens too.

    Args:
        texts: The prompts. If there are none, it knows single bytes.
        vocab_size: Most tokens of the texts, the 256 bytes included.
        num_colours: Number of colours.
        model_max_length: Longest document in tokens.
    """
    colours = [f"<|c{number}|>" for number in range(num_colours)]
    specials = [*IMAGE_TOKENS, CAPTION_TOKEN, *colours]
    return train_bpe(
        [text for text in texts if text] or [" "],
        vocab_size=vocab_size + len(specials),
        special_tokens=specials,
        model_max_length=model_max_length,
    )


@dataclass(frozen=True)
class PixelVocabulary:
    """Ids of the tokens that frame texts and pictures.

    Attributes:
        begin: Begins a document.
        end: Ends it.
        pad: Fills up a batch.
        images: Begins a picture of each size.
        caption: Stands before the text about a picture.
        first_colour: The first colour of the palette.
        num_colours: Number of colours.
    """

    begin: int
    end: int
    pad: int
    images: tuple[int, ...]
    caption: int
    first_colour: int
    num_colours: int

    @classmethod
    def of(
        cls, tokenizer: PreTrainedTokenizerFast, num_sizes: int, num_colours: int | None = None
    ) -> PixelVocabulary:
        """Find the tokens in a tokenizer that `train_pixel_tokenizer` made.

        Args:
            tokenizer: The tokenizer.
            num_sizes: Number of sizes of pictures.
            num_colours: Number of colours that it must know; `None`: those that it knows.

        Raises:
            UserError: If it lacks one.
        """
        known = tokenizer.get_vocab()
        if num_colours is None:
            num_colours = sum(COLOUR_TOKEN.fullmatch(name) is not None for name in known)
        names = [*IMAGE_TOKENS[:num_sizes], CAPTION_TOKEN, "<|c0|>", f"<|c{num_colours - 1}|>"]
        if missing := [name for name in names if name not in known]:
            raise UserError(
                f"The tokenizer has no token {missing[0]}, so it is not one of such pictures. Leave "
                "out --tokenizer_name: one is trained."
            )
        *images, caption, first, _ = (known[name] for name in names)
        return cls(
            begin=int(tokenizer.bos_token_id),
            end=int(tokenizer.eos_token_id),
            pad=int(tokenizer.pad_token_id),
            images=tuple(images),
            caption=caption,
            first_colour=first,
            num_colours=num_colours,
        )

    def is_colour(self, tokens: np.ndarray) -> np.ndarray:
        """Tell which tokens are pixels; returns the same shape, bool."""
        return (tokens >= self.first_colour) & (tokens < self.first_colour + self.num_colours)

    @property
    def config_fields(self) -> dict[str, Any]:
        """The fields of `GenGPTConfig` that name these tokens."""
        return {
            "image_token_ids": list(self.images),
            "caption_token_id": self.caption,
            "palette_token_id": self.first_colour,
            "palette_size": self.num_colours,
        }
