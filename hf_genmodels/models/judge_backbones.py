"""Backbones of the judge: from images or clips to features.

Shapes are written with these letters: B batch, T frames, C channels, S side of an image in pixels,
D features.
"""

import torch
import torch.nn.functional as F
from torch import nn

from .configuration_judge import GenJudgeConfig

LENET_GRID = 4
RESNET_GRID = 4
VIDEO_GRID = 8
SLOW_STRIDE = 8  # of the frames that the slow pathway sees
FAST_SHARE = 4  # its channels are a quarter of the slow pathway's
TIME_STRIDE = 4


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


class OverSpace(nn.Sequential):
    """Convolution of each frame on its own: (B, T, inputs, S, S) to (B, T, outputs, S / stride, ...).

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        kernel_size: Side of the kernel.
        stride: Step of the convolution.
    """

    def __init__(self, inputs: int, outputs: int, kernel_size: int = 3, stride: int = 1):
        super().__init__(ConvNormAct(inputs, outputs, kernel_size, stride))

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Transform each frame."""
        return super().forward(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])


class OverTime(nn.Module):
    """Convolution of each place over the frames: (B, T, inputs, S, S) to (B, T / 4, outputs, S, S).

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        size = (TIME_STRIDE, 1)
        self.conv = nn.Conv2d(inputs, outputs, size, size, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Transform each place; the last frame is repeated where their number is no multiple of 4."""
        sides = clips.shape[-2:]
        rows = clips.transpose(1, 2).flatten(3)  # (B, inputs, T, S * S)
        if missing := -rows.shape[2] % TIME_STRIDE:
            rows = torch.cat((rows, rows[:, :, -1:].expand(-1, -1, missing, -1)), dim=2)
        rows = F.relu(self.norm(self.conv(rows)))
        return rows.unflatten(3, sides).transpose(1, 2)


class TwoPathways(nn.Module):
    """Sees few frames in detail and all frames in outline (Feichtenhofer et al. 2019, arXiv:1812.03982).

    What is shown is told by few frames, how it moves by all of them at a low resolution, through
    convolutions over space and over time in turn ((2+1)D, Tran et al. 2018, arXiv:1711.11248).

    Args:
        config: Configuration of the judge.
    """

    def __init__(self, config: GenJudgeConfig):
        super().__init__()
        width = config.width // 2
        thin = max(1, width // FAST_SHARE)
        number = -(-config.num_frames // SLOW_STRIDE)
        self.places = [(2 * i + 1) * config.num_frames // (2 * number) for i in range(number)]
        self.slow = nn.Sequential(*_detailed_layers(config, width))
        self.fast = nn.Sequential(
            OverSpace(config.num_channels, thin, 5, stride=2),
            OverTime(thin, 2 * thin),
            OverSpace(2 * thin, 4 * thin, stride=2),
            OverTime(4 * thin, 4 * thin),
        )
        self.out = LinearNormAct(4 * width + 4 * thin, config.feature_dim)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Return the features (B, D) of clips (B, T, C, S, S)."""
        frames = clips[:, self.places].flatten(0, 1).contiguous(memory_format=torch.channels_last)
        shown = self.slow(frames).unflatten(0, (len(clips), -1)).mean(dim=1)
        return self.out(torch.cat((shown, self.fast(clips).mean(dim=(1, 3, 4))), dim=1))


def _detailed_layers(config: GenJudgeConfig, width: int) -> list[nn.Module]:
    """Return layers from frames (B, C, S, S) to what is anywhere in them, (B, 4 width)."""
    channels, outputs, size = config.num_channels, width, config.image_size
    layers: list[nn.Module] = []
    while size > VIDEO_GRID:
        layers += [ConvNormAct(channels, outputs, 5), nn.MaxPool2d(2, ceil_mode=True)]
        channels, outputs, size = outputs, min(2 * outputs, 4 * width), -(-size // 2)
    layers.append(ConvNormAct(channels, 4 * width, 5))
    return [*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten()]


def build_r2plus1d(config: GenJudgeConfig) -> TwoPathways:
    """Return a network for clips, from (B, T, C, S, S) to (B, D)."""
    return TwoPathways(config)


__all__ = ["build_lenet", "build_r2plus1d", "build_resnet"]
