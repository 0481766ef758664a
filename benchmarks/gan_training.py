"""How many images a CPU second of training takes: the command and a bare loop, our DCGAN and the example's.

- `genmodels train gan` with the preset `modern-fashion`, without measurements, against a bare loop over
  the same networks, with the same mathematics, layout and precision: what the engine costs.
- The architecture `dcgan` (64 x 64 x 3, nf 64, batches of 64) in our loop against the networks and the
  loop of PyTorch's DCGAN example, written plainly: as it is, and in the precision that ours has.
- The reference of gan_quality.py in other precisions and layouts.

Contestants take turns of a few steps in one process; ratios are of medians over the turns.

    python benchmarks/gan_training.py --rounds 30 --dcgan_rounds 5
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate.state import AcceleratorState
from gan_common import Ours, images_of, machine, parsed, parser, preset, show
from gan_reference import (
    LATENT_DIM,
    Reference,
    discriminator_layers,
    generator_layers,
    init_weights,
)

from hf_genmodels.config.gan import TrainGANConfig
from hf_genmodels.data.images import ImageData, ImageSet, scaled
from hf_genmodels.engine import run as engine_run
from hf_genmodels.engine.gan_models import build_pair
from hf_genmodels.engine.gan_recipe import recipe_of
from hf_genmodels.engine.precision import has_fast_bf16
from hf_genmodels.training import train_gan

TURN = 20  # steps of a turn of the small networks; a multiple of the lazy penalty's
WARMUP = 2  # turns that are not counted
LAYOUTS = {
    "fp32": (False, False),
    "fp32, channels_last": (False, True),
    "bf16": (True, False),
    "bf16, channels_last": (True, True),
}
Rates = dict[str, list[float]]


class BareLoop:
    """What `modern-fashion` computes, in the fewest lines.

    Args:
        config: Options of the run that it stands beside.
        data: The images.
    """

    def __init__(self, config: TrainGANConfig, data: ImageData):
        pair = build_pair(config, data, None, None).train()
        self.generator, self.discriminator = pair.generator, pair.discriminator
        recipe = recipe_of(config, "modern")
        self.penalty = recipe.r1 / 2 * config.loss.penalty_every
        self.every, self.batch_size = config.loss.penalty_every, config.global_batch_size
        betas = (recipe.beta1, recipe.beta2)
        self.optimizers = [
            torch.optim.Adam(network.parameters(), recipe.generator_lr, betas, fused=True)
            for network in (self.generator, self.discriminator)
        ]
        self.average = [p.detach().clone() for p in self.generator.parameters()]
        self.decay = float(config.ema_decay or 0)
        bf16 = config.mixed_precision == "bf16"
        self.autocast = torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext()
        self.real, self.labels = data.train.images, torch.from_numpy(data.train.labels[:])
        self.steps = 0

    def step(self) -> None:
        """Update both networks once."""
        generator, discriminator = self.generator, self.discriminator
        of_generator, of_discriminator = self.optimizers
        rows = torch.randint(len(self.real), (self.batch_size,))
        labels = self.labels[rows]
        real = scaled(self.real[rows.numpy()]).contiguous(memory_format=torch.channels_last)
        with self.autocast:
            latents = torch.randn(len(rows), generator.config.latent_dim)
            fake = generator(latents, labels).images
            both, with_penalty = torch.cat((real, fake.detach())), self.steps % self.every == 0
            both.requires_grad_(with_penalty)
            logits = discriminator(both, torch.cat((labels, labels))).logits
        on_real, on_fake = logits.chunk(2)
        loss = F.softplus(on_fake - on_real).mean()
        if with_penalty:
            (gradient,) = torch.autograd.grad(logits.sum(), both, create_graph=True)
            loss = loss + self.penalty * 2 * gradient.square().sum(dim=(1, 2, 3)).mean()
        loss.backward()
        of_discriminator.step()
        of_discriminator.zero_grad()
        discriminator.requires_grad_(False)
        with self.autocast:
            on_fake = discriminator(fake, labels).logits
        F.softplus(on_real.detach() - on_fake).mean().backward()
        discriminator.requires_grad_(True)
        of_generator.step()
        of_generator.zero_grad()
        weights = list(generator.parameters())
        torch._foreach_lerp_(self.average, [w.detach() for w in weights], 1 - self.decay)
        self.steps += 1


def engine_and_bare(args: argparse.Namespace) -> Rates:
    """Return images per CPU second of the command's loop and of a bare one, which take turns."""
    bf16 = "bf16" if has_fast_bf16(torch.device("cpu")) else "no"
    steps = TURN * (WARMUP + args.rounds)
    flags = [f"--mixed_precision={bf16}", f"--max_steps={steps}", "--judge.features=none"]
    flags += ["--grid.columns=0", f"--eval_every={steps}", f"--save_every={steps}"]
    config = preset(args, *flags, "--output_dir=unused", *args.ours)
    data = images_of(config)
    bare, rates = BareLoop(config, data), Rates({"command": [], "bare loop": []})
    tick, began, done = engine_run.Clock.tick, [0.0], [0]

    def turn_about(clock: Any, images: int) -> None:
        """Note the end of the command's turn, and give the bare loop its own."""
        tick(clock, images)
        done[0] += 1
        if done[0] % TURN:
            return
        turn = TURN * config.examples_per_step
        rates["command"].append(turn / (time.process_time() - began[0]))
        rates["bare loop"].append(turn / timed([bare.step] * TURN))
        began[0] = time.process_time()

    engine_run.Clock.tick = turn_about  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as folder:
            own = [f"--train_file={args.train_file}", f"--validation_file={args.validation_file}"]
            own += [f"--cache_dir={args.cache_dir}"] if args.cache_dir else []
            out = [f"--output_dir={folder}/run", "--config=modern-fashion"]
            train_gan.main([*out, *own, *flags, *args.ours])
    finally:
        engine_run.Clock.tick = tick  # type: ignore[method-assign]
    return {name: found[WARMUP:] for name, found in rates.items()}


