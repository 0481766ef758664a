"""Animations and videos as clips."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hf_genmodels.data.image_decoding import BrokenImageError
from hf_genmodels.data.video_decoding import decode_clip, open_frames
from hf_genmodels.errors import UserError

SIZE = {"image_size": 8, "resize": "crop"}


def frames(number, side=16):
    """Grey pictures, each brighter than the one before."""
    return [Image.new("L", (side, side), 10 * place) for place in range(number)]


def animation(number, kind="GIF", **options):
    buffer = io.BytesIO()
    first, *others = frames(number)
    first.save(buffer, kind, save_all=True, append_images=others, duration=100, **options)
    return buffer.getvalue()


def video(path: Path, number: int) -> Path:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        for picture in frames(number):
            for packet in stream.encode(av.VideoFrame.from_image(picture.convert("RGB"))):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def brightness(clip):
    return np.rint(clip.mean(axis=(1, 2, 3)) / 10).astype(int).tolist()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_frames_are_taken_evenly_and_from_the_middle(kind):
    content = animation(13, kind, **({"lossless": True} if kind == "WEBP" else {}))
    clip = decode_clip(content, 4, num_channels=1, **SIZE)
    assert clip.shape == (4, 1, 8, 8)
    assert brightness(clip) == [1, 4, 7, 10]
    assert brightness(decode_clip(content, 13, num_channels=3, **SIZE)) == list(range(13))


def test_frames_of_a_video_are_taken_in_the_same_way(tmp_path):
    path = video(tmp_path / "clip.mp4", 13)
    for content in (path, path.read_bytes()):
        clip = decode_clip(content, 4, num_channels=3, **SIZE)
        assert clip.shape == (4, 3, 8, 8)
        assert brightness(clip) == [1, 4, 7, 10]


def test_what_is_too_short_or_damaged_is_broken(tmp_path):
    with pytest.raises(BrokenImageError, match="has 3 of the 4 frames of a clip"):
        open_frames(animation(3), 4)
    still = io.BytesIO()
    frames(1)[0].save(still, "PNG")
    with pytest.raises(BrokenImageError, match="has 1 of the 4 frames"):
        open_frames(still.getvalue(), 4)
    with pytest.raises(BrokenImageError, match="does not exist"):
        open_frames(tmp_path / "nowhere.gif", 4)
    with pytest.raises(BrokenImageError, match="is no image"):
        open_frames(b"no picture at all", 4)
    cut = video(tmp_path / "clip.mp4", 6).read_bytes()[:300]
    with pytest.raises(BrokenImageError, match="cannot be decoded"):
        open_frames(cut, 4)


def test_a_list_of_other_files_is_no_video(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"#EXTM3U\n#EXTINF:1,\n{secret}\n")
    with pytest.raises(BrokenImageError, match="is no image"):
        open_frames(playlist, 2)


def test_a_missing_library_is_named_with_its_extra(tmp_path, monkeypatch):
    path = video(tmp_path / "clip.mp4", 4)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(UserError, match="video"):
        open_frames(path, 2)


def test_a_folder_of_clips_has_classes_by_its_subfolders(folder, load):
    for name in ("rise", "stay"):
        (folder / name).mkdir()
        for number in range(3):
            (folder / name / f"{number}.gif").write_bytes(animation(6 + number))
    (folder / "rise" / "short.gif").write_bytes(animation(2))
    data = load(folder, num_frames=5)
    assert data.train.images.shape == (6, 5, 1, 8, 8)
    assert data.label_names == ["rise", "stay"]
    assert [reason for _, reason in data.skipped] == ["has 2 of the 5 frames of a clip"]
    assert brightness(data.train.images[0]) == list(range(5))


def test_a_table_of_clips_has_their_captions(folder, load):
    rows = []
    for number in range(3):
        (folder / f"{number}.webp").write_bytes(animation(4, "WEBP", lossless=True))
        rows.append({"file_name": f"{number}.webp", "caption": f"clip {number}"})
    video(folder / "3.mp4", 4)
    rows.append({"file_name": "3.mp4", "caption": "a video"})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = load(folder, num_frames=4)
    assert data.kind == "text"
    assert data.train.captions[-1] == ["a video"]
    assert all(brightness(clip) == list(range(4)) for clip in data.train.images)


def test_a_folder_of_videos_is_found_for_clips_only(folder, load):
    video(folder / "one.mp4", 4)
    video(folder / "two.mp4", 4)
    assert load(folder, num_frames=4).train.images.shape[:2] == (2, 4)
    with pytest.raises(UserError, match="holds no images"):
        load(folder)
