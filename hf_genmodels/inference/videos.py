"""Write the clips that a GAN draws: one animation of all, strips of frames, or a folder of files."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from hf_genmodels.errors import UserError
from hf_genmodels.image_grid import draw_grid, grid_image
from hf_genmodels.inference.image_files import (
    LARGEST_GRID,
    bytes_of,
    count_of,
    file_name,
    new_folder,
)
from hf_genmodels.models.video_files import FORMATS, save_video

if TYPE_CHECKING:
    from hf_genmodels.inference.images import Drawing

LARGE = 128  # pixels: smaller frames of a single clip are enlarged by a whole factor


def draw_clips(drawing: Drawing, grid: Path | None, output: Path | None) -> list[str]:
    """Draw clips of all subjects and write them.

    Args:
        drawing: The model, what to draw and how.
        grid: Picture of strips of frames, if it is wanted.
        output: File of an animation, or folder for numbered files, if it is wanted.

    Returns:
        What was done, in words.

    Raises:
        UserError: If something cannot be drawn, or would be too large.
    """
    subjects = drawing.subjects()
    total, frames = len(subjects) * drawing.number, drawing.config.num_frames
    moves = output is not None and output.suffix.lower() in FORMATS
    if (moves or grid is not None) and total * frames > LARGEST_GRID:
        raise UserError(
            f"{total:,} clips of {frames} frames side by side are more than {LARGEST_GRID:,} pictures. "
            "Write files with --output FOLDER, or lower --num_videos."
        )
    speed = drawing.options.frames_per_second
    kept, numbers = [], itertools.count(1)
    with (
        new_folder(None if moves else output) as folder,
        tqdm(total=total, unit=" clips", disable=None) as progress,
    ):
        for subject in subjects:
            for seed, clip in drawing.images(subject):
                if folder is not None:
                    name = file_name(next(numbers), subject.name, seed, ".webp")
                    save_video(folder / name, clip, speed)
                if moves or grid is not None:
                    kept.append(clip)
                progress.update()
    done = []
    if output is not None and moves:
        labels = [subject.name for subject in subjects] if len(subjects) > 1 else []
        save_video(output, side_by_side(kept, drawing.number, labels), speed)
        done.append(f"drew {count_of(total, 'clip')} of {frames} frames into {output}")
    elif output is not None:
        done.append(f"wrote {count_of(total, 'clip')} to {output}")
    if grid is not None:
        names = [subject.name for subject in subjects for _ in range(drawing.number)]
        pixels = np.stack([bytes_of(frame) for clip in kept for frame in clip])
        draw_grid(grid, pixels, frames, names if any(names) else [])
        done.append(f"drew {count_of(total, 'strip')} of {frames} frames into {grid}")
    return done


def side_by_side(
    clips: Sequence[Sequence[Image.Image]], columns: int, labels: Sequence[str] = ()
) -> list[Any]:
    """Return the frames of one clip that shows several, or one enlarged.

    Args:
        clips: The frames of each clip; all have as many.
        columns: Clips in a row where rows have labels; without labels they form a square.
        labels: What stands left of each row; or nothing.
    """
    if len(clips) == 1:
        side = min(clips[0][0].size)
        scale = -(-LARGE // side)
        sizes = [(frame.width * scale, frame.height * scale) for frame in clips[0]]
        nearest = Image.Resampling.NEAREST
        return [frame.resize(size, nearest) for frame, size in zip(clips[0], sizes, strict=True)]
    if not labels:
        columns = math.ceil(math.sqrt(len(clips)))
    return [
        grid_image(np.stack([bytes_of(frame) for frame in moment]), columns, labels)
        for moment in zip(*clips, strict=True)
    ]
