"""Tests of the cache of decoded images: when it is used, built again or refused."""

from __future__ import annotations

import errno
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hf_genmodels.data import image_cache
from hf_genmodels.errors import UserError
from tests.data.image_folders import RED, fill, first_pixels, png, shades


def test_images_are_decoded_once(folder, load, monkeypatch, tmp_path):
    fill(folder, shades(3))
    first = load(folder)
    assert isinstance(first.train.images, np.memmap)
    monkeypatch.setattr(image_cache, "decode", None)
    again = load(folder)
    assert again.path == first.path
    assert again.fingerprint == first.fingerprint
    assert first_pixels(again.train) == [0, 1, 2]
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize("change", ["pixels", "added", "removed", "size", "resize", "channels"])
def test_what_changes_the_images_changes_the_fingerprint(change, folder, load):
    fill(folder, {**shades(3), "4.png": png(RED, (16, 8))})
    first = load(folder)
    options = {
        "size": {"image_size": 16},
        "resize": {"resize": "stretch"},
        "channels": {"num_channels": 1},
    }
    if change == "pixels":
        fill(folder, {"1.png": png(200)})
    elif change == "added":
        fill(folder, {"5.png": png(5)})
    elif change == "removed":
        (folder / "1.png").unlink()
    other = load(folder, **options.get(change, {}))
    assert other.path != first.path
    if change != "resize":  # one colour looks the same however it is resized
        assert other.fingerprint != first.fingerprint


def test_the_fingerprint_follows_the_pixels_and_not_the_names_or_times(folder, load, tmp_path):
    fill(folder, {f"a/{name}": data for name, data in shades(2).items()} | {"b/1.png": png(1)})
    first = load(folder)
    os.utime(folder / "b" / "1.png", (1, 1))
    (folder / "a" / "0.png").rename(folder / "a" / "00.png")
    other = load(folder)
    assert other.path != first.path
    assert other.fingerprint == first.fingerprint


@pytest.mark.parametrize("name", ["train_images.bin", "train_labels.bin", "manifest.json"])
def test_a_damaged_cache_is_built_again_with_a_warning(name, folder, load, caplog):
    fill(folder, {"a/1.png": png(1), "b/2.png": png(2)})
    first = load(folder)
    expected = first_pixels(first.train)
    content = (first.path / name).read_bytes()
    (first.path / name).unlink()
    (first.path / name).write_bytes(content[:-1])
    with caplog.at_level(logging.WARNING):
        assert first_pixels(load(folder).train) == expected
    assert "built again" in caplog.text


def test_a_full_disk_is_a_clear_error(folder, load, monkeypatch, tmp_path):
    def no_room(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    fill(folder, shades(2))
    monkeypatch.setattr(image_cache, "write_json", no_room)
    with pytest.raises(UserError, match="No space left"):
        load(folder)
    assert list((tmp_path / "cache").iterdir()) == []


def test_too_little_room_is_said_before_anything_is_decoded(folder, load, monkeypatch):
    fill(folder, shades(2))
    monkeypatch.setattr(image_cache, "decode", None)
    usage = type("Usage", (), {"free": 2 * 8 * 8 - 1})
    monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"decoded images need .*--max_train_images"):
        load(folder)


def test_several_may_decode_at_once(folder, load, monkeypatch, tmp_path):
    fill(folder, shades(40))
    both, channels_needed = threading.Barrier(2, timeout=60), image_cache._channels_needed

    def wait_for_the_other(*arguments):
        both.wait()
        return channels_needed(*arguments)

    monkeypatch.setattr(image_cache, "_channels_needed", wait_for_the_other)
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(load, folder) for _ in range(2)]
    assert len({data.result().fingerprint for data in found}) == 1
    assert sorted(first_pixels(found[0].result().train)) == list(range(40))
    assert len(list((tmp_path / "cache").iterdir())) == 1