def timed(calls: Sequence[Callable[[], None]]) -> float:
    """Return the CPU seconds of some calls."""
    start = time.process_time()
    for call in calls:
        call()
    return time.process_time() - start


class Example:
    """PyTorch's DCGAN example: its networks, losses and order of steps, written plainly.

    Args:
        images: Real images (N, 3, S, S) in [-1, 1].
        width: nf.
        batch_size: Images in a step.
        bf16: Whether to train under autocast.
    """

    def __init__(self, images: torch.Tensor, width: int, batch_size: int, *, bf16: bool):
        doublings = images.shape[-1].bit_length() - 3
        channels = images.shape[1]
        self.generator = generator_layers(LATENT_DIM, width, channels, doublings)
        self.discriminator = discriminator_layers(channels, width, doublings)
        for network in (self.generator, self.discriminator):
            network.apply(init_weights)
        self.of_generator, self.of_discriminator = (
            torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999))
            for network in (self.generator, self.discriminator)
        )
        self.autocast = torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext()
        self.images, self.batch_size = images, batch_size

    def step(self) -> None:
        """Update both networks once."""
        real = self.images[torch.randint(len(self.images), (self.batch_size,))]
        ones, zeros = torch.ones(len(real)), torch.zeros(len(real))
        self.discriminator.zero_grad()
        F.binary_cross_entropy(self._judged(real), ones).backward()
        with self.autocast:
            fake = self.generator(torch.randn(len(real), LATENT_DIM, 1, 1))
        F.binary_cross_entropy(self._judged(fake.detach()), zeros).backward()
        self.of_discriminator.step()
        self.generator.zero_grad()
        F.binary_cross_entropy(self._judged(fake), ones).backward()
        self.of_generator.step()

    def _judged(self, images: torch.Tensor) -> torch.Tensor:
        with self.autocast:
            scores = self.discriminator(images)
        return torch.sigmoid(scores.float()).view(-1)


def dcgan_config(args: argparse.Namespace, precision: str) -> TrainGANConfig:
    """Return the options of the example's training."""
    return preset(
        args,
        f"--image_size={args.dcgan_size}",
        "--num_channels=3",
        "--model.architecture=dcgan",
        "--model.conditioning=none",
        f"--model.latent_dim={LATENT_DIM}",
        f"--model.generator_width={args.dcgan_width}",
        f"--model.discriminator_width={args.dcgan_width}",
        "--loss.adversarial=non_saturating",
        "--loss.penalty=none",
        "--optim.lr=2e-4",
        f"--per_device_train_batch_size={args.dcgan_batch}",
        f"--mixed_precision={precision}",
    )


