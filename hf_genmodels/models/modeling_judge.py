"""The judge: a small classifier of real images or clips, by whose features generated ones are measured.

A generator of grey or small images is judged badly by a network that was trained on photographs; the
advice of the authors of FID (Heusel et al. 2017, arXiv:1706.08500) is a classifier of one's own data.

Shapes are written with these letters: B batch, T frames, C channels, S side of an image in pixels,
D features, L labels. A judge of clips is given (B, T, C, S, S) wherever images are (B, C, S, S).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import ModelOutput
from transformers.utils import can_return_tuple

from .configuration_judge import ROTATIONS, GenJudgeConfig
from .judge_backbones import build_lenet, build_r2plus1d, build_resnet
from .judge_text import TextTower, encode_texts

LARGEST_SCALE = 4.6052  # logarithm of 100, as in the paper on matching


@dataclass
class JudgeOutput(ModelOutput):
    """What the judge thinks of images.

    Attributes:
        loss: Loss of its task, a scalar, if there was something to compare with.
        logits: (B, L); in matching the similarity of every image to every text, (B, texts). Those of
            factors stand one after the other, see `GenJudgeConfig.factor_slices`.
        features: (B, D).
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    features: torch.Tensor | None = None


class GenJudgePreTrainedModel(PreTrainedModel):
    """Configuration and initialisation."""

    config: GenJudgeConfig
    base_model_prefix = "backbone"
    main_input_name = "pixel_values"
    input_modalities = ("image",)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, GenJudgeForImageClassification) and module.scale is not None:
            init.constant_(module.scale, self.config.logit_scale)


class GenJudgeForImageClassification(GenJudgePreTrainedModel):
    """A classifier of images whose last hidden layer measures how far images are from others.

    Args:
        config: Configuration of the judge.
    """

    def __init__(self, config: GenJudgeConfig):
        super().__init__(config)
        backbones = {"lenet": build_lenet, "resnet": build_resnet, "r2plus1d": build_r2plus1d}
        self.backbone = backbones[config.backbone](config)
        self.scale: nn.Parameter | None = None
        if config.task == "matching":
            self.image_head = nn.Linear(config.feature_dim, config.feature_dim)
            self.text_tower = TextTower(config.num_buckets, config.feature_dim)
            self.scale = nn.Parameter(torch.tensor(float(config.logit_scale)))
        else:
            self.classifier = nn.Linear(config.feature_dim, config.num_labels)
        self.post_init()

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the features (B, D) of images (B, C, S, S) in [-1, 1], or of clips."""
        return self.backbone(pixel_values)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> JudgeOutput:
        """Judge images.

        Args:
            pixel_values: (B, C, S, S) in [-1, 1].
            labels: Class of each image, or by how many quarters it was turned, int64 (B,); the class in
                each factor, int64 (B, factors); or the attributes it has, 0 or 1, (B, L).
            input_ids: Matching: pieces of the texts, int64 (texts, pieces), as `encode_texts` of
                the model makes them. Where there are as many as images, row i belongs to image i.
            attention_mask: Matching: 1 for pieces and 0 for padding.
            **kwargs: Options of transformers, such as `return_dict`.

        Returns:
            The features, the logits, and the loss if it is defined.

        Raises:
            ValueError: If a judge of texts is given none.
        """
        features = self.features(pixel_values)
        if self.config.task == "matching":
            if input_ids is None or attention_mask is None:
                raise ValueError(
                    "This judge compares images with texts: give input_ids and attention_mask, "
                    "made by encode_texts, or take its features alone."
                )
            images = self.embed_images(features)
            similarities = images @ self.embed_texts(input_ids, attention_mask).T
            logits = similarities * self.scale.clamp(max=LARGEST_SCALE).exp()
            return JudgeOutput(matching_loss(logits.float(), input_ids), logits, features)
        logits = self.classifier(F.dropout(features, self.config.dropout, self.training))
        return JudgeOutput(self._loss(logits.float(), labels), logits, features)

    def embed_images(self, features: torch.Tensor) -> torch.Tensor:
        """Return vectors of length 1, (B, D), of the features of images."""
        return F.normalize(self.image_head(features), dim=-1)

    def embed_texts(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return vectors of length 1, (B, D), of texts; the dot product with an image's is the match."""
        return F.normalize(self.text_tower(input_ids, attention_mask), dim=-1)

    def encode_texts(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `input_ids` and `attention_mask` of texts, both (B, pieces)."""
        ids, mask = encode_texts(texts, self.config.num_buckets, self.config.max_pieces)
        return ids.to(self.device), mask.to(self.device)

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor | None:
        """Return the mean cross-entropy, over classes, for each factor or for each attribute."""
        if labels is None:
            return None
        if self.config.task == "attributes":
            return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
        if self.config.task == "factors":
            slices = self.config.factor_slices.values()
            losses = [
                F.cross_entropy(logits[:, own], ids)
                for own, ids in zip(slices, labels.T, strict=True)
            ]
            return torch.stack(losses).mean()
        return F.cross_entropy(logits, labels)


def matching_loss(logits: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor | None:
    """Return the cross-entropy of finding each image's text and each text's image (Radford et al. 2021).

    Equal texts are all right for each other's images.

    Args:
        logits: (B, B), scaled similarities of images to texts; row i belongs to column i.
        input_ids: The texts, (B, pieces).

    Returns:
        A scalar, or `None` if there are not as many texts as images.
    """
    if logits.shape[0] != logits.shape[1]:
        return None
    same = (input_ids[:, None] == input_ids[None]).all(dim=-1).to(logits.dtype)
    right = same / same.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def turned(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return every image, or clip, in all four orientations, (4 B, ...), and by how many quarters, (4 B,)."""
    quarters = range(len(ROTATIONS))
    views = torch.cat([torch.rot90(images, turns, (-2, -1)) for turns in quarters])
    return views, torch.arange(len(ROTATIONS), device=images.device).repeat_interleave(len(images))


__all__ = [
    "GenJudgeForImageClassification",
    "GenJudgePreTrainedModel",
    "JudgeOutput",
    "matching_loss",
    "turned",
]
