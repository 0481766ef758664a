"""Compare the language model of pixels with transformers' ImageGPTForCausalImageModeling at equal size.

The same pictures in the same palette, drawn for their class: ours as `genmodels train lm` makes the
documents, with the recipe of the preset; theirs as Chen et al. 2020 trained it, with a beginning token for
each class, fused AdamW and cosine decay. Both sides alternate in one process, and time is its CPU time.

    python benchmarks/pixels.py --out benchmarks/results/pixels.md
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import ImageGPTConfig, ImageGPTForCausalImageModeling

from hf_genmodels.config.lm import TrainLMConfig
from hf_genmodels.config.optim import ScheduleConfig
from hf_genmodels.config.parser import parse_config
from hf_genmodels.data.images import load_image_data
from hf_genmodels.data.packing import IGNORED
from hf_genmodels.data.pixel_documents import prompts_of
from hf_genmodels.data.pixels import PixelData, pixel_data
from hf_genmodels.data.sampling import PositionSampler, train_loader, validation_loader
from hf_genmodels.engine.optim import build_optimizer, build_schedule
from hf_genmodels.models.image_processing_pixels import GenPixelsImageProcessor
from hf_genmodels.models.modeling_gpt import GenGPTForCausalLM
from hf_genmodels.models.pixel_sampling import draw_pixels, picture_prompt
from hf_genmodels.tokenization.palette import train_palette
from hf_genmodels.tokenization.pixels import train_pixel_tokenizer
from hf_genmodels.training.train_lm import PRESETS

THEIRS, OURS = "ImageGPT", "hf_genmodels"
WARMUP = 2


@dataclass
class Side:
    """One contestant.

    Attributes:
        model: Its model.
        optimizer: Its optimiser.
        batches: Its endless training batches.
        schedule: Its learning rate over a run.
        max_norm: At which norm gradients are cut.
    """

    model: Any
    optimizer: torch.optim.Optimizer
    batches: Iterator[dict[str, torch.Tensor]]
    schedule: ScheduleConfig
    max_norm: float


class Bench:
    """The pictures that both sides learn, and how the sides are made.

    Args:
        preset: Preset of `genmodels train lm`; of its tasks only the drawing is trained.
        width: Width of both models; `None`: the preset's.
    """

    def __init__(self, preset: str, width: int | None = None):
        flags = [f"--model.hidden_size={width}"] if width else []
        flags += ["--pixels.caption=0", "--pixels.super_resolution=0", "--pixels.prompt_dropout=0"]
        self.config: TrainLMConfig = parse_config(
            TrainLMConfig,
            [f"--config={preset}", "--pixels.small_size=null", *flags],
            command="benchmark",
            description="",
            presets=PRESETS,
        )
        options = self.config.pixels
        images = load_image_data(options.image_data(self.config), show_progress=False)
        palette = train_palette(images.train.images, options.palette_size, self.config.seed)
        processor = GenPixelsImageProcessor(palette.tolist(), options.image_sizes)
        prompts = prompts_of(images.train, images.label_names)
        self.tokenizer = train_pixel_tokenizer(
            dict.fromkeys(text for own in prompts for text in own),
            vocab_size=512,
            num_colours=len(palette),
            model_max_length=self.config.block_size,
        )
        self.images = images
        self.data: PixelData = pixel_data(
            images, processor, self.tokenizer, options, seed=0, max_eval_images=None
        )
        self.colours = len(palette)
        self.pixels = options.image_sizes[0] ** 2
        self.batch = self.config.per_device_train_batch_size

    def ours(self, seed: int, *, lr_scale: float = 1.0) -> Side:
        """Return our model with the preset's recipe."""
        del lr_scale
        torch.manual_seed(seed)
        vocabulary = self.data.vocabulary
        ids = {"bos_token_id": vocabulary.begin, "eos_token_id": vocabulary.end}
        model = GenGPTForCausalLM(
            self.config.new_model_config(
                len(self.tokenizer),
                image_sizes=self.config.pixels.image_sizes,
                **ids,
                **vocabulary.config_fields,
            )
        )
        sampler = PositionSampler(len(self.data.windows), batch_size=self.batch, seed=seed)
        return Side(
            model,
            build_optimizer(model, self.config.optim),
            iter(train_loader(self.data.windows, sampler)),
            self.config.schedule,
            self.config.optim.max_grad_norm,
        )

    def theirs(self, seed: int, *, lr_scale: float = 1.0) -> Side:
        """Return ImageGPT of the same depth, width and heads."""
        torch.manual_seed(seed)
        shape = self.config.model
        model = ImageGPTForCausalImageModeling(
            ImageGPTConfig(
                vocab_size=self.colours + len(self.images.label_names),
                n_positions=self.pixels + 1,
                n_embd=shape.hidden_size,
                n_layer=shape.num_hidden_layers,
                n_head=shape.num_attention_heads,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                use_cache=False,
            )
        )
        # The head of transformers' model knows one token less than the embedding, which has one
        # beginning; with one for each class, it knows the colours and all beginnings but one.
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=1e-3 * lr_scale, betas=(0.9, 0.95), weight_decay=0.01, fused=True
        )
        return Side(
            model,
            optimizer,
            self._batches(seed),
            ScheduleConfig(name="cosine", warmup_steps=20, min_lr_ratio=0.0),
            1.0,
        )

    def _batches(self, seed: int) -> Iterator[dict[str, torch.Tensor]]:
        sampler = iter(PositionSampler(len(self.data.windows), batch_size=self.batch, seed=seed))
        colours, labels = self.data.windows.pictures.colours[0], self.images.train.labels
        while True:
            places = [index for _, index in next(sampler)]
            yield self.theirs_of(colours[places], np.asarray(labels)[places])

    def theirs_of(self, colours: np.ndarray, labels: np.ndarray) -> dict[str, torch.Tensor]:
        """Return pictures as ImageGPT is given them: the token of the class, then the pixels."""
        starts = self.colours + torch.from_numpy(labels)[:, None]
        ids = torch.cat([starts, torch.from_numpy(colours.astype(np.int64))], dim=1)
        targets = ids.clone()
        targets[:, 0] = IGNORED
        return {"input_ids": ids, "labels": targets}

    def validation(self, name: str) -> Iterator[dict[str, torch.Tensor]]:
        """Yield the validation pictures as a side is given them."""
        assert self.data.validation is not None
        if name == OURS:
            yield from validation_loader(self.data.validation["draw"], 50)
            return
        labels = np.asarray(self.images.validation.labels)
        colours = self.data.shown.colours[0]
        for start in range(0, len(colours), 50):
            yield self.theirs_of(colours[start : start + 50], labels[start : start + 50])


