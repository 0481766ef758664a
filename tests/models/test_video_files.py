"""Files that move: their frames, their speed, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_genmodels.models.video_files import save_video


def clip(mode: str = "L", size: tuple[int, int] = (8, 6), count: int = 5) -> list[Image.Image]:
    generator = np.random.default_rng(0)
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    return [
        Image.fromarray(generator.integers(256, size=(size[1], size[0], *channels), dtype=np.uint8))
        for _ in range(count)
    ]


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_webp_holds_every_frame_as_it_is(mode: str, tmp_path: Path) -> None:
    frames = clip(mode)
    if mode == "RGBA":  # what is not seen has no colour
        for frame in frames:
            frame.putalpha(255)
    with Image.open(save_video(tmp_path / "a.webp", frames)) as saved:
        assert saved.n_frames == 5
        for number, frame in enumerate(frames):
            saved.seek(number)
            assert (np.asarray(saved.convert(mode)) == np.asarray(frame)).all()


def test_a_gif_holds_grey_frames_as_they_are_and_begins_again(tmp_path: Path) -> None:
    frames = clip()
    with Image.open(save_video(tmp_path / "a.gif", frames, 10, hold=1)) as saved:
        assert (saved.n_frames, saved.info["loop"]) == (5, 0)
        durations = []
        for number, frame in enumerate(frames):
            saved.seek(number)
            durations.append(saved.info["duration"])
            assert (np.asarray(saved.convert("L")) == np.asarray(frame)).all()
    assert durations == [100, 100, 100, 100, 1000]


@pytest.mark.parametrize(("mode", "size"), [("L", (32, 32)), ("RGB", (33, 31)), ("RGBA", (16, 20))])
def test_an_mp4_is_read_again_nearly_as_it_was(
    mode: str, size: tuple[int, int], tmp_path: Path
) -> None:
    av = pytest.importorskip("av")
    grey = np.linspace(0, 255, size[0]).astype(np.uint8)
    picture = Image.fromarray(np.tile(grey, (size[1], 1))).convert(mode)
    frames = [picture.rotate(90 * turn).resize(size) for turn in range(4)]

    file = save_video(tmp_path / "a.mp4", frames, 4, hold=0.75, scale=2)

    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 4
        decoded = [frame.to_ndarray(format="gray") for frame in container.decode(stream)]
    assert len(decoded) == 4 + 2
    assert decoded[0].shape == (2 * size[1], 2 * size[0])
    expected = np.asarray(frames[0].convert("L").resize((2 * size[0], 2 * size[1]), 0)).astype(int)
    assert abs(decoded[0].astype(int) - expected).mean() < 4


def test_odd_sizes_of_an_mp4_are_filled_up_by_repeating_the_edge(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    file = save_video(tmp_path / "a.mp4", [Image.new("L", (31, 17), 200)] * 2)
    with av.open(str(file)) as container:
        [first, _] = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    assert first.shape == (18, 32)
    assert abs(first.astype(int) - 200).max() < 6


def test_without_the_library_an_mp4_is_refused_in_words(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match="pip install av"):
        save_video(tmp_path / "a.mp4", clip())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "frames", "options", "message"),
    [
        ("a.avi", clip(), {}, r"\.gif, \.webp, \.mp4"),
        ("a.gif", [], {}, "at least one"),
        ("a.gif", [*clip(), *clip(size=(9, 6))], {}, "one size"),
        ("a.gif", clip(), {"frames_per_second": 0}, "must be positive"),
        ("a.gif", clip(), {"scale": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_written_is_refused(name, frames, options, message, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        save_video(tmp_path / name, frames, **options)
    assert list(tmp_path.iterdir()) == []
