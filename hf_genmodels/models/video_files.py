"""Pictures in a row as a file that moves: GIF, WebP or MP4."""

import importlib
import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from PIL import Image

FORMATS = {".gif": "GIF", ".webp": "WEBP", ".mp4": "MP4"}
FRAMES_PER_SECOND = 8.0
QUALITY = "12"  # constant rate factor of H.264: 0 is lossless, 23 usual


def save_video(
    path: str | os.PathLike[str],
    frames: Sequence[Image.Image],
    frames_per_second: float = FRAMES_PER_SECOND,
    *,
    hold: float | None = None,
    scale: int = 1,
) -> Path:
    """Write pictures of one size as an animation that begins again, or as a video; whole or not at all.

    A WebP shows every frame as it is. A GIF has 256 colours in each frame and durations in hundredths of
    a second, and an MP4 (H.264, by the library PyAV) loses a little of both colours and sharpness.

    Args:
        path: The file, .gif, .webp or .mp4; its folder is made if it does not exist.
        frames: The pictures: grey, colours, or colours and opacity, which lies over white in an MP4.
        frames_per_second: How many are shown in a second.
        hold: Seconds that the last one is shown; by default as long as the others.
        scale: Whole factor by which frames are enlarged without smoothing.

    Returns:
        The file.

    Raises:
        ValueError: If there is no picture, their sizes differ, the name ends in something else, a number is
            no positive one, or PyAV is missing for an MP4.
    """
    path = Path(path)
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path.name}: a file that moves is one of {', '.join(FORMATS)}.")
    if len({frame.size for frame in frames}) != 1:
        raise ValueError(f"{path.name} needs pictures of one size, at least one of them.")
    if frames_per_second <= 0 or scale < 1:
        raise ValueError(
            f"frames_per_second={frames_per_second} must be positive and scale={scale} at least 1."
        )
    size = (frames[0].width * scale, frames[0].height * scale)
    shown = [frame.resize(size, Image.Resampling.NEAREST) for frame in frames]
    last = 1 / frames_per_second if hold is None else hold
    if kind == "MP4":
        repeats = max(1, round(last * frames_per_second))
        shown += [shown[-1]] * (repeats - 1)
        return write_whole(path, lambda staged: _write_mp4(staged, shown, frames_per_second))
    durations = [round(1000 / frames_per_second)] * (len(shown) - 1) + [round(1000 * last)]
    return write_whole(path, lambda staged: _write_animation(staged, kind, shown, durations))


def write_whole(path: str | os.PathLike[str], write: Callable[[Path], None]) -> Path:
    """Write beside the place of a file and move the result there.

    Args:
        path: The file; its folder is made if it does not exist.
        write: Writes the file that it is given, which has the same ending.

    Returns:
        The file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(staged)
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
    return path


def _write_animation(
    path: Path, kind: str, frames: Sequence[Image.Image], durations: list[int]
) -> None:
    """Write a GIF or a WebP; durations are milliseconds."""
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {"optimize": False}
    if frames[0].mode == "RGBA" and kind == "GIF":
        options["disposal"] = 2  # or the frame before would shine through
    first, *others = frames
    first.save(
        path, kind, save_all=True, append_images=others, duration=durations, loop=0, **options
    )


def _write_mp4(path: Path, frames: Sequence[Image.Image], frames_per_second: float) -> None:
    """Write H.264 with 4:2:0 colours, which every player reads."""
    try:
        av = importlib.import_module("av")
    except ImportError as error:
        raise ValueError(
            f"{path.suffix} is written by the library PyAV, which is not installed: pip install av. "
            "Animations .gif and .webp need nothing more."
        ) from error
    rate = Fraction(frames_per_second).limit_denominator(1000)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": QUALITY})
        pictures = [_even(frame) for frame in frames]
        stream.width, stream.height = pictures[0].size
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            for packet in stream.encode(av.VideoFrame.from_image(picture)):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def _even(frame: Image.Image) -> Image.Image:
    """Return a picture in RGB over white with an even number of rows and columns; edges are repeated."""
    if frame.mode == "RGBA":
        white = Image.new("RGBA", frame.size, "white")
        frame = Image.alpha_composite(white, frame)
    frame = frame.convert("RGB")
    width, height = frame.width + frame.width % 2, frame.height + frame.height % 2
    if (width, height) == frame.size:
        return frame
    larger = Image.new("RGB", (width, height))
    for corner in ((1, 1), (1, 0), (0, 1), (0, 0)):
        larger.paste(frame, corner)
    return larger


__all__ = ["FORMATS", "FRAMES_PER_SECOND", "save_video", "write_whole"]