def step(side: Side, precision: str) -> float:
    """Train a step and return its CPU seconds."""
    side.model.train()
    start = time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        loss = side.model(**next(side.batches), use_cache=False).loss
    loss.backward()
    if side.max_norm:
        torch.nn.utils.clip_grad_norm_(side.model.parameters(), side.max_norm)
    side.optimizer.step()
    side.optimizer.zero_grad(set_to_none=True)
    return time.process_time() - start


def training(bench: Bench, precision: str, steps: int) -> dict[str, float]:
    """Return the CPU seconds of a training step of each side, which take turns."""
    sides = {THEIRS: bench.theirs(0), OURS: bench.ours(0)}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(WARMUP + steps):
        for name, side in sides.items():
            found = step(side, precision)
            if number >= WARMUP:
                seconds[name].append(found)
    return {name: statistics.median(found) for name, found in seconds.items()}


@torch.no_grad()
def bits_per_dimension(bench: Bench, name: str, model: Any) -> float:
    """Return the bits of a pixel's colour, given the class and the pixels before it, in fp32."""
    model.eval()
    total, number = 0.0, 0
    for batch in bench.validation(name):
        logits = model(input_ids=batch["input_ids"], use_cache=False).logits[:, :-1].float()
        targets = batch["labels"][:, 1:]
        losses = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), targets, ignore_index=IGNORED, reduction="sum"
        )
        total += losses.item()
        number += int((targets != IGNORED).sum())
    assert number == len(bench.images.validation) * bench.pixels
    return total / number / math.log(2) / bench.images.num_channels


def race(
    bench: Bench, budget: float, seconds: dict[str, float], rates: list[float], seed: int
) -> dict[str, tuple[float, float, int]]:
    """Train every side for about so many CPU seconds, in turns; return bits, seconds and steps."""
    makers: dict[str, Callable[[], Side]] = {OURS: lambda: bench.ours(seed)}
    for rate in rates:
        makers[f"{THEIRS}, rate {1e-3 * rate:g}"] = lambda rate=rate: bench.theirs(
            seed, lr_scale=rate
        )
    sides = {name: make() for name, make in makers.items()}
    kinds = {name: OURS if name == OURS else THEIRS for name in sides}
    planned = {name: max(1, round(budget / seconds[kinds[name]])) for name in sides}
    schedules = {
        name: build_schedule(side.optimizer, side.schedule, planned[name])
        for name, side in sides.items()
    }
    used, done = dict.fromkeys(sides, 0.0), dict.fromkeys(sides, 0)
    while waiting := [name for name in sides if done[name] < planned[name]]:
        name = min(waiting, key=lambda name: done[name] / planned[name])
        used[name] += step(sides[name], "bf16")
        schedules[name].step()
        done[name] += 1
    return {
        name: (bits_per_dimension(bench, kinds[name], side.model), used[name], done[name])
        for name, side in sides.items()
    }


