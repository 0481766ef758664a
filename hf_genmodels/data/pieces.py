"""Cut documents of any length into pieces whose tokens are those of the whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

PIECE_CHARACTERS = 1 << 16
MAX_PIECE_CHARACTERS = 1 << 24
_CUT = re.compile(r"(?<=\S)(?=[ \t\n])")


@dataclass(frozen=True)
class Piece:
    """A stretch of one document's text.

    Attributes:
        text: The text, never empty.
        last: True when the document ends here.
    """

    text: str
    last: bool


def cut(chunks: Iterable[str], size: int = PIECE_CHARACTERS) -> Iterator[Piece]:
    """Cut one document where GPT-2's pre-tokenisation has a boundary anyway.

    A cut is made right before a blank, tab or line feed that follows a character which is not white
    space. No token of a byte-level BPE with such pre-tokenisation crosses it, so the ids of the
    pieces are the ids of the whole. A stretch of 16 million characters without any white space is
    cut where it stands.

    Args:
        chunks: The document in stretches of any length.
        size: Length in characters from which on a piece ends at the next possible place.

    Yields:
        The pieces in order, the last one marked; none for an empty document.
    """
    rest, searched = "", size
    for chunk in chunks:
        rest += chunk
        start = 0
        while len(rest) - start > size:
            place = _CUT.search(rest, max(start + size, searched))
            if place:
                end = place.start()
            elif len(rest) - start > MAX_PIECE_CHARACTERS:
                end = start + MAX_PIECE_CHARACTERS
            else:
                break
            yield Piece(rest[start:end], last=False)
            start = searched = end
        rest = rest[start:]
        searched = max(size, len(rest) - 1)
    if rest:
        yield Piece(rest, last=True)
