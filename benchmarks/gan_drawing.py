"""How many images a CPU second `generator.sample` draws, and the bare module without gradients, in eval mode.

Both draw noise for themselves and take turns; the ratios are of medians. The weights are new ones, which
does not matter for the speed.

    python benchmarks/gan_drawing.py --rounds 40
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable
from functools import partial

import torch
from gan_common import machine, parsed, parser, show
from gan_training import timed

from hf_genmodels.models.configuration_gan import GenGANConfig
from hf_genmodels.models.modeling_gan import GenGANGenerator

BATCHES = {1: 100, 64: 5}  # images at once -> calls in a turn
SHAPES = {
    "modern-fashion, 28 x 28": {"architecture": "modern", "image_size": 28},
    "dcgan, 32 x 32, nf 64": {"architecture": "dcgan", "image_size": 32, "generator_width": 64},
}


def bare(generator: GenGANGenerator, labels: torch.Tensor) -> torch.Tensor:
    """Draw with the module itself."""
    with torch.no_grad():
        latents = torch.randn(len(labels), generator.config.latent_dim)
        return generator(latents, class_labels=labels).images


def sample(generator: GenGANGenerator, labels: torch.Tensor) -> torch.Tensor:
    """Draw with the method."""
    return generator.sample(len(labels), class_labels=labels)


def speeds(generator: GenGANGenerator, batch_size: int, rounds: int) -> dict[str, list[float]]:
    """Return images per CPU second of both ways, after a turn of warm-up, each with a model of its own."""
    labels = torch.arange(batch_size) % generator.config.num_labels
    ways: dict[str, Callable[[], torch.Tensor]] = {
        way.__name__: partial(way, copy.deepcopy(generator), labels) for way in (bare, sample)
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    calls = BATCHES.get(batch_size, 1)
    for number in range(rounds + 1):
        for name, way in ways.items():
            speed = calls * batch_size / timed([way] * calls)
            if number:
                found[name].append(speed)
    return found


def main() -> None:
    """Measure every network and batch size and print one table."""
    flags = parser(__doc__)
    flags.add_argument("--rounds", type=int, default=40)
    args = parsed(flags)
    rows = []
    for name, shape in SHAPES.items():
        torch.manual_seed(0)
        config = GenGANConfig(conditioning="class", num_labels=10, **shape)
        generator = GenGANGenerator(config).eval()
        for batch_size in BATCHES:
            found = speeds(generator, batch_size, args.rounds)
            plain, own = (statistics.median(found[way.__name__]) for way in (bare, sample))
            rows.append(
                f"| {name} | {batch_size} | {plain:,.0f} | {own:,.0f} | {own / plain:.3f} |"
            )
    show(
        [
            f"{args.threads} thread(s), fp32, medians of {args.rounds} turns. {machine()}",
            "",
            "| network | images at once | bare module, images / CPU s | sample() | ratio |",
            "|---|---|---|---|---|",
            *rows,
        ],
        args.out,
    )


if __name__ == "__main__":
    main()
