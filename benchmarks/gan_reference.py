"""The networks that people copy, written plainly: class-conditional DCGAN, and that of the PyTorch example.

Radford et al. 2016 (arXiv:1511.06434). Nothing of `hf_genmodels` is used here but the average of the
weights. Letters: B images, W width of the networks.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import nn

from hf_genmodels.engine.ema import EMA, averaged

LATENT_DIM = 100
LABEL_DIM = 50
CALIBRATION_BATCHES, CALIBRATION_SIZE = 20, 100
Draw = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


def generator_layers(inputs: int, width: int, channels: int, doublings: int) -> nn.Sequential:
    """Return transposed convolutions from (B, inputs, 1, 1) to images of side 4 * 2^doublings."""
    widths = [width * 2**power for power in reversed(range(doublings))]
    layers: list[nn.Module] = []
    before, stride, padding = inputs, 1, 0
    for after in widths:
        conv = nn.ConvTranspose2d(before, after, 4, stride, padding, bias=False)
        layers += [conv, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        before, stride, padding = after, 2, 1
    return nn.Sequential(
        *layers, nn.ConvTranspose2d(before, channels, 4, 2, 1, bias=False), nn.Tanh()
    )


def discriminator_layers(channels: int, width: int, halvings: int) -> nn.Sequential:
    """Return convolutions from images of side 4 * 2^halvings to a score (B, 1, 1, 1)."""
    layers: list[nn.Module] = []
    before = channels
    for number in range(halvings):
        after = width * 2**number
        layers.append(nn.Conv2d(before, after, 4, 2, 1, bias=False))
        layers += [nn.BatchNorm2d(after)] if number else []
        layers.append(nn.LeakyReLU(0.2, inplace=True))
        before = after
    return nn.Sequential(*layers, nn.Conv2d(before, 1, 4, 1, 0, bias=False))


def init_weights(module: nn.Module) -> None:
    """Initialise one layer as the paper says."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


class Generator(nn.Module):
    """Noise beside an embedding of the class, to images of 32 x 32 grey pixels."""

    def __init__(self, classes: int, width: int):
        super().__init__()
        self.embedding = nn.Embedding(classes, LABEL_DIM)
        self.layers = generator_layers(LATENT_DIM + LABEL_DIM, width, 1, 3)

    def forward(self, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Draw images (B, 1, 32, 32)."""
        inputs = torch.cat((latents, self.embedding(labels)), dim=1)
        return self.layers(inputs[:, :, None, None])


class Discriminator(nn.Module):
    """An embedding of the class stands beside the image as a second channel."""

    def __init__(self, classes: int, width: int):
        super().__init__()
        self.embedding = nn.Embedding(classes, 32 * 32)
        self.layers = discriminator_layers(2, width, 3)

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return scores (B,)."""
        beside = self.embedding(labels).view(-1, 1, 32, 32)
        return self.layers(torch.cat((images, beside), dim=1)).view(-1)


class Reference:
    """Class-conditional DCGAN with binary cross-entropy, Adam 2e-4 (0.5, 0.999), batches of 64, an EMA.

    Args:
        images: Real images (N, 1, 28, 28) in [-1, 1], which get a black margin of two pixels.
        labels: Their classes (N,).
        classes: Number of classes.
        seed: Seed of weights, order and noise.
        width: Channels of the first convolution.
        batch_size: Images in a step.
        bf16: Whether to train under autocast.
        channels_last: Whether weights and images have their channels side by side.

    Attributes:
        seconds: CPU seconds of training.
        images: Real images used.
    """

    def __init__(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        classes: int,
        seed: int = 0,
        width: int = 64,
        batch_size: int = 64,
        *,
        bf16: bool = False,
        channels_last: bool = False,
    ):
        torch.manual_seed(seed)
        self.real, self.labels, self.classes = (
            F.pad(images, (2, 2, 2, 2), value=-1.0),
            labels,
            classes,
        )
        self.random = torch.Generator().manual_seed(seed + 1)
        self.bf16, self.batch_size = bf16, batch_size
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.generator = Generator(classes, width).apply(init_weights).to(memory_format=layout)
        self.discriminator = Discriminator(classes, width).apply(init_weights)
        self.discriminator.to(memory_format=layout)
        self.of_generator, self.of_discriminator = (
            torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999))
            for network in (self.generator, self.discriminator)
        )
        self.ema = EMA(self.generator, 0.999)
        self.batches = self._batches()
        self.seconds, self.images = 0.0, 0

    def train(self, seconds: float) -> None:
        """Train until so many CPU seconds have been used in all."""
        while self.seconds < seconds:
            start = time.process_time()
            self.step()
            self.seconds += time.process_time() - start

    def step(self) -> None:
        """Update both networks once, on the same drawn images."""
        autocast = torch.autocast("cpu", torch.bfloat16) if self.bf16 else nullcontext()
        real, labels = next(self.batches)
        latents = torch.randn(len(real), LATENT_DIM, generator=self.random)
        ones, zeros = torch.ones(len(real)), torch.zeros(len(real))
        self.of_discriminator.zero_grad()
        with autocast:
            on_real = self.discriminator(real, labels)
            fake = self.generator(latents, labels)
            on_fake = self.discriminator(fake.detach(), labels)
        loss = F.binary_cross_entropy_with_logits(on_real.float(), ones)
        loss = loss + F.binary_cross_entropy_with_logits(on_fake.float(), zeros)
        loss.backward()
        self.of_discriminator.step()
        self.of_generator.zero_grad()
        with autocast:
            on_fake = self.discriminator(fake, labels)
        F.binary_cross_entropy_with_logits(on_fake.float(), ones).backward()
        self.of_generator.step()
        self.ema.update(self.generator)
        self.images += len(real)

    @contextmanager
    def drawing(self, *, recomputed: bool) -> Iterator[Draw]:
        """Give a function that draws with the averaged weights.

        Args:
            recomputed: Whether BatchNorm uses statistics of these weights over many batches, or the
                running ones of training.
        """
        with averaged(self.ema, self.generator):
            network = copy.deepcopy(self.generator)
        if recomputed:
            recompute(network, self.classes)
        network.eval()

        @torch.no_grad()
        def draw(labels: torch.Tensor, random: torch.Generator) -> torch.Tensor:
            return network(torch.randn(len(labels), LATENT_DIM, generator=random), labels)

        yield draw

    def _batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            order = torch.randperm(len(self.real), generator=self.random)
            for rows in order.split(self.batch_size):
                if len(rows) == self.batch_size:
                    yield self.real[rows], self.labels[rows]


@torch.no_grad()
def recompute(network: nn.Module, classes: int) -> None:
    """Give the BatchNorms of a generator the mean statistics of many batches."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    network.train()
    random = torch.Generator().manual_seed(7)
    for _ in range(CALIBRATION_BATCHES):
        latents = torch.randn(CALIBRATION_SIZE, LATENT_DIM, generator=random)
        network(latents, torch.arange(CALIBRATION_SIZE) % classes)
