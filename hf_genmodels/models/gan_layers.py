"""Layers of the GAN's networks: conditional norms, spectral norm, convolutions and their first weights.

Shapes are written with these letters: B batch, F channels of a feature map, S its height and width,
C length of a condition's vector.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init

from .configuration_gan import GenGANConfig

LEAK = 0.2


class ZeroLinear(nn.Linear):
    """A linear layer that starts at zero, so that what it adds starts as nothing."""


class ModulationLinear(nn.Linear):
    """From a condition to scales and shifts, small at the start."""


class ConditionalNorm(nn.Module):
    """A norm whose scale and shift depend on a condition (Dumoulin et al. 2017, arXiv:1610.07629).

    It starts near the plain norm. With `nn.Identity` it is a modulation without a norm.

    Args:
        norm: A norm without weights.
        num_features: Number of channels F.
        condition_dim: Length C of the condition.
    """

    def __init__(self, norm: nn.Module, num_features: int, condition_dim: int):
        super().__init__()
        self.norm = norm
        self.modulation = ModulationLinear(condition_dim, 2 * num_features)

    def forward(self, states: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Normalise states (B, F, ...) and modulate them by a condition (B, C)."""
        gain, bias = self.modulation(condition).to(states.dtype).chunk(2, dim=1)
        shape = (*gain.shape, *(1,) * (states.ndim - 2))
        return torch.addcmul(bias.view(shape), self.norm(states), 1 + gain.view(shape))


class PlainNorm(nn.Module):
    """A norm that is given a condition and does not look at it.

    Args:
        norm: The norm.
    """

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm = norm

    def forward(self, states: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Normalise states (B, F, ...)."""
        return self.norm(states)


def build_norm(
    config: GenGANConfig, kind: type[nn.Module], num_features: int, condition_dim: int
) -> nn.Module:
    """Return a norm of the generator, conditional if the configuration says so.

    Args:
        config: Configuration of the model.
        kind: `nn.BatchNorm1d`, `nn.BatchNorm2d` or `nn.Identity`.
        num_features: Number of channels.
        condition_dim: Length of what modulates the channels.
    """
    if config.generator_conditioning == "norm":
        return ConditionalNorm(kind(num_features, affine=False), num_features, condition_dim)
    return PlainNorm(kind(num_features))


class SpectralConv2d(nn.Conv2d):
    """A convolution whose weight is divided by its largest singular value (Miyato et al. 2018).

    Every training pass takes one step of the power iteration. Unlike under torch's parametrisation
    the weight is a plain parameter, which transformers initialises, saves and loads as any other.
    """

    def __init__(self, *args: int, **kwargs: int):
        super().__init__(*args, **kwargs)
        self.register_buffer("left_vector", torch.ones(self.out_channels))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Convolve (B, F, S, S)."""
        return self._conv_forward(states, self.weight / self.largest_singular_value(), self.bias)

    def largest_singular_value(self) -> torch.Tensor:
        """Return the estimate with the present vectors; differentiable in the weight."""
        matrix = self.weight.flatten(1)
        with torch.no_grad():
            right = F.normalize(matrix.detach().T @ self.left_vector, dim=0)
            left = F.normalize(matrix.detach() @ right, dim=0)
            if self.training:
                self.left_vector.copy_(left)
        return left @ matrix @ right


class SpectralLinear(nn.Linear):
    """A linear layer under the same norm as [`SpectralConv2d`]."""

    def __init__(self, *args: int, **kwargs: int):
        super().__init__(*args, **kwargs)
        self.register_buffer("left_vector", torch.ones(self.out_features))

    largest_singular_value = SpectralConv2d.largest_singular_value

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Transform (..., in_features)."""
        return F.linear(states, self.weight / self.largest_singular_value(), self.bias)


def conv(
    config: GenGANConfig, in_channels: int, out_channels: int, size: int, stride: int = 1
) -> nn.Conv2d:
    """Return a convolution of the discriminator, padded so that a stride of 1 keeps the map's size."""
    kind = SpectralConv2d if config.spectral_norm else nn.Conv2d
    return kind(in_channels, out_channels, size, stride=stride, padding=(size - 1) // 2)


def linear(config: GenGANConfig, in_features: int, out_features: int) -> nn.Linear:
    """Return a linear layer of the discriminator."""
    return (SpectralLinear if config.spectral_norm else nn.Linear)(in_features, out_features)


def verdict(
    head: nn.Module,
    projection: nn.Module | None,
    features: torch.Tensor,
    embeds: torch.Tensor | None,
) -> torch.Tensor:
    """Return a discriminator's logits (B,) of features (B, F) and conditions (B, C), in fp32.

    Outside autocast: bf16 has steps of 1/64 and more where losses compare two logits beyond 2.

    Args:
        head: From features to a logit.
        projection: From conditions to directions of features (Miyato and Koyama 2018), or `None`.
        features: What was seen.
        embeds: Vectors of the conditions; not looked at without a projection.
    """
    dtype = head.weight.dtype
    with torch.autocast(features.device.type, enabled=False):
        features = features.to(dtype)
        logits = head(features).squeeze(1).float()
        if projection is not None:
            directions = projection(embeds.to(dtype))
            logits = logits + (features * directions).sum(dim=1, dtype=torch.float)
    return logits


def init_gan_weights(config: GenGANConfig, module: nn.Module) -> None:
    """Initialise one layer.

    `dcgan` and `mlp` draw from a normal distribution of fixed width, as Radford et al. did; the
    others by the number of a layer's inputs (He et al. 2015, arXiv:1502.01852), so that signals keep
    their size where nothing normalises them.
    """
    by_fan_in = config.architecture in ("modern", "resnet")
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        std = config.initializer_range
        if by_fan_in:
            std = math.sqrt(2 / (1 + LEAK**2) / _fan_in(module))
        init.normal_(module.weight, mean=0.0, std=std)
        if module.bias is not None:
            init.zeros_(module.bias)
    if isinstance(module, ZeroLinear):
        init.zeros_(module.weight)
    if isinstance(module, ModulationLinear):
        init.normal_(module.weight, std=0.3 / math.sqrt(module.in_features))
    if isinstance(module, (SpectralConv2d, SpectralLinear)):
        init.normal_(module.left_vector)
    if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.affine:
        std = config.initializer_range if config.architecture == "dcgan" else 0.0
        init.normal_(module.weight, mean=1.0, std=std)
    if isinstance(module, nn.Embedding):
        init.normal_(module.weight)


def _fan_in(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> int:
    """Return how many inputs a layer sums for each output."""
    if isinstance(layer, nn.Linear):
        return layer.in_features
    area = layer.kernel_size[0] * layer.kernel_size[1]
    if isinstance(layer, nn.ConvTranspose2d):  # each output is reached by every stride-th weight
        area //= layer.stride[0] * layer.stride[1]
    return layer.in_channels * area


__all__ = [
    "LEAK",
    "ConditionalNorm",
    "ModulationLinear",
    "PlainNorm",
    "SpectralConv2d",
    "SpectralLinear",
    "ZeroLinear",
    "build_norm",
    "conv",
    "init_gan_weights",
    "linear",
    "verdict",
]
