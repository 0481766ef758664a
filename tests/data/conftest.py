"""Small corpora and tokenizers for the data tests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hf_genmodels.config.images import ImageDataConfig
from hf_genmodels.data.cache import TokenCache
from hf_genmodels.data.images import load_image_data

EOS = "<|endoftext|>"


def _byte_tokenizer(eos_token: str | None = EOS) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are single bytes, and an eos token with id 256."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({char: i for i, char in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=eos_token)


@dataclass(frozen=True)
class MemoryPiece:
    """Like sources.Piece."""

    text: str
    last: bool


@dataclass
class MemorySource:
    """A TextSource over documents in memory, cut into pieces of a few characters."""

    documents: Sequence[str]
    piece_length: int = 7

    def pieces(self) -> Iterator[MemoryPiece]:
        for text in self.documents:
            cuts = list(range(0, len(text), self.piece_length)) or [0]
            for cut in cuts:
                yield MemoryPiece(text[cut : cut + self.piece_length], cut == cuts[-1])

    def fingerprint(self) -> str:
        return hashlib.sha256("\0".join(self.documents).encode()).hexdigest()

    def size_in_bytes(self) -> int:
        return sum(len(text.encode()) for text in self.documents)


def _cache_of(documents: Sequence[Sequence[int]]) -> TokenCache:
    """A cache in memory of documents given as ids, the one that begins each document included."""
    lengths = [len(document) for document in documents]
    return TokenCache(
        tokens=np.concatenate([np.array(document, dtype=np.uint16) for document in documents]),
        document_starts=np.cumsum([0, *lengths[:-1]]).astype(np.int64),
        fingerprint="0" * 64,
        num_bytes=sum(lengths),
        path=Path("nowhere"),
        max_token_id=max(max(document) for document in documents),
    )


@pytest.fixture(scope="session")
def byte_tokenizer():
    """Makes a tokenizer whose tokens are single bytes."""
    return _byte_tokenizer


@pytest.fixture(scope="session")
def memory_source():
    """Makes a source out of a list of documents."""
    return MemorySource


@pytest.fixture(scope="session")
def cache_of():
    """Makes a token cache out of documents given as ids."""
    return _cache_of


@pytest.fixture
def folder(tmp_path):
    """An empty folder for images."""
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


@pytest.fixture
def load(tmp_path):
    """Loads image data with a cache of its own."""

    def load_with(*train, conditioning=None, **options):
        options = {"image_size": 8, "validation_split_percentage": 0, **options}
        config = ImageDataConfig(
            train_file=[str(name) for name in train], cache_dir=str(tmp_path / "cache"), **options
        )
        return load_image_data(config, conditioning=conditioning, show_progress=True)

    return load_with
