"""Row and column embeddings of the pixels in a sequence of tokens.

Pictures stand in a sequence as a token that begins a picture of some size, and then its pixels in
raster order. With sizes (14, 7) the pixel positions 0 to 195 are those of a picture of 14 x 14, and
196 to 244 those of one of 7 x 7; -1 is no pixel.

Shapes are written with these letters: B batch, T tokens, D hidden_size.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn


def find_pixel_positions(
    input_ids: torch.LongTensor,
    image_sizes: Sequence[int],
    image_token_ids: Sequence[int],
    position_ids: torch.LongTensor | None = None,
) -> torch.Tensor:
    """Return the pixel position of every token.

    Args:
        input_ids: Token ids from the beginning of the sequences, (B, T).
        image_sizes: Height, which is the width, of the pictures.
        image_token_ids: Token that begins a picture of each size.
        position_ids: Position of each token in its document, (B, T), where several documents stand
            in a row: no picture reaches into the next document.

    Returns:
        Pixel positions, (B, T), int64; -1 where no pixel stands.
    """
    places = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
    begins = torch.full_like(input_ids, -1)
    first = torch.zeros_like(input_ids)
    area = torch.zeros_like(input_ids)
    total = 0
    for size, token in zip(image_sizes, image_token_ids, strict=True):
        is_start = input_ids == token
        begins = torch.where(is_start, places, begins)
        first = first.masked_fill(is_start, total)
        area = area.masked_fill(is_start, size * size)
        total += size * size
    latest = begins.cummax(dim=1).values
    own = latest.clamp(min=0)
    index = places - latest - 1
    inside = (latest >= 0) & (index >= 0) & (index < area.gather(1, own))
    if position_ids is not None:
        inside = inside & (position_ids >= places - latest)
    return torch.where(inside, first.gather(1, own) + index, -1)


class PixelPositions(nn.Module):
    """The sum of an embedding of the row and one of the column, learned for every size of picture.

    Args:
        image_sizes: Height, which is the width, of the pictures.
        dim: Width of the embeddings.
    """

    def __init__(self, image_sizes: Sequence[int], dim: int):
        super().__init__()
        self.image_sizes = list(image_sizes)
        self.rows = nn.Embedding(sum(image_sizes), dim)
        self.columns = nn.Embedding(sum(image_sizes), dim)

    def table(self) -> torch.Tensor:
        """Return the embedding of every pixel position, and zero for -1 as the first row: (1 + pixels, D)."""
        rows, columns = self.rows.weight, self.columns.weight
        parts, first = [torch.zeros_like(rows[:1])], 0
        for size in self.image_sizes:
            own = slice(first, first + size)
            parts.append((rows[own, None] + columns[None, own]).flatten(0, 1))
            first += size
        return torch.cat(parts)

    def forward(self, pixel_positions: torch.Tensor) -> torch.Tensor:
        """Look pixel positions (B, T) up; returns (B, T, D), zero where they are -1."""
        return F.embedding(pixel_positions + 1, self.table())


__all__ = ["PixelPositions", "find_pixel_positions"]
