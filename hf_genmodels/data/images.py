"""The training and validation images of a model."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hf_genmodels.config.images import ImageDataConfig
from hf_genmodels.data.image_cache import ImageCache, build_image_cache
from hf_genmodels.data.image_columns import Kind
from hf_genmodels.data.image_set import ImageSet
from hf_genmodels.data.image_sources import image_sources
from hf_genmodels.data.sprites import with_moving_sprites
from hf_genmodels.errors import UserError

__all__ = ["ImageData", "ImageSet", "load_image_data", "scaled"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageData:
    """What a model of images is trained and validated on.

    Attributes:
        train: Training images.
        validation: Validation images, or None.
        kind: What is known about each image: ``class``, ``attributes``, ``text`` or ``none``.
        label_names: Names of the classes or of the attributes, in the order of their ids.
        num_channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        skipped: Name of each image that was left out, and the reason.
        train_names: Where the training images are from, in words.
        validation_name: Where the validation images are from, in words.
        path: Folder of the decoded training images.
        fingerprint: Digest of all pixels and of what is known about them.
        factor_names: Names of the ids of each factor of the images, if they have any; what a single frame
            of a clip shows comes first.
    """

    train: ImageSet
    validation: ImageSet | None
    kind: Kind
    label_names: list[str]
    num_channels: int
    skipped: list[tuple[str, str]]
    train_names: str
    validation_name: str
    path: Path
    fingerprint: str
    factor_names: dict[str, list[str]] = field(default_factory=dict)


def load_image_data(
    config: ImageDataConfig, *, conditioning: Kind | None = None, show_progress: bool = True
) -> ImageData:
    """Decode the images, or find them decoded.

    Args:
        config: Where the images come from and how they are brought to size.
        conditioning: What must be known about each image; None for what the data have.
        show_progress: Whether this process shows a bar and warns of images left out.

    Raises:
        UserError: If the images, or what must be known about them, cannot be used.
    """
    train_source, validation_source = image_sources(config, conditioning)
    facts = train_source.facts()
    if config.balanced and facts.kind != "class":
        raise UserError("--balanced draws classes, but the images have none. Leave it out.")
    share = 0.0 if validation_source else config.validation_split_percentage / 100
    options: dict[str, Any] = {"show_progress": show_progress}
    train = build_image_cache(
        train_source,
        facts,
        config,
        num_channels=config.num_channels,
        limit=config.max_train_images,
        held_out=share,
        **options,
    )
    caches = [train]
    validation, name = train.held_out, f"{100 * share:g} % of {config.train_names}"
    if validation_source is not None:
        other = build_image_cache(
            validation_source,
            validation_source.facts(facts),
            config,
            num_channels=train.num_channels,
            **options,
        )
        caches.append(other)
        validation, name = other.train, config.validation_names
    if show_progress:
        _report(caches, config.stored_unit)
    data = ImageData(
        train=train.train,
        validation=validation if len(validation) else None,
        kind=facts.kind,
        label_names=facts.label_names,
        num_channels=train.num_channels,
        skipped=[entry for cache in caches for entry in cache.skipped],
        train_names=config.train_names,
        validation_name=name,
        path=train.path,
        fingerprint="".join(cache.fingerprint for cache in caches),
    )
    return with_moving_sprites(data, config, conditioning) if config.sprite_size else data


def scaled(images: np.ndarray) -> torch.Tensor:
    """Turn bytes into the numbers that models compute with.

    Args:
        images: Shape (B, C, H, W), uint8.

    Returns:
        The same shape, float32, in [-1, 1].
    """
    return torch.from_numpy(np.array(images, np.float32, order="C")).div_(127.5).sub_(1)


def _report(caches: list[ImageCache], unit: str) -> None:
    skipped = [entry for cache in caches for entry in cache.skipped]
    if not skipped:
        return
    used = sum(len(cache.train) + len(cache.held_out) for cache in caches)
    examples = "; ".join(f"{name} {reason}" for name, reason in skipped[:3])
    logger.warning(
        "%s of %s %s are left out: %s%s",
        f"{len(skipped):,}",
        f"{used + len(skipped):,}",
        unit,
        examples,
        " ..." if skipped[3:] else "",
    )
