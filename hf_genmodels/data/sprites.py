"""Clips that are made on the fly: pictures that move over an empty canvas, with captions that say where.

Letters: N clips, B some of them, T frames, C channels, S side of the canvas, s side of a sprite.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_genmodels.config.images import ImageDataConfig
from hf_genmodels.config.videos import DIRECTIONS
from hf_genmodels.data.image_columns import Kind
from hf_genmodels.data.image_set import ImageSet
from hf_genmodels.data.seeding import mix_seed, mixed_numbers
from hf_genmodels.errors import UserError

if TYPE_CHECKING:
    from hf_genmodels.data.images import ImageData

SHORTEST_WAY = 0.5  # of the way that there is room for
_TRAIN, _VALIDATION = 0, 1
_DIRECTION_STREAM, _WAY_STREAM, _START_STREAM, _ASIDE_STREAM = 71, 72, 73, 74


def moving_sprite(sprite: np.ndarray, places: np.ndarray, canvas: int) -> np.ndarray:
    """Draw a sprite at one place after the other.

    Args:
        sprite: (C, s, s), uint8. Around it the canvas has the median colour of its edges.
        places: Left and top edge in each frame, (T, 2), int.
        canvas: S.

    Returns:
        (T, C, S, S), uint8.
    """
    channels, side, _ = sprite.shape
    edges = np.concatenate([sprite[:, [0, -1]], sprite[..., [0, -1]].transpose(0, 2, 1)], axis=2)
    clip = np.empty((len(places), channels, canvas, canvas), np.uint8)
    clip[:] = np.median(edges.reshape(channels, -1), axis=1).astype(np.uint8)[:, None, None]
    for frame, (left, top) in zip(clip, places.tolist(), strict=True):
        frame[:, top : top + side, left : left + side] = sprite
    return clip


class SpriteClips:
    """An array of clips (N, T, C, S, S) that is computed where it is looked at.

    Clip i shows sprite i % number of sprites, on a straight way at a constant speed. Its way is a pure
    function of the seed and i: as long as `SHORTEST_WAY` of the room at least, begun anywhere from
    which it stays inside. The clips of one sprite take the directions in turn.

    Args:
        sprites: (number, C, s, s), uint8.
        config: Frames, size of the canvas, clips of each sprite, directions.
        seed: Seed of the ways.
    """

    ndim = 5
    dtype = np.dtype(np.uint8)

    def __init__(self, sprites: np.ndarray, config: ImageDataConfig, seed: int):
        self._sprites, self._seed = sprites, seed
        self._moves = np.array([DIRECTIONS[name] for name in config.sprite_directions])
        self._room = config.image_size - sprites.shape[-1]
        number = len(sprites) * config.clips_per_image
        sides = (config.image_size,) * 2
        self.shape = (number, config.num_frames, sprites.shape[1], *sides)

    def __len__(self) -> int:
        """Number of clips."""
        return self.shape[0]

    def __getitem__(self, chosen: Any) -> np.ndarray:
        """Return one clip (T, C, S, S), or those of a slice or of an array of numbers."""
        numbers = np.arange(len(self))[chosen]
        if numbers.ndim == 0:
            return self[numbers[None]][0]
        ways = self.places(numbers)
        clips = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        for row, number in enumerate(numbers.tolist()):
            sprite = self._sprites[number % len(self._sprites)]
            clips[row] = moving_sprite(sprite, ways[row], self.shape[-1])
        return clips

    def directions(self, numbers: np.ndarray) -> np.ndarray:
        """Return the number of the direction of some clips, (B,), int64.

        Args:
            numbers: Which clips, (B,).
        """
        turns, sprites = np.divmod(numbers, len(self._sprites))
        first = mixed_numbers(mix_seed(self._seed, _DIRECTION_STREAM), sprites)
        count = np.uint64(len(self._moves))
        return ((first % count).astype(np.int64) + turns) % len(self._moves)

    def places(self, numbers: np.ndarray) -> np.ndarray:
        """Return left and top edge of the sprite in each frame of some clips, (B, T, 2), int64.

        Args:
            numbers: Which clips, (B,).
        """
        way, start, aside = (
            mixed_numbers(mix_seed(self._seed, stream), numbers) / 2.0**64
            for stream in (_WAY_STREAM, _START_STREAM, _ASIDE_STREAM)
        )
        way = self._room * (SHORTEST_WAY + (1 - SHORTEST_WAY) * way)
        along = (start * (self._room - way))[:, None] + way[:, None] * np.linspace(
            0, 1, self.shape[1]
        )
        moves = self._moves[self.directions(numbers)]  # (B, 2)
        along = np.where(moves.sum(axis=1, keepdims=True) < 0, self._room - along, along)
        aside = np.broadcast_to((aside * self._room)[:, None], along.shape)
        across = moves[:, :1] != 0
        places = np.stack([np.where(across, along, aside), np.where(across, aside, along)], axis=2)
        return np.rint(places).astype(np.int64)


def with_moving_sprites(
    data: ImageData, config: ImageDataConfig, conditioning: Kind | None
) -> ImageData:
    """Return clips of moving sprites instead of still images.

    Args:
        data: The sprites, and what is known about them.
        config: How they move.
        conditioning: What must be known about each clip; `None`: captions, or attributes if that is what
            the sprites have.

    Raises:
        UserError: If that cannot be known.
    """
    kind: Kind = conditioning or ("attributes" if data.kind == "attributes" else "text")
    if kind == "class" and data.kind != "class":
        raise UserError("Classes are needed, but the images that move have none.")
    if config.balanced and kind != "class":
        raise UserError(
            "--balanced draws classes, and sprites are drawn by captions. Leave it out."
        )
    movements = [f"moving {name}" for name in config.sprite_directions]
    names = {"class": data.label_names, "attributes": _attributes(data, movements)}.get(kind, [])
    factors = {"direction": list(config.sprite_directions)}
    if data.kind == "class":
        factors = {"class": data.label_names, **factors}
    options = [config.num_frames, config.image_size, config.clips_per_image]
    described = json.dumps([kind, movements, config.sprite_seed, *options])
    return replace(
        data,
        train=_moving(data, data.train, config, kind, movements, _TRAIN),
        validation=data.validation
        and _moving(data, data.validation, config, kind, movements, _VALIDATION),
        kind=kind,
        label_names=names,
        factor_names=factors,
        fingerprint=data.fingerprint + hashlib.sha256(described.encode()).hexdigest(),
    )


def _moving(
    data: ImageData,
    sprites: ImageSet,
    config: ImageDataConfig,
    kind: Kind,
    movements: list[str],
    part: int,
) -> ImageSet:
    """Return the clips of some sprites."""
    clips: Any = SpriteClips(sprites.images, config, mix_seed(config.sprite_seed, part))
    directions = clips.directions(np.arange(len(clips)))
    factors = {"direction": directions}
    labels = captions = None
    if data.kind == "class" and sprites.labels is not None:
        factors = {"class": np.tile(sprites.labels, config.clips_per_image), **factors}
        labels = factors["class"] if kind == "class" else None
    if kind == "attributes":
        labels = _flags(data, sprites, directions, len(movements))
    if kind == "text":
        captions = [
            [f"{text} {movements[direction]}".strip() for text in texts]
            for texts, direction in zip(
                _texts(data, sprites) * config.clips_per_image, directions.tolist(), strict=True
            )
        ]
    return ImageSet(clips, labels, captions, factors)


def _texts(data: ImageData, sprites: ImageSet) -> list[list[str]]:
    """Return what each sprite is called."""
    if sprites.captions is not None:
        return sprites.captions
    if data.kind == "class" and sprites.labels is not None:
        names = [name.lower() for name in data.label_names]
        return [[names[label]] for label in np.asarray(sprites.labels).tolist()]
    return [[""]] * len(sprites)


def _attributes(data: ImageData, movements: list[str]) -> list[str]:
    return [*data.label_names, *movements]


def _flags(
    data: ImageData, sprites: ImageSet, directions: np.ndarray, num_directions: int
) -> np.ndarray:
    """Return the attributes of clips: those of the sprites, or their classes, and the directions."""
    parts = [np.eye(num_directions, dtype=np.uint8)[directions]]
    if sprites.labels is not None:
        own = np.asarray(sprites.labels)
        if own.ndim == 1:
            own = np.eye(len(data.label_names), dtype=np.uint8)[own]
        parts.insert(0, np.tile(own, (len(directions) // len(own), 1)))
    return np.concatenate(parts, axis=1)
