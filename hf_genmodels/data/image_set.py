"""Images in the files of a cache: how they are mapped and written."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hf_genmodels.data.cache_folder import write_json
from hf_genmodels.data.image_facts import Facts


@dataclass(frozen=True)
class ImageSet:
    """Decoded images and what is known about them.

    Attributes:
        images: Shape (N, C, H, W), uint8, memory-mapped; of clips (N, F, C, H, W).
        labels: Ids of the classes, shape (N,), int64; or 0 and 1 of the attributes, shape (N, A), uint8;
            or None.
        captions: One or more texts of each image, or None.
        factors: What else is known for measuring, by name, such as the class and the direction of a
            moving sprite: ids, shape (N,), int64.
    """

    images: np.ndarray
    labels: np.ndarray | None = None
    captions: list[list[str]] | None = None
    factors: dict[str, np.ndarray] | None = None

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def part(self, start: int, stop: int) -> ImageSet:
        """Return the images from ``start`` to ``stop``."""
        labels = None if self.labels is None else self.labels[start:stop]
        captions = None if self.captions is None else self.captions[start:stop]
        factors = self.factors and {name: ids[start:stop] for name, ids in self.factors.items()}
        return ImageSet(self.images[start:stop], labels, captions, factors)


class PartWriter:
    """Appends images to the files of one part.

    Args:
        folder: Folder of the files.
        part: Name of the part.
        facts: What is known about all images of the source.
    """

    def __init__(self, folder: Path, part: str, facts: Facts):
        self.facts, self.places = facts, list[int]()
        self._folder, self._part = folder, part
        self._file: BinaryIO = (folder / f"{part}_images.bin").open("wb")
        self._digest = hashlib.sha256()

    def append(self, place: int, pixels: np.ndarray) -> None:
        """Write the pixels of an image."""
        self.places.append(place)
        data = pixels.tobytes()
        self._digest.update(data)
        self._file.write(data)

    def finish(self) -> str:
        """Write what is known about the images; return the digest of everything."""
        self._close(self._file)
        if self.facts.labels is not None:
            labels = np.ascontiguousarray(self.facts.labels[self.places]).tobytes()
            self._digest.update(labels)
            with (self._folder / f"{self._part}_labels.bin").open("wb") as file:
                file.write(labels)
                self._close(file)
        if self.facts.captions is not None:
            captions = [self.facts.captions[place] for place in self.places]
            self._digest.update(json.dumps(captions).encode())
            write_json(self._folder / f"{self._part}_captions.json", captions)
        return self._digest.hexdigest()

    @staticmethod
    def _close(file: BinaryIO) -> None:
        file.flush()
        os.fsync(file.fileno())
        file.close()


def open_part(folder: Path, part: str, manifest: dict[str, Any]) -> ImageSet:
    """Map the files of one part.

    Args:
        folder: Folder of the files.
        part: Name of the part.
        manifest: Counts, shapes and types.

    Raises:
        ValueError: If a file has not the size that the manifest says.
    """
    count = int(manifest["counts"][part])
    images = _mapped(
        folder / f"{part}_images.bin", np.dtype(np.uint8), (count, *manifest["image_shape"])
    )
    labels = captions = None
    if manifest["labels"] is not None:
        dtype, *shape = manifest["labels"]
        labels = np.array(
            _mapped(folder / f"{part}_labels.bin", np.dtype(dtype), (count, *shape)), copy=True
        )
    if manifest["captions"]:
        captions = json.loads((folder / f"{part}_captions.json").read_text(encoding="utf-8"))
        if len(captions) != count:
            raise ValueError(f"{part}_captions.json has {len(captions)} entries, not {count}")
    return ImageSet(images, labels, captions)


def _mapped(file: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    expected, found = int(np.prod(shape)) * dtype.itemsize, file.stat().st_size
    if found != expected:
        raise ValueError(f"{file.name} has {found:,} bytes instead of {expected:,}")
    # An empty file cannot be mapped.
    return np.memmap(file, dtype=dtype, mode="r", shape=shape) if found else np.empty(shape, dtype)