def dcgan(args: argparse.Namespace) -> Rates:
    """Return images per CPU second of our DCGAN and of the example's; the images are noise."""
    size = (4 * args.dcgan_batch, 3, args.dcgan_size, args.dcgan_size)
    noise = np.random.default_rng(0).integers(256, size=size, dtype=np.uint8)
    images = ImageSet(noise)
    data = ImageData(images, None, "none", [], 3, [], "noise", "", Path(), "noise")
    plain, width, batch = scaled(noise), args.dcgan_width, args.dcgan_batch
    rates = Rates()
    names = {"no": "fp32", "bf16": "bf16"}
    for precision in ("no", "bf16") if has_fast_bf16(torch.device("cpu")) else ("no",):
        AcceleratorState._reset_state(reset_partial_state=True)  # a process has one precision
        sides: dict[str, Any] = {
            f"example, {names[precision]}": Example(plain, width, batch, bf16=precision == "bf16"),
            f"ours, {names[precision]}": Ours(dcgan_config(args, precision), data),
        }
        rates |= in_turns(sides, args.dcgan_rounds, 1, batch)
    return rates


def reference_layouts(args: argparse.Namespace) -> Rates:
    """Return images per CPU second of the reference of gan_quality.py."""
    data = images_of(preset(args, *args.ours))
    images = scaled(data.train.images[:1000])
    labels = torch.from_numpy(data.train.labels[:1000])
    known = LAYOUTS if has_fast_bf16(torch.device("cpu")) else dict(list(LAYOUTS.items())[:2])
    sides = {
        name: Reference(
            images,
            labels,
            len(data.label_names),
            width=args.dcgan_width,
            batch_size=args.dcgan_batch,
            bf16=bf16,
            channels_last=channels_last,
        )
        for name, (bf16, channels_last) in known.items()
    }
    return in_turns(sides, args.dcgan_rounds, 2, args.dcgan_batch)


def in_turns(sides: dict[str, Any], rounds: int, steps: int, batch_size: int) -> Rates:
    """Return images per CPU second of every side and round, after one round of warm-up."""
    rates = Rates({name: [] for name in sides})
    for number in range(rounds + 1):
        for name, side in sides.items():
            rate = steps * batch_size / timed([side.step] * steps)
            if number:
                rates[name].append(rate)
    return rates


def rows(rates: Rates, baseline: str) -> list[str]:
    """Return a table of medians, ranges and ratios."""
    base = statistics.median(rates[baseline])
    return [
        f"| who | images / CPU s (median) | lowest to highest | ratio to {baseline} |",
        "|---|---|---|---|",
        *(
            f"| {name} | {statistics.median(found):,.1f} | {min(found):,.1f} to {max(found):,.1f} "
            f"| {statistics.median(found) / base:.3f} |"
            for name, found in rates.items()
        ),
        "",
    ]


def main() -> None:
    """Measure everything and print the tables."""
    flags = parser(__doc__)
    flags.add_argument("--rounds", type=int, default=30, help=f"turns of {TURN} steps")
    flags.add_argument("--dcgan_rounds", type=int, default=5)
    flags.add_argument("--dcgan_size", type=int, default=64)
    flags.add_argument("--dcgan_width", type=int, default=64)
    flags.add_argument("--dcgan_batch", type=int, default=64)
    flags.add_argument("--ours", action="append", default=[], help="change the preset: one flag")
    args = parsed(flags)
    report = [f"{args.threads} thread(s). {machine()}", ""]
    for title, measure, baseline in (
        ("What the engine costs, preset `modern-fashion`", engine_and_bare, "bare loop"),
        (f"DCGAN at {args.dcgan_size} x {args.dcgan_size} x 3", dcgan, "example, fp32"),
        ("The reference of the race in other precisions", reference_layouts, "fp32"),
    ):
        found = measure(args)
        report += [f"### {title}", "", *rows(found, baseline)]
        print("\n".join(report), file=sys.stderr, flush=True)
    show(report, args.out)


if __name__ == "__main__":
    main()
