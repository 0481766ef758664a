"""Tokenised text on disk: built once in constant memory, then memory-mapped by every run."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_genmodels.data.cache_folder import default_cache_dir, open_or_build, write_json
from hf_genmodels.data.tokenizing import (
    TokenizingProgress,
    TokenWriter,
    encode,
    first_documents,
    grouped,
    plain_backend,
)
from hf_genmodels.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

    from hf_genmodels.data.sources import Piece, TextSource

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
TOKENS = "tokens.bin"
DOCUMENT_STARTS = "document_starts.bin"


@dataclass(frozen=True)
class TokenCache:
    """A tokenised corpus, memory-mapped.

    Attributes:
        tokens: Token ids of all documents one after the other, shape (num_tokens,), uint16 or uint32.
            An end-of-sequence token comes first, and one follows every document. It ends that document
            and begins the next one. Two never follow each other.
        document_starts: Index in ``tokens`` of the end-of-sequence token that begins each document,
            shape (num_documents,), int64, increasing, beginning with 0. Every such token begins a
            document, also one that stood in the text itself; only the very last one does not.
        fingerprint: Digest of the text, the tokenizer and the format.
        num_bytes: Length of the text in UTF-8 bytes, which bits per byte are measured against.
        path: Folder of the cache.
        max_token_id: Largest token id in ``tokens``.
    """

    tokens: np.ndarray
    document_starts: np.ndarray
    fingerprint: str
    num_bytes: int
    path: Path
    max_token_id: int

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> TokenCache:
        """Map a finished cache folder.

        Args:
            path: Folder that ``build_token_cache`` made.

        Raises:
            ValueError: If the folder is incomplete or a file has not the size the manifest says.
        """
        folder = Path(path)
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            dtypes = {
                TOKENS: np.dtype(manifest["dtype"]),
                DOCUMENT_STARTS: np.dtype(np.int64),
            }
            counts = {
                TOKENS: manifest["num_tokens"],
                DOCUMENT_STARTS: manifest["num_documents"],
            }
            for name, count in counts.items():
                expected = int(count) * dtypes[name].itemsize
                found = (folder / name).stat().st_size
                if found != expected:
                    raise ValueError(f"{name} has {found:,} bytes instead of {expected:,}")
            return cls(
                tokens=np.memmap(folder / TOKENS, dtype=dtypes[TOKENS], mode="r"),
                document_starts=np.memmap(folder / DOCUMENT_STARTS, dtype=np.int64, mode="r"),
                fingerprint=str(manifest["fingerprint"]),
                num_bytes=int(manifest["num_bytes"]),
                path=folder,
                max_token_id=int(manifest["max_token_id"]),
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"The token cache {folder} cannot be used: {error}.") from error

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a worker process map the files again rather than receive their content."""
        return TokenCache.open, (self.path,)


def cache_fingerprint(
    source: TextSource,
    tokenizer: PreTrainedTokenizerBase,
    max_documents: int | None = None,
) -> str:
    """Return the digest that names the cache of a source: 64 hexadecimal digits.

    It depends on the text, how the text is cut into documents, the tokenizer and ``max_documents``;
    not on file names, nor on the process that computes it.

    Args:
        source: Where the text comes from.
        tokenizer: A fast tokenizer that has an end-of-sequence token.
        max_documents: As in ``build_token_cache``.
    """
    backend, eos_token_id = plain_backend(tokenizer)
    return _fingerprint(source, backend, eos_token_id, max_documents)


def build_token_cache(
    source: TextSource,
    tokenizer: PreTrainedTokenizerBase,
    cache_dir: str | os.PathLike[str] | None = None,
    *,
    show_progress: bool = True,
    max_documents: int | None = None,
) -> TokenCache:
    """Tokenise a source, or map what an earlier call tokenised.

    The work is done in a staging folder that is renamed when complete, so several processes may ask
    for the same cache at once. A cache whose files have the wrong size is built again.

    Args:
        source: Where the text comes from. Documents without any text are left out.
        tokenizer: A fast tokenizer that has an end-of-sequence token.
        cache_dir: Folder of all caches; by default ``default_cache_dir()``.
        show_progress: Show a progress bar if standard error is a terminal.
        max_documents: Read no more than so many documents.

    Returns:
        The cache, mapped read-only.

    Raises:
        UserError: If the tokenizer cannot be used, the source holds no text, or the disk is full.
    """
    backend, eos_token_id = plain_backend(tokenizer)
    fingerprint = _fingerprint(source, backend, eos_token_id, max_documents)
    root = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    total = source.size_in_bytes() if max_documents is None else None

    def write(folder: Path) -> None:
        with closing(TokenizingProgress(total, show_progress)) as progress:
            pieces = first_documents(source.pieces(), max_documents)
            writer = _write_tokens(folder, pieces, backend, eos_token_id, progress)
        _write_manifest(folder, writer, fingerprint)

    return open_or_build(root / fingerprint[:32], TokenCache.open, write)


def _fingerprint(
    source: TextSource, backend: Tokenizer, eos_token_id: int, max_documents: int | None
) -> str:
    parts = [
        FORMAT_VERSION,
        source.fingerprint(),
        hashlib.sha256(backend.to_str().encode()).hexdigest(),
        eos_token_id,
        max_documents,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _write_tokens(
    folder: Path,
    pieces: Iterable[Piece],
    backend: Tokenizer,
    eos_token_id: int,
    progress: TokenizingProgress,
) -> TokenWriter:
    """Write the tokens and the document starts of a cache."""
    largest_id = max(backend.get_vocab().values())
    dtype = np.dtype(np.uint16 if largest_id < 1 << 16 else np.uint32)
    with (
        (folder / TOKENS).open("wb") as tokens,
        (folder / DOCUMENT_STARTS).open("wb") as starts,
    ):
        writer = TokenWriter(tokens, starts, dtype, eos_token_id)
        for group in grouped(pieces, lambda piece: len(piece.text)):
            writer.append(group, encode(backend, [piece.text for piece in group]))
            progress.move_to(writer.num_bytes, writer.num_tokens)
        for file in (tokens, starts):
            file.flush()
            os.fsync(file.fileno())
    if not writer.num_documents:
        raise UserError(
            "The data hold no text, nothing is left to tokenise. Check the file or the text column."
        )
    return writer


def _write_manifest(folder: Path, writer: TokenWriter, fingerprint: str) -> None:
    manifest = {
        "format": FORMAT_VERSION,
        "fingerprint": fingerprint,
        "dtype": writer.dtype.name,
        "num_tokens": writer.num_tokens,
        "num_documents": writer.num_documents,
        "num_bytes": writer.num_bytes,
        "max_token_id": writer.max_token_id,
    }
    write_json(folder / MANIFEST, manifest)
