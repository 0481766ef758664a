"""How good the generated images are while training: distances, pictures, and a word on the run's health."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import nn

from hf_genmodels.config.gan import TrainGANConfig
from hf_genmodels.config.judge import JudgeOptions
from hf_genmodels.data.image_batches import EncodedCaptions
from hf_genmodels.data.images import ImageData, ImageSet
from hf_genmodels.data.sampling import permutation
from hf_genmodels.data.seeding import mix_seed
from hf_genmodels.engine.gan import conditioning_of
from hf_genmodels.engine.gan_report import REAL_GRID, Grid
from hf_genmodels.engine.logging import warn_if_failing
from hf_genmodels.engine.report import read_metrics, write_results
from hf_genmodels.engine.run import Run
from hf_genmodels.inference.image_sampling import draw_images
from hf_genmodels.metrics.class_scores import class_accuracy, diversity_by_class
from hf_genmodels.metrics.frechet_distance.gaussian_distance import frechet_distance
from hf_genmodels.metrics.health import health
from hf_genmodels.metrics.image_extractors import JudgeFeatures, open_extractor
from hf_genmodels.metrics.image_features import Extractor, Features, extract
from hf_genmodels.metrics.judge_training import find_judge
from hf_genmodels.metrics.precision_recall.manifolds import precision_recall
from hf_genmodels.models.modeling_gan import GenGANGenerator

logger = logging.getLogger("hf_genmodels")
MOST_REAL = 10_000
MOST_REAL_CLIPS = 2_000
STATISTICS_BATCHES = 20
STATISTICS_BATCH_SIZE = 100
_SAMPLE_STREAM, _STATISTICS_STREAM = 41, 42
_ORDER_SEED = 0


@dataclass
class Measuring:
    """What generated images are measured with, made once.

    Attributes:
        extractor: What sees features.
        real: Features of real images.
        labels: Their classes, (N,), if they have some.
        real_distance: Fréchet distance between two halves of the real images: the limit.
        description: What sees the features, in words.
        factors: Where the classes of each factor stand among the probabilities, if a judge of factors
            sees them: those that the generator is told.
    """

    extractor: Extractor
    real: Features
    labels: np.ndarray | None
    real_distance: float
    description: str
    factors: dict[str, slice]


def prepare_measuring(run: Run, config: TrainGANConfig, data: ImageData) -> Measuring | None:
    """Find or train the judge and look at the real images; `None` if nothing shall be measured.

    Raises:
        UserError: If the judge or the vision model cannot be used.
    """
    source = config.judge.features
    if source == "none":
        return None
    device = run.accelerator.device
    if source == "auto":
        options = JudgeOptions(max_steps=config.judge.max_steps)
        with run.main_first():
            judge = find_judge(
                data,
                config,
                options,
                device=device,
                bf16=run.accelerator.mixed_precision == "bf16",
                show_progress=run.is_main,
            )
        extractor: Extractor = JudgeFeatures(judge)
    else:
        extractor = open_extractor(source, device)
    images, labels = _reference(data)
    real = extract(extractor, images)
    dim = real.features.shape[1]
    if min(len(real) // 2, config.judge.num_samples) <= dim:
        logger.warning(
            "Nothing is measured: %d real and %d generated images are too few for %d features. A "
            "smaller judge, more images or a larger --judge.num_samples would do.",
            len(real),
            config.judge.num_samples,
            dim,
        )
        return None
    first, second = real.halves()
    distance = frechet_distance(first.features, second.features)
    factors = _told_factors(conditioning_of(config, data), extractor, data)
    return Measuring(extractor, real, labels, distance, extractor.name, factors)


def _told_factors(kind: str, extractor: Extractor, data: ImageData) -> dict[str, slice]:
    """Return where a judge sees what a generator is told: by texts and attributes all, by classes the class."""
    if not isinstance(extractor, JudgeFeatures):
        return {}
    config = extractor.model.config
    told = {"none": (), "class": ("class",)}.get(kind, tuple(data.factor_names))
    return {
        name: own
        for name, own in config.factor_slices.items()
        if name in told and config.factors[name] == data.factor_names.get(name)
    }


def _reference(data: ImageData) -> tuple[np.ndarray, np.ndarray | None]:
    """Return real images, at random from the training set, and their classes."""
    most = MOST_REAL_CLIPS if data.train.images.ndim == 5 else MOST_REAL
    chosen = mixed_places(data.train, np.arange(min(len(data.train), most)))
    classes = data.train.labels if data.kind == "class" else None
    return data.train.images[chosen], None if classes is None else np.asarray(classes)[chosen]


def mixed_places(images: ImageSet, numbers: np.ndarray) -> np.ndarray:
    """Return an image for each number, in an order that mixes files sorted by class.

    Args:
        images: The images, taken in a circle.
        numbers: Any numbers from 0 on.
    """
    order = permutation(_ORDER_SEED, 0, len(images)).numpy()
    return order[numbers % len(images)]


def conditions_of(
    generator: GenGANGenerator,
    images: ImageSet,
    captions: EncodedCaptions | None,
    chosen: np.ndarray,
) -> dict[str, torch.Tensor]:
    """Return what the generator needs to draw images like some real ones.

    Args:
        generator: Draws them.
        images: Real images.
        captions: Their captions, if the generator reads texts.
        chosen: Which of the images.
    """
    kind = generator.config.conditioning
    if kind == "none":
        return {}
    if kind == "text":
        assert captions is not None
        return captions.rows(captions.starts[chosen])
    labels = torch.from_numpy(np.asarray(images.labels)[chosen])
    return {"class_labels": labels if labels.ndim == 1 else labels.float()}


@torch.no_grad()
def recompute_statistics(
    generator: GenGANGenerator,
    images: ImageSet,
    captions: EncodedCaptions | None,
    seed: int,
) -> None:
    """Give the generator's BatchNorms the mean statistics of many batches of its present weights.

    Running statistics belong to weights of the past, and averaged weights never saw a batch ("standing
    statistics", Brock et al. 2019, appendix G.1).

    Args:
        generator: The model, with the weights that will be published.
        images: Real images, for their conditions.
        captions: Their captions, if the generator reads texts.
        seed: Seed of the noise.
    """
    norms = [m for m in generator.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean
    modes = {module: module.training for module in generator.modules()}
    generator.eval()  # dropout in a text encoder is no part of what is drawn
    for norm in norms:
        norm.train()
    random = torch.Generator().manual_seed(mix_seed(seed, _STATISTICS_STREAM) >> 1)
    for number in range(STATISTICS_BATCHES):
        numbers = number * STATISTICS_BATCH_SIZE + np.arange(STATISTICS_BATCH_SIZE)
        condition = conditions_of(generator, images, captions, mixed_places(images, numbers))
        latents = torch.randn((STATISTICS_BATCH_SIZE, generator.config.noise_dim), generator=random)
        on_device = {name: value.to(generator.device) for name, value in condition.items()}
        generator(latents.to(generator.device), **on_device)
    for module, mode in modes.items():
        module.training = mode
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def draw_samples(
    generator: GenGANGenerator,
    images: ImageSet,
    captions: EncodedCaptions | None,
    places: np.ndarray,
    seed: int,
) -> np.ndarray:
    """Draw an image for the condition of each of some real ones.

    Args:
        generator: Draws them.
        images: Real images, taken in the order of `mixed_places`.
        captions: Their captions, if the generator reads texts.
        places: Numbers of the samples; the noise of a sample follows from seed and number alone.
        seed: Seed of the noise.

    Returns:
        Bytes, (N, C, S, S).
    """
    random = torch.Generator().manual_seed(mix_seed(seed, _SAMPLE_STREAM) >> 1)
    size = (int(places.max()) + 1, generator.config.noise_dim)
    latents = torch.randn(size, generator=random)[places]
    conditions = conditions_of(generator, images, captions, mixed_places(images, places))
    return draw_images(generator, conditions, latents)


def measure(
    run: Run,
    config: TrainGANConfig,
    generator: GenGANGenerator,
    data: ImageData,
    captions: EncodedCaptions | None,
    measuring: Measuring,
) -> dict[str, Any]:
    """Draw images, each rank some of them, and compare them with real ones.

    Returns:
        `eval_fid` and more, the same on all ranks. Empty if the judge or a metric failed on any of
        them: training does without.
    """
    count = config.judge.num_samples
    rank, world_size = run.accelerator.process_index, run.accelerator.num_processes
    places = np.arange(rank, count, world_size)
    drawn = draw_samples(generator, data.train, captions, places, config.seed)
    what = f"The images of step {run.state.step} were not measured"
    rows: list[tuple[Features, np.ndarray]] = []
    with warn_if_failing(what):
        rows = [(extract(measuring.extractor, drawn), mixed_places(data.train, places))]
    if world_size > 1:
        rows = gather_object(rows)
    if sum(len(own) for _, own in rows) < count:
        return {}
    measured: dict[str, Any] = {}
    with warn_if_failing(what):
        measured = _compare(generator, data, measuring, rows)
    return measured


def _compare(
    generator: GenGANGenerator,
    data: ImageData,
    measuring: Measuring,
    rows: list[tuple[Features, np.ndarray]],
) -> dict[str, Any]:
    """Return the distances between what all ranks drew and real images."""
    features = np.concatenate([part.features for part, _ in rows])
    real = measuring.real
    manifold = precision_recall(features, real.features[: len(features)])
    measured: dict[str, Any] = {
        "eval_fid": frechet_distance(features, real.features),
        "eval_fid_real": measuring.real_distance,
        "eval_precision": manifold.precision,
        "eval_recall": manifold.recall,
        "eval_coverage": manifold.coverage,
        "eval_num_samples": len(features),
    }
    chosen = np.concatenate([places for _, places in rows])
    for name, own in measuring.factors.items():
        ids = (data.train.factors or {})[name][chosen]
        probabilities = np.concatenate([np.asarray(part.probabilities)[:, own] for part, _ in rows])
        measured[f"eval_{name}_accuracy"] = class_accuracy(probabilities, ids).accuracy
    if measuring.labels is not None and generator.config.conditioning == "class":
        labels = np.asarray(data.train.labels)[chosen]
        if measuring.real.probabilities is not None:
            probabilities = np.concatenate([part.probabilities for part, _ in rows])
            measured["eval_accuracy"] = class_accuracy(probabilities, labels).accuracy
        within = diversity_by_class(features, labels, real.features, measuring.labels)
    else:
        alike = np.zeros(len(features)), np.zeros(len(real.features))
        within = diversity_by_class(features, alike[0], real.features, alike[1])
    if within:
        measured["eval_diversity"] = float(np.mean(list(within.values())))
    return measured


def validate(
    run: Run,
    config: TrainGANConfig,
    generator: GenGANGenerator,
    data: ImageData,
    captions: EncodedCaptions | None,
    measuring: Measuring | None,
    grid: Grid,
) -> None:
    """Measure and draw what the generator makes now, log it and write the report; all ranks call it.

    Args:
        run: The run.
        config: Its options.
        generator: The generator, with the weights that would be published.
        data: The images.
        captions: Their captions, if the generator reads texts.
        measuring: What the images are measured with, if they are.
        grid: The pictures of progress.
    """
    recompute_statistics(generator, data.train, captions, config.seed)
    measured: dict[str, Any] = {}
    if measuring is not None:
        measured = measure(run, config, generator, data, captions, measuring)
        if measured:
            run.state.record_eval(measured["eval_fid"])
            run.metrics.write(run.state.step, measured)
    if not run.is_main:
        return
    history = read_metrics(run.output_dir / "metrics.jsonl")
    state = health(history, config.loss.adversarial, config.unit)
    _announce(run, measured, state.line)
    results = {"step": run.state.step, "features": "", **measured}
    if measuring is not None:
        results["features"] = measuring.description
    results["health"] = state.line
    with warn_if_failing(f"The report of step {run.state.step} was not written", OSError):
        write_results(run.report_dir, results)
    if config.grid.columns:
        with warn_if_failing("No grid was drawn", OSError):
            grid.draw(generator, run.report_dir, run.state.step)
            if not (run.report_dir / REAL_GRID).is_file():
                grid.draw_real(data, run.report_dir)


def _announce(run: Run, measured: dict[str, Any], health_line: str) -> None:
    if measured:
        names = {"eval_recall": "recall", "eval_coverage": "coverage", "eval_accuracy": "accuracy"}
        factors = [name for name in measured if name.endswith("_accuracy") and name not in names]
        names |= {name: name.split("_")[1] for name in factors}
        others = "".join(
            f"  {label} {measured[name]:.3f}" for name, label in names.items() if name in measured
        )
        is_best = run.state.best_step == run.state.step
        logger.info(
            "step %d  FID %.2f (real images: %.2f, %s samples)%s%s",
            run.state.step,
            measured["eval_fid"],
            measured["eval_fid_real"],
            f"{measured['eval_num_samples']:,}",
            others,
            "  (best so far)" if is_best else "",
        )
    logger.info("step %d  health %s", run.state.step, health_line)
