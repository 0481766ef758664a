"""The judge: a small classifier of real images, by whose features generated ones are measured.

A generator of grey or small images is judged badly by a network that was trained on photographs; the
advice of the authors of FID (Heusel et al. 2017, arXiv:1706.08500) is a classifier of one's own data.

Shapes are written with these letters: B batch, C channels, S side of an image in pixels, D features,
L labels.
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
from .judge_text import TextTower, encode_texts

LENET_GRID = 4
RESNET_GRID = 4
LARGEST_SCALE = 4.6052  # logarithm of 100, as in the paper on matching


@dataclass
class JudgeOutput(ModelOutput):
    """What the judge thinks of images.

    Attributes:
        loss: Loss of its task, a scalar, if there was something to compare with.
        logits: (B, L); in matching the similarity of every image to every text, (B, texts).
        features: (B, D).
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    features: torch.Tensor | None = None


class ConvNormAct(nn.Sequential):
    """Convolution, batch normalisation and ReLU.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        kernel_size: Side of the kernel; the image keeps its size where `stride` is 1.
        stride: Step of the convolution.
    """

    def __init__(self, inputs: int, outputs: int, kernel_size: int = 3, stride: int = 1):
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel_size, stride, kernel_size // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )


class LinearNormAct(nn.Sequential):
    """Linear layer, batch normalisation and ReLU.

    Args:
        inputs: Width of the input.
        outputs: Width of the output.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__(nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU())


class ResidualBlock(nn.Module):
    """Two convolutions beside a way around them (He et al. 2016, section 3).

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        stride: 2 halves the image.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.first = ConvNormAct(inputs, outputs, stride=stride)
        self.second = nn.Sequential(
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride, ceil_mode=True), nn.Conv2d(inputs, outputs, 1, bias=False)
            )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Transform (B, inputs, S, S) into (B, outputs, S / stride, S / stride)."""
        return F.relu(self.second(self.first(images)) + self.shortcut(images))


def build_lenet(config: GenJudgeConfig) -> nn.Sequential:
    """Return LeNet-5's layers, wider, with batch normalisation: from (B, C, S, S) to (B, D).

    The names C1 to F6 are the paper's.
    """
    width = config.width
    return nn.Sequential(
        ConvNormAct(config.num_channels, width, 5),  # C1
        nn.MaxPool2d(2),  # S2
        ConvNormAct(width, 2 * width, 5),  # C3
        nn.AdaptiveMaxPool2d(LENET_GRID),  # S4
        nn.Flatten(),
        LinearNormAct(2 * width * LENET_GRID**2, 4 * width),  # C5
        LinearNormAct(4 * width, config.feature_dim),  # F6
    )


def build_resnet(config: GenJudgeConfig) -> nn.Sequential:
    """Return a residual network that halves images until 4 x 4 are left: (B, C, S, S) to (B, D)."""
    layers: list[nn.Module] = []
    size, channels, outputs = config.image_size, config.num_channels, config.width
    stride = 2 if size > 32 else 1
    layers.append(ConvNormAct(channels, outputs, stride=stride))
    size, channels = size // stride, outputs
    while size > RESNET_GRID:
        outputs = min(2 * channels, 4 * config.width)
        layers.append(ResidualBlock(channels, outputs, stride=2))
        size, channels = -(-size // 2), outputs
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), LinearNormAct(channels, config.feature_dim)]
    return nn.Sequential(*layers)


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
        build = {"lenet": build_lenet, "resnet": build_resnet}[config.backbone]
        self.backbone = build(config)
        self.scale: nn.Parameter | None = None
        if config.task == "matching":
            self.image_head = nn.Linear(config.feature_dim, config.feature_dim)
            self.text_tower = TextTower(config.num_buckets, config.feature_dim)
            self.scale = nn.Parameter(torch.tensor(float(config.logit_scale)))
        else:
            self.classifier = nn.Linear(config.feature_dim, config.num_labels)
        self.post_init()

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the features (B, D) of images (B, C, S, S) in [-1, 1]."""
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
            labels: Class of each image, or by how many quarters it was turned, int64 (B,); or the
                attributes it has, 0 or 1, (B, L).
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
        """Return the mean cross-entropy, over classes or for each attribute."""
        if labels is None:
            return None
        if self.config.task == "attributes":
            return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
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
    """Return every image in all four orientations, (4 B, C, S, S), and by how many quarters, (4 B,)."""
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
