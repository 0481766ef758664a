"""What the comparisons of GANs share: the images, the judge, the scores, and our side's training step."""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from hf_genmodels.config.gan import TrainGANConfig
from hf_genmodels.config.judge import JudgeOptions
from hf_genmodels.config.parser import parse_config
from hf_genmodels.data.images import ImageData, load_image_data
from hf_genmodels.engine.adversarial import frozen, mean_over_ranks, update
from hf_genmodels.engine.ema import EMA, averaged
from hf_genmodels.engine.gan import training_batches
from hf_genmodels.engine.gan_models import GANPair, build_pair
from hf_genmodels.engine.gan_recipe import build_gan_optimizer, recipe_of
from hf_genmodels.engine.gan_step import GANObjective
from hf_genmodels.engine.optim import lr_factor
from hf_genmodels.engine.run import Run, make_accelerator
from hf_genmodels.metrics.class_scores import class_accuracy
from hf_genmodels.metrics.frechet_distance.gaussian_distance import frechet_distance
from hf_genmodels.metrics.image_extractors import JudgeFeatures
from hf_genmodels.metrics.image_features import Features, as_bytes, extract
from hf_genmodels.metrics.judge_training import find_judge
from hf_genmodels.metrics.precision_recall.manifolds import precision_recall
from hf_genmodels.training.train_gan import PRESETS

SAMPLES = 5000
DRAWN_AT_ONCE = 500
NOISE_SEED = 123
Draw = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


class Scores:
    """Compares drawn images with the real validation images, as a judge of the real images sees both.

    Args:
        data: The real images.
        config: Their options.
        judge_steps: Most training steps of the judge.
        samples: How many images are drawn, as many of each class.
    """

    def __init__(
        self,
        data: ImageData,
        config: TrainGANConfig,
        judge_steps: int | None = None,
        samples: int = SAMPLES,
    ):
        options = JudgeOptions() if judge_steps is None else JudgeOptions(max_steps=judge_steps)
        self.judge = find_judge(data, config, options, show_progress=False)
        self.extractor = JudgeFeatures(self.judge)
        self.num_classes, self.samples = len(data.label_names), samples
        self.size = data.train.images.shape[-1]
        assert data.validation is not None
        self.real = extract(self.extractor, data.validation.images)
        chosen = np.random.default_rng(0).permutation(len(data.train))[:samples]
        self.of_training = extract(self.extractor, data.train.images[chosen])
        self.training_labels = np.asarray(data.train.labels)[chosen]

    def of(self, draw: Draw) -> dict[str, float]:
        """Return the scores of what a generator draws, always for the same labels and noise.

        Args:
            draw: From labels (N,) and a source of noise to images (N, 1, S, S) in [-1, 1]; if they
                are larger than the real ones, their middle is looked at.
        """
        random = torch.Generator().manual_seed(NOISE_SEED)
        labels = torch.arange(self.samples) % self.num_classes
        parts = [draw(part, random) for part in labels.split(DRAWN_AT_ONCE)]
        margin = (parts[0].shape[-1] - self.size) // 2
        inner = slice(margin, margin + self.size)
        images = as_bytes(torch.cat(parts)[..., inner, inner])
        return self.compare(extract(self.extractor, images), labels.numpy())

    def compare(self, found: Features, labels: np.ndarray) -> dict[str, float]:
        """Return the scores of features of images that should show these classes."""
        fewest = min(len(found), len(self.real), SAMPLES)
        overlap = precision_recall(found.features[:fewest], self.real.features[:fewest])
        return {
            "fid": frechet_distance(found.features, self.real.features),
            "precision": overlap.precision,
            "recall": overlap.recall,
            "coverage": overlap.coverage,
            "accuracy": class_accuracy(found.probabilities, labels).accuracy,
        }

    def of_real(self) -> dict[str, float]:
        """Return the scores of real training images: what no generator can be expected to pass."""
        return self.compare(self.of_training, self.training_labels)


