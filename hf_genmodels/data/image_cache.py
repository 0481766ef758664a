"""Decoded images on disk: built once in constant memory, then memory-mapped by every run."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from hf_genmodels.config.images import ImageDataConfig
from hf_genmodels.data.cache_folder import default_cache_dir, open_or_build, write_json
from hf_genmodels.data.image_decoding import (
    BrokenImageError,
    channels_of,
    common_channels,
    decode,
    open_image,
    quietly,
)
from hf_genmodels.data.image_facts import Facts
from hf_genmodels.data.image_set import ImageSet, PartWriter, open_part
from hf_genmodels.data.image_sources import ImageSource
from hf_genmodels.data.image_tables import Content
from hf_genmodels.data.sampling import permutation
from hf_genmodels.data.video_decoding import decode_clip, open_frames
from hf_genmodels.errors import UserError

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
# The parts of a folder: images to train on, and those held out of them.
PARTS = ("train", "held_out")
_CHOICE_SEED = 20
_SNIFFED = 256
_CHUNK = 256
_LISTED = 3


@dataclass(frozen=True)
class ImageCache:
    """A finished folder of decoded images.

    Attributes:
        train: The images, those held out excepted.
        held_out: Images that were chosen at random to be kept apart, perhaps none.
        num_channels: 1, 3 or 4.
        skipped: Name of each image that was left out, and the reason.
        fingerprint: Digest of the pixels and of what is known about them.
        path: The folder.
    """

    train: ImageSet
    held_out: ImageSet
    num_channels: int
    skipped: list[tuple[str, str]]
    fingerprint: str
    path: Path

    @classmethod
    def open(cls, path: Path) -> ImageCache:
        """Map a finished folder.

        Raises:
            ValueError: If the folder is incomplete or a file has not the size the manifest says.
        """
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            train, held_out = (open_part(path, part, manifest) for part in PARTS)
            return cls(
                train,
                held_out,
                int(manifest["image_shape"][-3]),
                [(name, reason) for name, reason in manifest["skipped"]],
                str(manifest["fingerprint"]),
                path,
            )
        except (OSError, KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(f"The cache of images {path} cannot be used: {error}.") from error


def build_image_cache(
    source: ImageSource,
    facts: Facts,
    config: ImageDataConfig,
    *,
    num_channels: int | None = None,
    limit: int | None = None,
    held_out: float = 0.0,
    show_progress: bool = True,
) -> ImageCache:
    """Decode images, or find them decoded.

    Several processes may ask for the same images at once.

    Args:
        source: Where the images come from.
        facts: What is known about them.
        config: Size, way of resizing, what happens to broken images, folder of the cache.
        num_channels: 1, 3 or 4; None for what the images need.
        limit: Most images that are used, chosen at random.
        held_out: Part of them that is kept apart, 0 .. 1, chosen at random.
        show_progress: Whether to show a bar when standard error is a terminal.

    Raises:
        UserError: If an image cannot be used and ``config.broken`` is ``error``, none can be used, or the
            cache cannot be written.
    """
    size = config.stored_size
    extra = [config.stored_frames] if config.stored_frames > 1 else []
    options = {
        "format": FORMAT_VERSION,
        "source": source.identity,
        "facts": [facts.kind, facts.label_names],
        "decoding": [size, num_channels, config.resize, config.broken, *extra],
        "choice": [limit, held_out],
    }
    key = hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()
    root = Path(config.cache_dir).expanduser() if config.cache_dir else default_cache_dir("images")

    def write(folder: Path) -> None:
        with quietly():
            channels = num_channels or _channels_needed(source, facts, config, limit)
            chosen = _Choice(source, facts, limit, held_out)
            _write(folder, chosen, config, channels, show_progress)

    return open_or_build(root / key[:32], ImageCache.open, write)


class _Choice:
    """Which images are used, and which of them are held out."""

    def __init__(self, source: ImageSource, facts: Facts, limit: int | None, held_out: float):
        self.source, self.facts = source, facts
        order = permutation(_CHOICE_SEED, 0, len(source)).numpy()
        self.places = np.sort(order[:limit])
        number = round(len(self.places) * held_out)
        # A shuffle of its own: a limit shall not make neighbours of the images held out.
        mixed = permutation(_CHOICE_SEED, 1, len(self.places)).numpy()
        apart = max(number, 1) if held_out else 0
        self.held_out = set(self.places[mixed[:apart]].tolist())


def _channels_needed(
    source: ImageSource, facts: Facts, config: ImageDataConfig, limit: int | None
) -> int:
    """Look at some images, spread over all, for colour and transparency."""
    places = np.sort(permutation(_CHOICE_SEED, 0, len(source)).numpy()[:limit])
    places = np.array([place for place in places.tolist() if place not in facts.problems])
    spread = np.unique(np.linspace(0, len(places) - 1, _SNIFFED).round().astype(np.int64))
    counts = []
    for content in source.contents(places[spread].tolist() if len(places) else []):
        if content is None:
            continue
        try:
            is_clip = config.stored_frames > 1
            first = open_frames(content, 1)[0] if is_clip else open_image(content, near=64)
            counts.append(channels_of(first))
        except BrokenImageError:
            continue
    return common_channels(counts) if counts else 3


def _write(
    folder: Path, choice: _Choice, config: ImageDataConfig, channels: int, show_progress: bool
) -> None:
    facts, source = choice.facts, choice.source
    skipped = {
        place: facts.problems[place] for place in choice.places.tolist() if place in facts.problems
    }
    if skipped and config.broken == "error":
        raise _refused(source, *next(iter(skipped.items())))
    wanted = [place for place in choice.places.tolist() if place not in skipped]
    shape = [channels, config.stored_size, config.stored_size]
    if config.stored_frames > 1:
        shape.insert(0, config.stored_frames)
    _check_room(folder, len(wanted) * math.prod(shape))
    parts = {part: PartWriter(folder, part, facts) for part in PARTS}
    visible = show_progress and sys.stderr.isatty()
    with tqdm(total=len(wanted), unit="image", desc="Decoding", disable=not visible) as bar:
        for place, result in _decoded(source, wanted, config, channels):
            bar.update()
            if not isinstance(result, str):
                parts["held_out" if place in choice.held_out else "train"].append(place, result)
            elif config.broken == "error":
                raise _refused(source, place, result)
            else:
                skipped[place] = result
    if not parts["train"].places:
        raise _none_left(source, skipped, config.stored_unit)
    digests = {part: writer.finish() for part, writer in parts.items()}
    described = json.dumps([facts.kind, facts.label_names, channels, digests], sort_keys=True)
    manifest: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "fingerprint": hashlib.sha256(described.encode()).hexdigest(),
        "counts": {part: len(writer.places) for part, writer in parts.items()},
        "image_shape": shape,
        "labels": None
        if facts.labels is None
        else [facts.labels.dtype.name, *facts.labels.shape[1:]],
        "captions": facts.captions is not None,
        "skipped": [[source.name(place), skipped[place]] for place in sorted(skipped)],
    }
    write_json(folder / MANIFEST, manifest)


def _decoded(
    source: ImageSource, places: Sequence[int], config: ImageDataConfig, channels: int
) -> Iterator[tuple[int, np.ndarray | str]]:
    """Yield each image's number with its pixels, or with the reason why it has none."""

    def one(content: Content | None) -> np.ndarray | str:
        if content is None:
            return "is empty"
        options: dict[str, Any] = {
            "image_size": config.stored_size,
            "num_channels": channels,
            "resize": config.resize,
        }
        try:
            if config.stored_frames > 1:
                return decode_clip(content, config.stored_frames, **options)
            return decode(content, **options)
        except BrokenImageError as error:
            return str(error)

    contents, numbers = source.contents(places), iter(places)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        while chunk := list(islice(contents, _CHUNK)):
            yield from zip(islice(numbers, len(chunk)), pool.map(one, chunk), strict=True)


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"The decoded images need {needed / 1e9:.1f} GB in {folder.parent}, where "
            f"{free / 1e9:.1f} GB are free. Choose another folder with --cache_dir, a smaller "
            "--image_size, or fewer images with --max_train_images."
        )


def _refused(source: ImageSource, place: int, reason: str) -> UserError:
    return UserError(
        f"An image cannot be used: {source.name(place)} {reason}. Mend or remove it, or leave such "
        "images out with --broken skip."
    )


def _none_left(source: ImageSource, skipped: dict[int, str], unit: str) -> UserError:
    examples = "; ".join(
        f"{source.name(place)} {reason}" for place, reason in list(skipped.items())[:_LISTED]
    )
    if not skipped:
        return UserError(
            f"The {unit} of {source.where} are too few to hold some out. Give more, or others to "
            "validate on with --validation_file."
        )
    return UserError(f"None of the {unit} of {source.where} can be used: {examples}.")
