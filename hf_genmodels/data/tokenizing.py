"""Text pieces to token ids: batched, in constant memory, with progress."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import numpy as np
from tqdm.auto import tqdm

from hf_genmodels.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

    from hf_genmodels.data.sources import Piece

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

# Characters of text that are handed to the tokenizer at a time.
_BATCH_CHARACTERS = 1 << 20
# Seconds between log lines when there is no terminal for a progress bar.
_LOG_EVERY = 30.0


def encode(backend: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each text, special tokens that stand in the text included.

    Args:
        backend: A tokenizer without truncation and padding.
        texts: Stretches of text, encoded in parallel.
    """
    encodings = backend.encode_batch_fast(list(texts), add_special_tokens=False)
    return [encoding.ids for encoding in encodings]


def plain_backend(tokenizer: PreTrainedTokenizerBase) -> tuple[Tokenizer, int]:
    """Return a copy of the tokenizer's backend without truncation and padding, and the eos id."""
    from tokenizers import Tokenizer

    if not tokenizer.is_fast:
        raise UserError(
            f"The tokenizer {type(tokenizer).__name__} has no tokenizer.json (it is not a fast tokenizer). "
            f"Train one with: genmodels tokenizer"
        )
    if tokenizer.eos_token_id is None:
        raise UserError(
            "The tokenizer has no end-of-sequence token, which separates documents. "
            "Set one with tokenizer.eos_token and save the tokenizer again."
        )
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend, int(tokenizer.eos_token_id)


def joined(
    pieces: Sequence[Piece], encoded: Sequence[list[int]], eos_token_id: int, last_id: int
) -> np.ndarray:
    """Join the ids of pieces, with one eos token after each document.

    Args:
        pieces: The pieces.
        encoded: Token ids of each piece.
        eos_token_id: Token that ends every document.
        last_id: The id before these pieces; the eos token that begins the data at first.

    Returns:
        Token ids, 1-D, int64. Documents without any token leave no trace: an eos token right after
        another one is left out, also where it stood in the text.
    """
    ids: list[int] = []
    for piece, piece_ids in zip(pieces, encoded, strict=True):
        ids.extend(piece_ids)
        if piece.last:
            ids.append(eos_token_id)
    is_eos = np.array([last_id, *ids], dtype=np.int64) == eos_token_id
    return np.array(ids, dtype=np.int64)[~(is_eos[1:] & is_eos[:-1])]


class TokenWriter:
    """Appends documents to the two files of a cache and counts what it wrote.

    Args:
        tokens: File that takes the token ids, first of all the eos token.
        starts: File that takes the index of the eos token that begins each document, int64.
        dtype: Type of the token ids in the file.
        eos_token_id: Token that begins and ends every document.
    """

    def __init__(self, tokens: BinaryIO, starts: BinaryIO, dtype: np.dtype, eos_token_id: int):
        self.dtype = dtype
        self.num_tokens = 1
        self.num_documents = 0
        self.num_bytes = 0
        self.max_token_id = eos_token_id
        self._tokens = tokens
        self._starts = starts
        self._eos = eos_token_id
        self._last_id = eos_token_id
        tokens.write(np.array([eos_token_id], dtype=dtype).tobytes())

    def append(self, pieces: Sequence[Piece], encoded: Sequence[list[int]]) -> None:
        """Write the ids of some pieces, and the eos token after each document."""
        self._write(joined(pieces, encoded, self._eos, self._last_id))
        self.num_bytes += sum(len(piece.text.encode()) for piece in pieces)

    def _write(self, ids: np.ndarray) -> None:
        if not len(ids):
            return
        previous_ids = np.concatenate([[self._last_id], ids[:-1]])
        # An eos token begins a document as soon as something follows it.
        starts = np.flatnonzero(previous_ids == self._eos) + self.num_tokens - 1
        self._starts.write(starts.astype(np.int64).tobytes())
        self._tokens.write(ids.astype(self.dtype).tobytes())
        self._last_id = int(ids[-1])
        self.num_tokens += len(ids)
        self.num_documents += len(starts)
        self.max_token_id = max(self.max_token_id, int(ids.max()))


def first_documents(pieces: Iterable[Piece], limit: int | None) -> Iterator[Piece]:
    """Yield the pieces of the first ``limit`` documents, or all."""
    documents = 0
    for piece in pieces:
        if limit is not None and documents >= limit:
            return
        yield piece
        documents += piece.last


def grouped(items: Iterable[Item], length: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Group items so that each list holds about ``_BATCH_CHARACTERS`` characters.

    Args:
        items: What is tokenised, in order.
        length: Returns how many characters an item has.
    """
    group: list[Item] = []
    characters = 0
    for item in items:
        group.append(item)
        # An empty item costs memory, too.
        characters += length(item) + 1
        if characters >= _BATCH_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group


class TokenizingProgress:
    """A progress bar in bytes on a terminal, a log line now and then elsewhere.

    Args:
        total: Bytes of text to expect, if known.
        show: Whether to show a bar when standard error is a terminal.
    """

    def __init__(self, total: int | None, show: bool):
        self._total = total
        visible = show and sys.stderr.isatty()
        self._bar = tqdm(
            total=total,
            unit="B",
            unit_scale=True,
            desc="Tokenising",
            disable=not visible,
        )
        self._started = self._logged = time.monotonic()
        self._bytes = self._tokens = 0

    def move_to(self, num_bytes: int, num_tokens: int) -> None:
        """Show how many bytes of text were read and how many tokens they gave so far."""
        self._bar.update(num_bytes - self._bytes)
        self._bytes, self._tokens = num_bytes, num_tokens
        if self._bar.disable and time.monotonic() - self._logged > _LOG_EVERY:
            self._logged = time.monotonic()
            share = f" ({num_bytes / self._total:.0%})" if self._total else ""
            logger.info("Tokenised %.1f MB%s", num_bytes / 1e6, share)

    def close(self) -> None:
        """Remove the bar and log what was done."""
        self._bar.close()
        seconds = time.monotonic() - self._started
        tokens = f"{self._tokens:,}"
        logger.info(
            "Tokenised %.1f MB into %s tokens in %.1f s",
            self._bytes / 1e6,
            tokens,
            seconds,
        )