def drawing(bench: Bench, batch: int, rounds: int) -> dict[str, float]:
    """Return the CPU seconds in which each side draws a batch, which take turns."""
    theirs, ours = bench.theirs(0).model.eval(), bench.ours(0).model.eval()
    int8 = bench.ours(0).model.eval().quantize_int8()
    tokens = bench.tokenizer([bench.images.label_names[i % 10] for i in range(batch)])["input_ids"]
    prompts = [picture_prompt(ours.config, own) for own in tokens]
    starts = torch.tensor([[bench.colours + i % 10] for i in range(batch)])

    def generate() -> None:
        theirs.generate(
            starts,
            attention_mask=torch.ones_like(starts),
            do_sample=True,
            top_k=0,
            use_cache=True,
            max_new_tokens=bench.pixels,
            min_new_tokens=bench.pixels,
        )

    sides: dict[str, Callable[[], Any]] = {
        THEIRS: generate,
        OURS: lambda: draw_pixels(ours, prompts),
        f"{OURS} int8": lambda: draw_pixels(int8, prompts),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(1 + rounds):
        for name, draw in sides.items():
            start = time.process_time()
            draw()
            if number:
                seconds[name].append(time.process_time() - start)
    return {name: statistics.median(found) for name, found in seconds.items()}


def report(args: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of the report as they are measured."""
    yield (
        f"Preset {args.preset}, {args.threads} thread(s), both sides in turns in one process. torch "
        f"{torch.__version__}, transformers {transformers.__version__}, {platform.machine()}, "
        f"{torch.backends.cpu.get_cpu_capability()}."
    )
    yield "\n## Training\n\n| width | precision | who | parameters | CPU s a step | images / CPU s | speed-up |"
    yield "|---|---|---|---|---|---|---|"
    for width in args.widths:
        bench = Bench(args.preset, width)
        sizes = {
            THEIRS: bench.theirs(0).model.num_parameters(),
            OURS: bench.ours(0).model.num_parameters(),
        }
        for precision in args.precision:
            found = training(bench, precision, args.steps)
            for name, seconds in found.items():
                yield (
                    f"| {width} | {precision} | {name} | {sizes[name]:,} | {seconds:.3f} "
                    f"| {bench.batch / seconds:.1f} | {found[THEIRS] / seconds:.2f} |"
                )
    if args.only_training:
        return
    bench = Bench(args.preset, args.widths[0])
    yield f"\n## Drawing, width {args.widths[0]}, fp32\n\n| batch | who | CPU s | images / CPU s | speed-up |"
    yield "|---|---|---|---|---|"
    for batch in args.batches:
        found = drawing(bench, batch, args.rounds)
        for name, seconds in found.items():
            yield (
                f"| {batch} | {name} | {seconds:.3f} | {batch / seconds:.2f} "
                f"| {found[THEIRS] / seconds:.2f} |"
            )
    yield (
        f"\n## Bits per dimension after {args.budget:g} CPU seconds of training, width "
        f"{args.widths[0]}, bf16\n\n| seed | who | steps | CPU s | bits per dimension |"
    )
    yield "|---|---|---|---|---|"
    seconds = training(bench, "bf16", args.steps)
    for seed in args.seeds:
        for name, (bits, used, steps) in race(
            bench, args.budget, seconds, args.rates, seed
        ).items():
            yield f"| {seed} | {name} | {steps} | {used:.0f} | {bits:.4f} |"


def main() -> None:
    """Run the comparisons and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="pixels-digits")
    parser.add_argument("--widths", nargs="+", type=int, default=[128, 256])
    parser.add_argument("--precision", nargs="+", choices=("no", "bf16"), default=["no", "bf16"])
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument(
        "--only_training", action="store_true", help="measure no more than its steps"
    )
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--budget", type=float, default=60.0, help="CPU seconds of each side")
    parser.add_argument(
        "--rates", nargs="+", type=float, default=[1.0, 3.0], help="times 1e-3, theirs"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="also write the report to this file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    lines = []
    for line in report(args):
        print(line, flush=True)
        lines.append(line)
    if args.out:
        text = "# The language model of pixels and ImageGPT\n\n" + "\n".join(lines) + "\n"
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
