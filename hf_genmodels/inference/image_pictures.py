"""Pictures that show what a generator draws: beside real images, between two of them, more or less typical."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from hf_genmodels.data.images import ImageData
from hf_genmodels.image_grid import draw_grid
from hf_genmodels.inference.image_sampling import Conditions, Drawer, spread_places
from hf_genmodels.inference.interpolation import slerp
from hf_genmodels.metrics.image_features import Features
from hf_genmodels.metrics.nearest import nearest_neighbours

MOST_ROWS = 10
COLUMNS = 8
REAL_COLUMNS = 4
NEAREST = 5
TRUNCATIONS = (0.4, 0.6, 0.8, 1.0)
SAMPLES, NEIGHBOURS = "samples.png", "neighbours.png"
INTERPOLATION, TRUNCATION = "interpolation.png", "truncation.png"


def draw_samples(drawer: Drawer, data: ImageData, folder: Path, seed: int) -> Path:
    """Draw a row for each of some classes or captions, beside real images."""
    places = row_places(drawer, data)
    rows = repeated(drawer.conditions(data.train, places), COLUMNS)
    drawn = drawer.draw(rows, drawer.noise(len(places) * COLUMNS, seed))
    number = min(REAL_COLUMNS if drawer.kind in ("none", "class") else 1, len(data.train))
    real = [data.train.images[_like(drawer, data, place, number)] for place in places]
    side_by_side = [
        image
        for row, place in enumerate(places)
        for image in (*drawn[row * COLUMNS : (row + 1) * COLUMNS], *real[row])
    ]
    groups = [("generated", COLUMNS), ("real", number)]
    labels = row_labels(drawer, data, places)
    return draw_grid(folder / SAMPLES, np.stack(side_by_side), groups, labels)


def draw_nearest(
    drawn: np.ndarray,
    features: Features,
    data: ImageData,
    real_places: np.ndarray,
    real: Features,
    labels: Sequence[str],
    folder: Path,
) -> Path:
    """Draw some generated images beside the real ones that are nearest to them.

    Args:
        drawn: Generated images, bytes (R, C, S, S), one for each row.
        features: Their features.
        data: The real images.
        real_places: Which of the training images were looked at, (N,).
        real: The features of these.
        labels: What stands left of each row, if anything.
        folder: Folder of the picture.
    """
    count = min(NEAREST, len(real))
    nearest = nearest_neighbours(features.features, real.features, count).indices
    rows = [
        image
        for row, image_of_row in enumerate(drawn)
        for image in (image_of_row, *data.train.images[real_places[nearest[row]]])
    ]
    groups = [("drawn", 1), ("nearest training images", count)]
    return draw_grid(folder / NEIGHBOURS, np.stack(rows), groups, labels)


def draw_interpolation(drawer: Drawer, data: ImageData, folder: Path, seed: int) -> Path:
    """Draw the way from one noise to another in each row."""
    places = row_places(drawer, data)
    first, last = drawer.noise(2 * len(places), seed + 1).chunk(2)
    steps = torch.linspace(0, 1, COLUMNS).tolist()
    ways = torch.stack([slerp(first, last, step) for step in steps], dim=1).flatten(0, 1)
    rows = repeated(drawer.conditions(data.train, places), COLUMNS)
    drawn = drawer.draw(rows, ways)
    return draw_grid(
        folder / INTERPOLATION,
        drawn,
        [("from one noise to another", COLUMNS)],
        row_labels(drawer, data, places),
    )


def draw_truncation(drawer: Drawer, data: ImageData, folder: Path, seed: int) -> Path:
    """Draw the same noise, shrunk more in each row; the columns are classes or captions."""
    places = row_places(drawer, data)
    if len(places) == 1:
        places = np.repeat(places, COLUMNS)
    conditions = drawer.conditions(data.train, places)
    noise = drawer.noise(len(places), seed + 2)
    drawn = np.concatenate([drawer.draw(conditions, noise, value) for value in TRUNCATIONS])
    labels = [f"truncation {value:g}" for value in TRUNCATIONS]
    return draw_grid(folder / TRUNCATION, drawn, len(places), labels)


def row_places(drawer: Drawer, data: ImageData) -> np.ndarray:
    """Return training images whose conditions the rows of pictures have: one of each class, say."""
    if drawer.kind == "class":
        labels = np.asarray(data.train.labels)
        _, first = np.unique(labels, return_index=True)
        return np.asarray(
            first[np.linspace(0, len(first) - 1, min(len(first), MOST_ROWS)).astype(int)]
        )
    return spread_places(data.train, min(MOST_ROWS, len(data.train)))


def row_labels(drawer: Drawer, data: ImageData, places: np.ndarray) -> list[str]:
    """Return the names of the conditions of training images; nothing without conditions."""
    if drawer.kind == "text":
        captions = data.train.captions or []
        return [captions[place][0] for place in places.tolist()]
    if drawer.kind == "none":
        return []
    labels = np.asarray(data.train.labels)[places]
    if drawer.kind == "class":
        return [data.label_names[label] for label in labels.tolist()]
    names = [[data.label_names[i] for i in np.flatnonzero(row)] for row in labels]
    return [", ".join(own) if own else "none of them" for own in names]


def _like(drawer: Drawer, data: ImageData, place: int, number: int) -> np.ndarray:
    """Return real images of the same class as one, the first ones; without classes those that follow."""
    if drawer.kind == "class":
        labels = np.asarray(data.train.labels)
        found = np.flatnonzero(labels == labels[place])
        return np.resize(found, number)
    return (place + np.arange(number)) % len(data.train)


def repeated(conditions: Conditions, times: int) -> dict[str, torch.Tensor]:
    """Return conditions with each row several times, one after the other."""
    return {name: rows.repeat_interleave(times, dim=0) for name, rows in conditions.items()}
