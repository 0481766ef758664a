"""The text half of a text-conditional GAN: an encoder of words, and feature maps that look at them.

Shapes are written with these letters: B batch, T tokens, D hidden_size, C condition_dim, F channels of
a feature map, S its height and width, H heads.
"""

from typing import NamedTuple

import torch
from torch import nn

from .configuration_gan import GenGANConfig


class Words(NamedTuple):
    """The words of a batch of texts.

    Attributes:
        states: (B, T, D).
        mask: Whether each is a word and not padding, (B, T).
    """

    states: torch.Tensor
    mask: torch.Tensor


class TextEncoder(nn.Module):
    """Makes a vector and word states of a text."""

    def __init__(self, config: GenGANConfig):
        super().__init__()
        raise NotImplementedError


class WordAttention(nn.Module):
    """Lets every pixel of a feature map look at the words."""

    def __init__(self, config: GenGANConfig, num_channels: int):
        super().__init__()
        raise NotImplementedError
