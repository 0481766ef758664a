"""The GAN's networks: from a vector to an image, and from an image to features.

All convolutional ones have one frame: a generator goes from the smallest feature map to the image
through blocks that double the size, a discriminator goes back through blocks that halve it. An
architecture is its blocks.

Shapes are written with these letters: B batch, F channels of a feature map, S its height and width,
Z length of the generator's input, C length of a condition's vector.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import nn

from .configuration_gan import GenGANConfig
from .gan_layers import LEAK, build_norm, conv, linear
from .gan_text import WordAttention, Words

WORDS_UP_TO = 8  # largest feature map that looks at words; at 16 drawing takes twice as long


class MLPGenerator(nn.Module):
    """Three linear layers, BatchNorm and ReLU between them (Goodfellow et al. 2014, Ioffe and Szegedy 2015).

    Args:
        config: Configuration of the model.
        input_dim: Length Z of the input, noise and condition together.
    """

    def __init__(self, config: GenGANConfig, input_dim: int):
        super().__init__()
        widths = (input_dim, 8 * config.generator_width, 16 * config.generator_width)
        self.shape = (config.num_channels, config.image_size, config.image_size)
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(widths))
        self.norms = nn.ModuleList(
            build_norm(config, nn.BatchNorm1d, width, input_dim) for width in widths[1:]
        )
        self.output = nn.Linear(widths[-1], config.num_channels * config.image_size**2)

    def forward(self, vector: torch.Tensor, words: Words | None = None) -> torch.Tensor:
        """Draw images (B, channels, S, S), before the tanh, from vectors (B, Z)."""
        states = vector
        for layer, norm in zip(self.layers, self.norms, strict=True):
            states = F.relu(norm(layer(states), vector))
        return self.output(states).view(-1, *self.shape)


class DCGANUpBlock(nn.Module):
    """BatchNorm, ReLU and a transposed convolution (Radford et al. 2016, arXiv:1511.06434)."""

    def __init__(self, config: GenGANConfig, in_channels: int, out_channels: int, input_dim: int):
        super().__init__()
        self.norm = build_norm(config, nn.BatchNorm2d, in_channels, input_dim)
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1)

    def forward(self, states: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        """Double the size of a map (B, F, S, S), given the generator's input (B, Z)."""
        return self.conv(F.relu(self.norm(states, vector)))