class Ours:
    """The loop of `train_gan.py` without its reports and files, on one process.

    Args:
        config: Options of a run.
        data: The images.

    Attributes:
        seconds: CPU seconds of training.
        images: Real images used.
    """

    def __init__(self, config: TrainGANConfig, data: ImageData):
        torch.manual_seed(config.seed)
        self.config, self.run = config, Run(config, make_accelerator(config), Path())
        self.pair: GANPair = build_pair(config, data, None, None)
        recipe = recipe_of(config, self.pair.config.architecture)
        self.optimizer = build_gan_optimizer(self.pair, recipe)
        self.peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.ema = EMA(self.pair.generator, float(config.ema_decay or 0))
        self.batches = training_batches(self.run, config, data, None, None)
        self.objective = GANObjective(config, self.pair, recipe, self.run)
        self.pair.train()
        self.seconds, self.steps = 0.0, 0

    @property
    def images(self) -> int:
        """Real images used so far."""
        return self.steps * self.config.examples_per_step

    def train(self, seconds: float, schedule_seconds: float | None = None) -> None:
        """Train until so many CPU seconds have been used in all.

        Args:
            seconds: When to stop.
            schedule_seconds: When the learning rate reaches its end; never by default.
        """
        while self.seconds < seconds:
            start = time.process_time()
            if schedule_seconds is not None:
                self._set_rate(self.seconds / schedule_seconds)
            self.step()
            self.seconds += time.process_time() - start

    def step(self) -> None:
        """Update both networks once."""
        run, pair, objective = self.run, self.pair, self.objective
        with run.accelerator.autocast():
            place = objective.place(self.steps, 0, 0)
            drawn = objective.draw(run.to_device(next(self.batches)), place)
            found = objective.discriminator_losses(drawn, self.steps)
        run.accelerator.backward(found["d_loss"])
        update(run, pair.discriminator, self.optimizer)
        objective.after_update()
        with frozen(pair.discriminator):
            with run.accelerator.autocast():
                of_generator = objective.generator_losses(drawn)
            run.accelerator.backward(of_generator["g_loss"])
        update(run, pair.generator, self.optimizer)
        mean_over_ranks(run, {**found, **of_generator})
        self.ema.update(pair.generator)
        self.steps += 1

    @contextmanager
    def drawing(self) -> Iterator[Draw]:
        """Give a function that draws with the averaged weights."""
        generator = self.pair.generator

        def draw(labels: torch.Tensor, random: torch.Generator) -> torch.Tensor:
            latents = torch.randn(len(labels), generator.config.latent_dim, generator=random)
            return generator.sample(len(labels), class_labels=labels, latents=latents)

        with averaged(self.ema, generator):
            yield draw

    def _set_rate(self, progress: float) -> None:
        """Give the schedule's rate at a share of the run."""
        steps = 10_000
        place = min(int(progress * steps), steps - 1)
        factor = lr_factor(self.config.schedule, place, steps)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor


def preset(args: argparse.Namespace, *flags: str) -> TrainGANConfig:
    """Return the preset `modern-fashion` on the images of the command line."""
    own = [f"--train_file={args.train_file}", f"--validation_file={args.validation_file}"]
    own += [f"--cache_dir={args.cache_dir}"] if args.cache_dir else []
    return parse_config(
        TrainGANConfig,
        ["--config=modern-fashion", *own, *flags],
        command="benchmark",
        description="",
        presets=PRESETS,
    )


def images_of(config: TrainGANConfig) -> ImageData:
    """Return the images of a configuration."""
    return load_image_data(config, conditioning=config.model.conditioning, show_progress=False)


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser of the flags that all comparisons have."""
    bundled = resources.files("hf_genmodels.samples") / "fashion_mnist"
    result = argparse.ArgumentParser(description=description.split("\n")[0])
    result.add_argument(
        "--data", type=Path, default=Path(str(bundled)), help="folder of the images"
    )
    result.add_argument("--cache_dir", type=Path, help="where decoded images are kept")
    result.add_argument("--threads", type=int, default=1)
    result.add_argument("--out", type=Path, help="also write the table to this file")
    result.set_defaults(train_file=None, validation_file=None)
    return result


def parsed(flags: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line, name the files of the images and set the threads."""
    args = flags.parse_args()
    args.train_file, args.validation_file = (
        str(args.data / f"{split}.parquet") for split in ("train", "test")
    )
    torch.set_num_threads(args.threads)
    transformers.logging.set_verbosity_error()
    return args


def append_line(path: Path, values: dict[str, Any]) -> None:
    """Add one JSON line to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(values) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the JSON lines of a file, none if there is no such file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rounded(values: dict[str, float]) -> dict[str, float]:
    """Return figures as they are kept."""
    return {name: round(value, 4) for name, value in values.items()}


def machine() -> str:
    """Return one sentence about versions and the CPU."""
    return (
        f"torch {torch.__version__}, transformers {transformers.__version__}, "
        f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}."
    )


def show(lines: list[str], out: Path | None) -> None:
    """Print a table and write it to a file if one was asked for."""
    text = "\n".join(lines) + "\n"
    print(text, flush=True)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
