"""Animations and videos become clips of bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from hf_genmodels.config.images import Resize
from hf_genmodels.data.image_decoding import (
    FORMATS,
    BrokenImageError,
    broken_if_failing,
    check_pixels,
    plain,
    stream,
)
from hf_genmodels.errors import require_extra
from hf_genmodels.models.picture_fitting import fitted, to_bytes, with_channels

# Endings of videos, which Pillow does not read.
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".webm")
# Where the first bytes of a file tell which demuxer of FFmpeg reads it. Neither looks at other files.
_CONTAINERS = ((4, b"ftyp", "mov"), (0, b"\x1a\x45\xdf\xa3", "matroska"))
_MAX_FRAMES = 100_000


def open_frames(content: bytes | Path, num_frames: int) -> list[Image.Image]:
    """Decode as many frames of an animation or a video, evenly spread and from its middle.

    Args:
        content: The file's bytes, or where it is.
        num_frames: How many.

    Returns:
        The frames, 8 bits a channel, of mode L, RGB or RGBA.

    Raises:
        BrokenImageError: If the file is missing, damaged, too large or too short.
        UserError: If it is a video and the library that reads it is missing.
    """
    with broken_if_failing():
        container = _container(content)
        if container is not None:
            return _video_frames(content, container, num_frames)
        with Image.open(stream(content), formats=FORMATS) as image:
            check_pixels(image.size)
            frames = []
            for place in _places(_number_of(image), num_frames):
                image.seek(place)
                frames.append(plain(image.copy()))
            return frames


def decode_clip(
    content: bytes | Path, num_frames: int, *, image_size: int, num_channels: int, resize: Resize
) -> np.ndarray:
    """Decode an animation or a video and bring its frames to size.

    Args:
        content: The file's bytes, or where it is.
        num_frames: Frames of the result, T.
        image_size: Height and width of the result.
        num_channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        resize: As in `decode`.

    Returns:
        Shape (T, C, H, W), uint8.

    Raises:
        BrokenImageError: As `open_frames`.
    """
    frames = (fitted(frame, image_size, resize) for frame in open_frames(content, num_frames))
    return np.stack([to_bytes(with_channels(frame, num_channels)).numpy() for frame in frames])


def _places(count: int, num_frames: int) -> range:
    """Return which frames of a file are taken: at even distances, from the middle."""
    if count < num_frames:
        raise BrokenImageError(f"has {count} of the {num_frames} frames of a clip")
    if count > _MAX_FRAMES:
        raise BrokenImageError(f"has {count:,} frames, and at most {_MAX_FRAMES:,} are read")
    step = count // num_frames
    first = (count - step * (num_frames - 1) - 1) // 2
    return range(first, first + step * num_frames, step)


def _number_of(image: Any) -> int:
    return int(image.n_frames) if getattr(image, "is_animated", False) else 1


def _container(content: bytes | Path) -> str | None:
    """Return the demuxer of a video, by its first bytes; `None` if it is none."""
    with _opened(content) as file:
        head = file.read(16)
    found = (name for start, mark, name in _CONTAINERS if head[start:].startswith(mark))
    return next(found, None)


def _opened(content: bytes | Path) -> IO[bytes]:
    source = stream(content)
    return source.open("rb") if isinstance(source, Path) else source


def _video_frames(content: bytes | Path, container: str, num_frames: int) -> list[Image.Image]:
    av = require_extra("av", "video")
    with _opened(content) as file, av.open(file, format=container) as video:
        count = sum(packet.pts is not None for packet in video.demux(video=0))
    wanted = set(_places(count, num_frames))
    with _opened(content) as file, av.open(file, format=container) as video:
        return [frame.to_image() for frame in _chosen(video, wanted)]


def _chosen(video: Any, wanted: set[int]) -> Iterator[Any]:
    for place, frame in enumerate(video.decode(video=0)):
        check_pixels((frame.width, frame.height))
        if place in wanted:
            yield frame
        if place == max(wanted):
            return