class ModernUpBlock(nn.Module):
    """A leaky ReLU and a transposed convolution, without normalisation."""

    def __init__(self, config: GenGANConfig, in_channels: int, out_channels: int, input_dim: int):
        super().__init__()
        self.norm = build_norm(config, nn.Identity, in_channels, input_dim)
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1)

    def forward(self, states: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        """Double the size of a map (B, F, S, S), given the generator's input (B, Z)."""
        return self.conv(F.leaky_relu(self.norm(states, vector), LEAK))


class ResidualUpBlock(nn.Module):
    """Two convolutions beside a shortcut, on the map made twice as large (Miyato et al. 2018)."""

    def __init__(self, config: GenGANConfig, in_channels: int, out_channels: int, input_dim: int):
        super().__init__()
        self.norm1 = build_norm(config, nn.BatchNorm2d, in_channels, input_dim)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = build_norm(config, nn.BatchNorm2d, out_channels, input_dim)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, states: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        """Double the size of a map (B, F, S, S), given the generator's input (B, Z)."""
        branch = F.interpolate(F.relu(self.norm1(states, vector)), scale_factor=2)
        branch = self.conv2(F.relu(self.norm2(self.conv1(branch), vector)))
        return branch + F.interpolate(self.shortcut(states), scale_factor=2)


class ResidualOutput(nn.Module):
    """BatchNorm, ReLU and the convolution that makes the image."""

    def __init__(self, config: GenGANConfig, in_channels: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.conv = nn.Conv2d(in_channels, config.num_channels, 3, padding=1)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return images of maps (B, F, S, S)."""
        return self.conv(F.relu(self.norm(states)))


UP_BLOCKS = {"dcgan": DCGANUpBlock, "modern": ModernUpBlock, "resnet": ResidualUpBlock}


class ConvGenerator(nn.Module):
    """A linear layer makes the smallest feature map, each block doubles it, the last one is the image.

    With a text, maps up to 16 x 16 look at its words.

    Args:
        config: Configuration of the model.
        input_dim: Length Z of the input, noise and condition together.
    """

    def __init__(self, config: GenGANConfig, input_dim: int):
        super().__init__()
        stages = range(config.num_stages, 0, -1)
        is_residual = config.architecture == "resnet"
        channels = [config.channels_at(stage, config.generator_width) for stage in stages]
        channels.append(config.generator_width if is_residual else config.num_channels)
        self.base_shape = (channels[0], config.base_size, config.base_size)
        self.input = nn.Linear(input_dim, channels[0] * config.base_size**2)
        block = UP_BLOCKS[config.architecture]
        self.blocks = nn.ModuleList(
            block(config, before, after, input_dim)
            for before, after in itertools.pairwise(channels)
        )
        self.output = ResidualOutput(config, channels[-1]) if is_residual else nn.Identity()
        sizes = [config.base_size * 2**index for index in range(config.num_stages)]
        self.word_attention = nn.ModuleDict()
        if config.conditioning == "text":
            self.word_attention.update(
                (str(index), WordAttention(config, channels[index]))
                for index, size in enumerate(sizes)
                if size <= WORDS_UP_TO
            )

    def forward(self, vector: torch.Tensor, words: Words | None = None) -> torch.Tensor:
        """Draw images (B, channels, S, S), before the tanh.

        Args:
            vector: Noise and condition, (B, Z).
            words: The words of the texts, if there are any.
        """
        states = self.input(vector).view(-1, *self.base_shape)
        for index, block in enumerate(self.blocks):
            if str(index) in self.word_attention:
                states = self.word_attention[str(index)](states, words)
            states = block(states, vector)
        return self.output(states)


def build_generator(config: GenGANConfig, input_dim: int) -> nn.Module:
    """Return the generator's network, from vectors (B, input_dim) to images before the tanh."""
    kind = MLPGenerator if config.architecture == "mlp" else ConvGenerator
    return kind(config, input_dim)


class MLPDiscriminator(nn.Module):
    """Two linear layers, leaky ReLU and dropout after each; a concatenated condition stands beside the image.

    Args:
        config: Configuration of the model.
        condition_dim: Length C of a condition that stands beside the image, or 0.
    """

    def __init__(self, config: GenGANConfig, condition_dim: int):
        super().__init__()
        pixels = config.num_channels * config.image_size**2
        width = 8 * config.discriminator_width
        self.num_features = width
        self.layers = nn.ModuleList(
            (
                linear(config, pixels + condition_dim, 2 * width),
                linear(config, 2 * width, width),
            )
        )
        self.dropout = config.dropout

    def forward(
        self, images: torch.Tensor, condition: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features (B, F), and the same as a map (B, F, 1, 1)."""
        states = images.flatten(1)
        if condition is not None:
            states = torch.cat((states, condition), dim=1)
        for layer in self.layers:
            states = F.leaky_relu(layer(states), LEAK)
            states = F.dropout(states, self.dropout, self.training)
        return states, states[:, :, None, None]


class DCGANDownBlock(nn.Module):
    """A strided convolution, BatchNorm unless it is the first one, leaky ReLU."""

    def __init__(self, config: GenGANConfig, in_channels: int, out_channels: int, is_first: bool):
        super().__init__()
        self.conv = conv(config, in_channels, out_channels, 4, stride=2)
        # Spectral norm takes the place of the norm (Miyato et al. 2018).
        has_norm = not is_first and not config.spectral_norm
        self.norm = nn.BatchNorm2d(out_channels) if has_norm else nn.Identity()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Halve the size of a map (B, F, S, S)."""
        return F.leaky_relu(self.norm(self.conv(states)), LEAK)


class ModernDownBlock(nn.Module):
    """A strided convolution and a leaky ReLU, without normalisation."""

    def __init__(self, config: GenGANConfig, in_channels: int, out_channels: int, is_first: bool):
        super().__init__()
        self.conv = conv(config, in_channels, out_channels, 4, stride=2)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Halve the size of a map (B, F, S, S)."""
        return F.leaky_relu(self.conv(states), LEAK)


class ResidualDownBlock(nn.Module):
    """Two convolutions beside a shortcut, then the mean of every four pixels (Miyato et al. 2018)."""

    def __init__(self, config: GenGANConfig, in_channels: int, out_channels: int, is_first: bool):
        super().__init__()
        self.is_first = is_first
        self.conv1 = conv(config, in_channels, out_channels, 3)
        self.conv2 = conv(config, out_channels, out_channels, 3)
        self.shortcut = conv(config, in_channels, out_channels, 1)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Halve the size of a map (B, F, S, S)."""
        branch = states if self.is_first else F.relu(states)
        branch = self.conv2(F.relu(self.conv1(branch)))
        return F.avg_pool2d(branch, 2) + self.shortcut(F.avg_pool2d(states, 2))


DOWN_BLOCKS = {"dcgan": DCGANDownBlock, "modern": ModernDownBlock, "resnet": ResidualDownBlock}


class ConvDiscriminator(nn.Module):
    """Blocks that halve the image, then features.

    `dcgan` takes the whole last map as features, `modern` a linear layer of it, `resnet` the mean over
    its pixels. A concatenated condition stands beside the last map, behind which a convolution
    brings both together (Reed et al. 2016, arXiv:1605.05396).

    Args:
        config: Configuration of the model.
        condition_dim: Length C of a condition that stands beside the last map, or 0.
    """

    def __init__(self, config: GenGANConfig, condition_dim: int):
        super().__init__()
        self.architecture = config.architecture
        stages = range(1, config.num_stages + 1)
        channels = [config.channels_at(stage, config.discriminator_width) for stage in stages]
        channels = [config.num_channels, *channels]
        block = DOWN_BLOCKS[config.architecture]
        self.blocks = nn.ModuleList(
            block(config, before, after, is_first=index == 0)
            for index, (before, after) in enumerate(itertools.pairwise(channels))
        )
        last = channels[-1]
        self.merge = conv(config, last + condition_dim, last, 3) if condition_dim else None
        self.num_features = last if config.architecture == "resnet" else last * config.base_size**2
        self.hidden = None
        if config.architecture == "modern":
            self.hidden = linear(config, self.num_features, 8 * config.discriminator_width)
            self.num_features = 8 * config.discriminator_width

    def forward(
        self, images: torch.Tensor, condition: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features (B, F) and the last feature map (B, F', S', S').

        Args:
            images: (B, channels, S, S).
            condition: (B, C) for the merge with the last map, or `None`.
        """
        states = images
        for block in self.blocks:
            states = block(states)
        if condition is not None:
            beside = condition[:, :, None, None].expand(-1, -1, *states.shape[2:])
            merged = self.merge(torch.cat((states, beside.to(states.dtype)), dim=1))
            states = F.leaky_relu(merged, LEAK)
        return self._features(states), states

    def _features(self, states: torch.Tensor) -> torch.Tensor:
        if self.architecture == "resnet":
            return F.relu(states).mean(dim=(2, 3))
        # A map of either memory layout has the same features.
        features = states.contiguous().flatten(1)
        return features if self.hidden is None else F.leaky_relu(self.hidden(features), LEAK)


class ImageDecoder(nn.Module):
    """Rebuilds a discriminator's input, at most four times as large as the last feature map.

    What the map must then keep of an image regularises a discriminator of few images (Liu et al. 2021,
    FastGAN, arXiv:2101.04775).

    Args:
        config: Configuration of the model.
    """

    def __init__(self, config: GenGANConfig):
        super().__init__()
        channels = config.channels_at(config.num_stages, config.discriminator_width)
        doublings = min(config.num_stages, 2)
        widths = [channels // 2**index for index in range(doublings + 1)]
        self.layers = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)
            for before, after in itertools.pairwise(widths)
        )
        self.output = nn.Conv2d(widths[-1], config.num_channels, 3, padding=1)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return images (B, channels, S, S) in [-1, 1] of maps (B, F', S', S')."""
        for layer in self.layers:
            states = F.leaky_relu(layer(states), LEAK)
        return torch.tanh(self.output(states))


def build_discriminator(config: GenGANConfig, condition_dim: int) -> nn.Module:
    """Return the discriminator's network, from images to features and the last feature map."""
    kind = MLPDiscriminator if config.architecture == "mlp" else ConvDiscriminator
    return kind(config, condition_dim)


__all__ = ["ImageDecoder", "build_discriminator", "build_generator"]
