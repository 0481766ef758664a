"""What a GAN of clips has beside that of images: motion, and a discriminator that sees frames in order.

Content and motion are drawn apart (Tulyakov et al. 2018, MoCoGAN, arXiv:1707.04993): each frame is an
image of the same content at another point of the motion.

Shapes are written with these letters: B batch, T frames, S height and width, F channels or features,
E motion_dim, C length of a condition's vector.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import nn

from .configuration_gan import GenGANConfig
from .gan_layers import LEAK, SpectralConv2d, conv, linear, verdict


class Motion(nn.Module):
    """Makes the motion of a clip out of a noise for each frame: a GRU (Cho et al. 2014, arXiv:1406.1078).

    It reads the condition in every frame, so that a text can say where something goes.

    Args:
        config: Configuration of the model.
        condition_dim: Length C of the condition, or 0.
    """

    def __init__(self, config: GenGANConfig, condition_dim: int):
        super().__init__()
        self.hidden_size = config.motion_hidden_size
        self.input = nn.Linear(config.motion_dim + condition_dim, 3 * self.hidden_size)
        self.recurrent = nn.Linear(self.hidden_size, 3 * self.hidden_size)

    def forward(self, noise: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
        """Return the state of the motion in each frame, (B, T, motion_hidden_size).

        Args:
            noise: Standard normal numbers, (B, T, E).
            condition: Encoded conditions, (B, C), or `None`.
        """
        if condition is not None:
            rows = condition.to(noise.dtype)[:, None].expand(-1, noise.shape[1], -1)
            noise = torch.cat((noise, rows), dim=2)
        state = noise.new_zeros(len(noise), self.hidden_size)
        states = []
        for given in self.input(noise).unbind(dim=1):
            update, reset, new = given.chunk(3, dim=1)
            old_update, old_reset, old = self.recurrent(state).chunk(3, dim=1)
            update = torch.sigmoid(update + old_update)
            new = torch.tanh(new + torch.sigmoid(reset + old_reset) * old)
            state = new + update * (state - new)
            states.append(state)
        return torch.stack(states, dim=1)


class VideoNetwork(nn.Module):
    """From clips to features: (2+1)D convolutions (Tran et al. 2018, arXiv:1711.11248).

    Every stage halves the frames by a convolution of each frame, and then their number by one over time.

    Args:
        config: Configuration of the model.
        condition_dim: Length C of a condition that stands beside the last map, or 0.
    """

    def __init__(self, config: GenGANConfig, condition_dim: int):
        super().__init__()
        self.downsampling = config.video_downsampling
        width, size = config.video_discriminator_width, config.image_size // self.downsampling
        stages = (size // config.base_size).bit_length() - 1
        channels = [width * min(2**stage, 8) for stage in range(stages)]
        self.spatial = nn.ModuleList(
            conv(config, before, after, 4, stride=2)
            for before, after in itertools.pairwise([config.num_channels, *channels])
        )
        self.temporal = nn.ModuleList(_temporal(config, number) for number in channels)
        frames = config.seen_frames
        for _ in channels:
            frames = (frames + 1) // 2
        last = channels[-1]
        self.merge = conv(config, last + condition_dim, last, 3) if condition_dim else None
        self.num_features = 8 * width
        self.hidden = linear(config, frames * last * config.base_size**2, self.num_features)

    def forward(self, clips: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
        """Return features (B, F).

        Args:
            clips: (B, seen_frames, channels, S, S).
            condition: (B, C) for the merge with the last map, or `None`.
        """
        number = len(clips)
        states = F.avg_pool2d(clips.flatten(0, 1), self.downsampling)
        for spatial, temporal in zip(self.spatial, self.temporal, strict=True):
            states = F.leaky_relu(spatial(states), LEAK)
            states = F.leaky_relu(over_time(temporal, states, number), LEAK)
        if condition is not None:
            rows = condition.repeat_interleave(len(states) // number, dim=0)
            beside = rows[:, :, None, None].expand(-1, -1, *states.shape[2:])
            merged = self.merge(torch.cat((states, beside.to(states.dtype)), dim=1))
            states = F.leaky_relu(merged, LEAK)
        # A map of either memory layout has the same features.
        features = states.contiguous().view(number, -1)
        return F.leaky_relu(self.hidden(features), LEAK)


def over_time(temporal: nn.Module, states: torch.Tensor, number: int) -> torch.Tensor:
    """Apply a convolution over frames and pixels, (B, F, T, S * S), to the maps of frames.

    Args:
        temporal: The convolution.
        states: (B * T, F, S, S), clip by clip.
        number: B.

    Returns:
        (B * T', F', S, S).
    """
    side = states.shape[2:]
    # With the channels last in memory none of these moves a number.
    maps = states.permute(0, 2, 3, 1).reshape(number, -1, side.numel(), states.shape[1])
    maps = temporal(maps.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return maps.reshape(-1, *side, maps.shape[-1]).permute(0, 3, 1, 2)


def _temporal(config: GenGANConfig, channels: int) -> nn.Conv2d:
    """Return a convolution over three frames that halves their number."""
    kind = SpectralConv2d if config.spectral_norm else nn.Conv2d
    return kind(channels, channels, (3, 1), stride=(2, 1), padding=(1, 0))


class VideoCritic(nn.Module):
    """The discriminator's half that sees whole clips.

    Args:
        config: Configuration of the model.
        condition_dim: Length C of a condition that stands beside the last map, or 0.
        is_projection: Whether the verdict is a projection of the condition.
    """

    def __init__(self, config: GenGANConfig, condition_dim: int, is_projection: bool):
        super().__init__()
        self.network = VideoNetwork(config, condition_dim)
        self.num_features = self.network.num_features
        self.head = linear(config, self.num_features, 1)
        self.projection = (
            nn.Linear(config.condition_dim, self.num_features, bias=False)
            if is_projection
            else None
        )

    def logits(self, features: torch.Tensor, embeds: torch.Tensor | None) -> torch.Tensor:
        """Return the verdicts (B,) on features (B, F) for conditions (B, C)."""
        return verdict(self.head, self.projection, features, embeds)


__all__ = ["Motion", "VideoCritic", "VideoNetwork"]
