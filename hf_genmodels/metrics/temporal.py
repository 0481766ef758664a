"""How clips change from frame to frame: smoothly, by jumps, or not at all.

Letters: N clips, T frames, C channels, H rows, W columns.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

CLIPS_AT_ONCE = 256
FROZEN = 0.1  # of what real clips change in the median
LEAST_FRAMES = 3


class Motion(NamedTuple):
    """What happens between the frames of some clips.

    Attributes:
        change: Mean absolute difference of a pixel from one frame to the next, (N,), in [0, 1].
        jerk: Mean absolute second difference over the mean absolute first one, (N,): 0 for a steady
            fade, about 1.7 for frames that have nothing to do with each other, 2 for a flicker; 0 for a
            clip that does not change.
    """

    change: np.ndarray
    jerk: np.ndarray


class Smoothness(NamedTuple):
    """Generated clips beside real ones.

    Attributes:
        change: Mean change of generated clips over that of real ones; 1 is as lively as they are.
        jerk: Mean jerk of generated clips over that of real ones; above 1 they are less smooth.
        frozen: Share of generated clips that change less than a tenth of what real ones do in the median.
    """

    change: float
    jerk: float
    frozen: float


def motion(clips: np.ndarray) -> Motion:
    """Measure how clips change.

    Args:
        clips: Bytes, (N, T, C, H, W), at least three frames; or an array that gives such for slices.

    Raises:
        ValueError: If these are no clips of bytes, or have fewer frames.
    """
    if clips.ndim != 5 or clips.dtype != np.uint8 or clips.shape[1] < LEAST_FRAMES:
        raise ValueError(
            f"Motion is measured in bytes (N, T, C, H, W) of at least {LEAST_FRAMES} frames, not in "
            f"{clips.dtype} {tuple(clips.shape)}."
        )
    changes, jerks = [], []
    for start in range(0, len(clips), CLIPS_AT_ONCE):
        part = np.asarray(clips[start : start + CLIPS_AT_ONCE]).astype(np.int16)
        steps = np.diff(part, axis=1)
        change = np.abs(steps).mean(axis=(1, 2, 3, 4))
        second = np.abs(np.diff(steps, axis=1)).mean(axis=(1, 2, 3, 4))
        changes.append(change / 255)
        jerks.append(np.divide(second, change, out=np.zeros_like(second), where=change > 0))
    return Motion(np.concatenate(changes), np.concatenate(jerks))


def smoothness(generated: Motion, real: Motion) -> Smoothness:
    """Compare how generated and real clips change.

    Args:
        generated: Motion of generated clips.
        real: Motion of real ones.

    Raises:
        ValueError: If no real clip changes.
    """
    usual = float(np.median(real.change))
    if not usual or not real.jerk.mean():
        raise ValueError("The real clips do not move, so there is nothing to compare motion with.")
    return Smoothness(
        change=float(generated.change.mean() / real.change.mean()),
        jerk=float(generated.jerk.mean() / real.jerk.mean()),
        frozen=float((generated.change < FROZEN * usual).mean()),
    )
