"""Pictures that show how generated clips move: strips of frames and animations, beside real clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hf_genmodels.image_grid import draw_animation, draw_grid, grid_image
from hf_genmodels.inference.image_measuring import Measuring
from hf_genmodels.inference.image_pictures import MOST_ROWS, repeated, row_labels, row_places
from hf_genmodels.inference.image_sampling import spread_places
from hf_genmodels.metrics.image_features import Features
from hf_genmodels.metrics.nearest import nearest_neighbours
from hf_genmodels.models.video_files import FRAMES_PER_SECOND

FRAMES = 6
MOST_SEARCHED = 200  # clips among which captions for the rows are found
MOVING, MOVING_REAL = 4, 2  # clips in a row of the animation
STRIPS, SAMPLES, NEAREST = "strips.png", "samples.webp", "nearest.png"


def draw_pictures(
    measuring: Measuring, drawn: np.ndarray, generated: Features, folder: Path
) -> list[str]:
    """Draw all pictures of an evaluation; return the names of their files.

    Args:
        measuring: What was measured with.
        drawn: Generated clips, bytes (N, T, C, S, S).
        generated: Their features.
        folder: Folder of the pictures.
    """
    drawer, data, seed = measuring.drawer, measuring.data, measuring.options.seed
    places = _places(measuring)
    labels = row_labels(drawer, data, places)
    conditions = repeated(drawer.conditions(data.train, places), MOVING)
    noise = drawer.noise(len(places) * MOVING, seed)
    clips = drawer.draw(conditions, noise).reshape(len(places), MOVING, *drawn.shape[1:])
    following = (places[:, None] + np.arange(MOVING_REAL)) % len(data.train)
    if drawer.kind in ("text", "attributes"):
        following = places[:, None]  # the next clips are of something else
    real = np.stack([data.train.images[row] for row in following])
    rows = np.linspace(0, len(drawn) - 1, min(MOST_ROWS, len(drawn))).astype(np.int64)
    return [
        draw_moving(folder / SAMPLES, clips, real, labels).name,
        draw_strips(folder / STRIPS, clips[:, 0], real[:, 0], ("generated", "real"), labels).name,
        _draw_nearest(measuring, drawn[rows], generated.take(rows), folder / NEAREST).name,
    ]


def _places(measuring: Measuring) -> np.ndarray:
    """Return training clips whose conditions the rows have; of captions that repeat, each once."""
    drawer, data = measuring.drawer, measuring.data
    if drawer.kind != "text":
        return row_places(drawer, data)
    places = spread_places(data.train, min(len(data.train), MOST_SEARCHED))
    _, first = np.unique(row_labels(drawer, data, places), return_index=True)
    return np.asarray(places[np.sort(first)[:MOST_ROWS]])


def draw_moving(path: Path, clips: np.ndarray, real: np.ndarray, labels: list[str]) -> Path:
    """Write generated clips beside real ones as one animation.

    Args:
        path: The file, .webp or .gif.
        clips: Bytes, (rows, columns, T, C, S, S).
        real: The same of real clips; as many rows.
        labels: What stands left of each row; or nothing.
    """
    groups = [("generated", clips.shape[1]), ("real", real.shape[1])]
    both = np.concatenate((clips, real), axis=1)
    frames = [
        grid_image(both[:, :, number].reshape(-1, *both.shape[3:]), groups, labels)
        for number in range(both.shape[2])
    ]
    seconds = 1 / FRAMES_PER_SECOND
    return draw_animation(path, frames, seconds=seconds, hold=4 * seconds)


def draw_strips(
    path: Path,
    first: np.ndarray,
    second: np.ndarray,
    titles: tuple[str, str],
    labels: list[str],
) -> Path:
    """Write some frames of clips, a row for each two of them.

    Args:
        path: The file, .png.
        first: Bytes, (rows, T, C, S, S).
        second: What stands beside them.
        titles: What stands above each side.
        labels: What stands left of each row; or nothing.
    """
    count = min(FRAMES, first.shape[1])
    shown = np.linspace(0, first.shape[1] - 1, count).round().astype(int)
    both = np.concatenate((first[:, shown], second[:, shown]), axis=1)
    return draw_grid(
        path, both.reshape(-1, *both.shape[2:]), [(title, count) for title in titles], labels
    )


def _draw_nearest(measuring: Measuring, drawn: np.ndarray, features: Features, path: Path) -> Path:
    """Write frames of generated clips beside those of the training clips that are nearest to them."""
    nearest = nearest_neighbours(features.features, measuring.real.features, 1).indices[:, 0]
    real = measuring.data.train.images[measuring.places[nearest]]
    return draw_strips(path, drawn, real, ("drawn", "nearest training clip"), [])
