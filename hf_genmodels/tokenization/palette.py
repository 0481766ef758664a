"""A palette of colours for pictures: k-means over the pixels of training images.

Lloyd 1982 (doi 10.1109/TIT.1982.1056489) from the beginning of Arthur and Vassilvitskii 2007
("k-means++"), over the different colours with their counts.
"""

from __future__ import annotations

import numpy as np
import torch

from hf_genmodels.errors import UserError

MOST_PIXELS = 500_000
ROUNDS = 50
COLOURS_AT_A_TIME = 1 << 15


def train_palette(images: np.ndarray, size: int, seed: int = 0) -> np.ndarray:
    """Find the colours that are nearest to those of images.

    Args:
        images: Shape (N, C, H, W), uint8, perhaps memory-mapped; of many, some at equal distances are
            looked at.
        size: Most colours of the palette; images with fewer give those that they have.
        seed: Seed of the beginning. The same images, size and seed give the same palette.

    Returns:
        Colours from dark to light, shape (K, C), uint8.

    Raises:
        UserError: If the size is below 2 or all pixels have one colour.
    """
    if size < 2:
        raise UserError(f"A palette of {size} colours draws nothing. Give 2 or more.")
    colours, counts = _colours(images)
    if len(colours) < 2:
        raise UserError("All pixels of the images have the same colour: there is nothing to learn.")
    if len(colours) > size:
        colours = _k_means(colours, counts, size, seed)
    order = np.lexsort([*colours.T, colours.astype(np.int64).sum(axis=1)])
    return colours[order]


def _colours(images: np.ndarray) -> tuple[np.ndarray, torch.Tensor]:
    """Return the different colours of images, (M, C), and how often each is there, (M,)."""
    pixels_each = images.shape[2] * images.shape[3]
    step = max(1, len(images) * pixels_each // MOST_PIXELS)
    pixels = np.asarray(images[::step]).transpose(0, 2, 3, 1).reshape(-1, images.shape[1])
    packed = np.zeros(len(pixels), dtype=np.int64)
    for channel in pixels.T:
        packed = packed * 256 + channel
    found, counts = np.unique(packed, return_counts=True)
    shifts = 8 * np.arange(images.shape[1] - 1, -1, -1)
    colours = (found[:, None] >> shifts) & 255
    return colours.astype(np.uint8), torch.from_numpy(counts).double()


def _k_means(colours: np.ndarray, counts: torch.Tensor, size: int, seed: int) -> np.ndarray:
    points = torch.from_numpy(colours).double()  # (M, C)
    centres = _beginning(points, counts, size, torch.Generator().manual_seed(seed))
    nearest = torch.full((len(points),), -1)
    for _ in range(ROUNDS):
        found = torch.cat(
            [torch.cdist(part, centres).argmin(dim=1) for part in points.split(COLOURS_AT_A_TIME)]
        )
        if torch.equal(found, nearest):
            break
        nearest = found
        totals = torch.zeros(size, dtype=torch.double).index_add_(0, nearest, counts)
        sums = torch.zeros_like(centres).index_add_(0, nearest, points * counts[:, None])
        used = totals > 0
        centres[used] = sums[used] / totals[used, None]
    return np.unique(centres.round().byte().numpy(), axis=0)


def _beginning(
    points: torch.Tensor, counts: torch.Tensor, size: int, generator: torch.Generator
) -> torch.Tensor:
    """Draw each centre with a probability that grows with the square of its distance to the others."""
    first = torch.multinomial(counts, 1, generator=generator)
    chosen = [first]
    distance = (points - points[first]).square().sum(dim=1)
    for _ in range(size - 1):
        chosen.append(torch.multinomial(counts * distance, 1, generator=generator))
        distance = distance.minimum((points - points[chosen[-1]]).square().sum(dim=1))
    return points[torch.cat(chosen)].clone()
