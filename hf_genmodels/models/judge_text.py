"""Texts as bags of pieces: words, pairs of words and the beginnings, insides and ends of words.

Every piece is a row of a table of embeddings, chosen by a hash (Bojanowski et al. 2017, "Enriching
Word Vectors with Subword Information", arXiv:1607.04606). So there is no vocabulary to keep, and a
word that was never seen shares pieces with those that were.
"""

import itertools
import re
import zlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn

PAD = 0
PIECE_LENGTHS = (3, 4)  # characters, the marks of a word's ends included
WORD = re.compile(r"\w+|[^\w\s]")


def piece_ids(text: str, num_buckets: int, max_pieces: int) -> list[int]:
    """Return the rows of a text's pieces, at least 1 each; words stand before parts of words.

    Args:
        text: The text; upper and lower case are the same.
        num_buckets: Rows of the table, the one of padding included.
        max_pieces: Most rows to return.
    """
    pieces = list(dict.fromkeys(_pieces(WORD.findall(text.casefold()))))
    return [1 + zlib.crc32(p.encode()) % (num_buckets - 1) for p in pieces[:max_pieces]]


def encode_texts(
    texts: Sequence[str], num_buckets: int, max_pieces: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ids of the texts' pieces and 1 where there is one, both int64 (B, pieces)."""
    rows = [piece_ids(text, num_buckets, max_pieces) for text in texts]
    longest = max(1, *map(len, rows)) if rows else 1
    ids = torch.tensor([row + [PAD] * (longest - len(row)) for row in rows], dtype=torch.long)
    ids = ids.view(len(rows), longest)
    return ids, (ids != PAD).long()


class TextTower(nn.Module):
    """The sum of a text's embeddings over the root of their number, made into features by an MLP.

    Args:
        num_buckets: Rows of the table.
        feature_dim: Number of features.
    """

    def __init__(self, num_buckets: int, feature_dim: int):
        super().__init__()
        self.embedding = nn.Embedding(num_buckets, 2 * feature_dim, padding_idx=PAD)
        self.up = nn.Linear(2 * feature_dim, 4 * feature_dim)
        self.down = nn.Linear(4 * feature_dim, feature_dim)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the features (B, feature_dim) of texts (B, pieces)."""
        weights = attention_mask.unsqueeze(-1).to(self.embedding.weight.dtype)
        total = (self.embedding(input_ids) * weights).sum(dim=1)
        bag = total / weights.sum(dim=1).clamp(min=1).sqrt()
        return self.down(torch.relu(self.up(bag)))


def _pieces(words: Sequence[str]) -> Iterator[str]:
    yield from words
    for first, second in itertools.pairwise(words):
        yield f"{first} {second}"
    for word in words:
        marked = f"<{word}>"
        for length in PIECE_LENGTHS:
            for start in range(len(marked) - length + 1):
                yield marked[start : start + length]


__all__ = ["TextTower", "encode_texts", "piece_ids"]
