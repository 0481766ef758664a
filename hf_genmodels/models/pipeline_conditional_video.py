"""Pipelines that draw clips: `class-to-video` for labels and attributes, `text-to-video` for prompts."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from .pipeline_conditional_image import (
    ClassToImagePipeline,
    ConditionalImagePipeline,
    TextToImagePipeline,
)
from .video_files import FRAMES_PER_SECOND, save_video


class ConditionalVideoPipeline(ConditionalImagePipeline):
    """What the pipelines that draw clips have in common.

    They are called as those that draw images, with `num_videos` instead of `num_images`. Where it is
    not given, the result for an input is the list of the frames of one clip, images of PIL; where it is,
    a list of as many clips.
    """

    count = "num_videos"
    default_count = None

    def _draw(
        self, inputs: Sequence[Any], *, number: int | None, **settings: Any
    ) -> list[list[Any]]:
        """Return the clips of each input; if no number was given, the frames of one."""
        drawn = super()._draw(inputs, number=number or 1, **settings)
        return [own[0] for own in drawn] if number is None else drawn

    def _images_at_once(self, batch_size: int | None) -> int:
        """Return how many clips one forward pass draws."""
        frames = self.model.config.num_frames
        return batch_size or max(1, super()._images_at_once(None) // frames)

    def postprocess(self, images: torch.Tensor) -> list[Any]:
        """Return the frames of each clip, one list for each row of (N, T, C, H, W)."""
        return [self.model.to_pil(clip) for clip in images]

    @staticmethod
    def save(
        frames: Sequence[Image.Image],
        path: str | os.PathLike[str],
        frames_per_second: float = FRAMES_PER_SECOND,
        scale: int = 1,
    ) -> Path:
        """Write the frames of a clip as GIF, WebP or MP4; see `save_video`.

        Args:
            frames: The frames of one clip.
            path: The file, .gif, .webp or .mp4.
            frames_per_second: How many are shown in a second.
            scale: Whole factor by which frames are enlarged without smoothing.

        Returns:
            The file.

        Raises:
            ValueError: If it cannot be written so.
        """
        return save_video(path, frames, frames_per_second, scale=scale)


class ClassToVideoPipeline(ConditionalVideoPipeline, ClassToImagePipeline):
    """Draws clips of classes or attributes, or of nothing in particular; see `ClassToImagePipeline`."""


class TextToVideoPipeline(ConditionalVideoPipeline, TextToImagePipeline):
    """Draws clips of texts; see `TextToImagePipeline`."""


__all__ = ["ClassToVideoPipeline", "TextToVideoPipeline"]
