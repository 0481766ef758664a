"""What generated images are measured with, and how they compare with real ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from hf_genmodels.config.evaluate import EvaluateOptions
from hf_genmodels.config.images import ImageDataConfig
from hf_genmodels.config.judge import TASK_OF, JudgeOptions
from hf_genmodels.data.images import ImageData, ImageSet
from hf_genmodels.engine.precision import has_fast_bf16
from hf_genmodels.errors import UserError
from hf_genmodels.inference.image_sampling import Drawer, spread_places
from hf_genmodels.inference.text_to_text import moving
from hf_genmodels.metrics.bootstrap import bootstrap_scores, interval
from hf_genmodels.metrics.image_extractors import JudgeFeatures, open_extractor
from hf_genmodels.metrics.image_features import Extractor, Features, extract
from hf_genmodels.metrics.image_quality import Quality, image_quality, real_against_real
from hf_genmodels.metrics.inception_score.class_confidence import inception_score
from hf_genmodels.metrics.judge_training import describe_accuracy, find_judge
from hf_genmodels.metrics.nearest import copying
from hf_genmodels.metrics.retrieval import retrieval_precision, unique_texts
from hf_genmodels.models.modeling_judge import GenJudgeForImageClassification

MOST_REAL = 10_000
MOST_TRAINING = {
    True: 60_000,
    False: 10_000,
}  # images that are searched for copies: by a judge, or not
MOST_RETRIEVED = 1000
MOST_SWEPT = 2000
SWEEP = (0.4, 0.6, 0.8)
SWEPT = ("fid", "fvd", "precision", "recall", "coverage")
SEED_OF_JUDGE = 0


@dataclass
class Measuring:
    """Everything that a measurement needs.

    Attributes:
        options: What the user asked for.
        data: The real images.
        drawer: The generator.
        extractor: What sees features.
        judge: The judge, if that is what sees them.
        places: Training images that were looked at, (N,).
        real: Their features.
    """

    options: EvaluateOptions
    data: ImageData
    drawer: Drawer
    extractor: Extractor
    judge: GenJudgeForImageClassification | None
    places: np.ndarray
    real: Features

    @property
    def distance(self) -> str:
        """What the Fréchet distance is called: that of clips is another one than that of images."""
        return "fvd" if self.data.train.images.ndim == 5 else "fid"

    @property
    def reference(self) -> np.ndarray:
        """Which of the looked-at images the generated ones are compared with, evenly chosen."""
        number = min(len(self.places), MOST_REAL)
        return (np.arange(number) * (len(self.places) / number)).astype(np.int64)


def prepare(
    options: EvaluateOptions,
    data: ImageData,
    drawer: Drawer,
    config: ImageDataConfig,
    judge_options: JudgeOptions,
) -> Measuring:
    """Open or train what sees features, and look at the real images.

    Args:
        options: What the user asked for.
        data: The real images.
        drawer: The generator.
        config: Where the images come from.
        judge_options: What a judge is that is trained now.

    Raises:
        UserError: If it cannot be opened, or there are too few images for its features.
    """
    device = drawer.model.device
    if options.judge is None:
        extractor: Extractor = JudgeFeatures(
            find_judge(
                data,
                config,
                judge_options,
                seed=SEED_OF_JUDGE,
                device=device,
                bf16=has_fast_bf16(device),
            ),
            device,
        )
    else:
        extractor = open_extractor(options.judge, device)
    judge = extractor.model if isinstance(extractor, JudgeFeatures) else None
    _check_frames(drawer.model.config.to_dict().get("num_frames", 1), judge)
    number = min(len(data.train), MOST_TRAINING[judge is not None])
    places = spread_places(data.train, number)
    with tqdm(total=number, unit=" images", desc="Real images", disable=None) as bar:
        batch = np.sort(places)
        real = extract(extractor, data.train.images[batch], progress=moving(bar))
    if len(real) < 2:
        raise UserError("There is one image only; a collection of images was meant.")
    return Measuring(options, data, drawer, extractor, judge, batch, real)


def compare(measuring: Measuring, generated: Features, chosen: np.ndarray) -> dict[str, Any]:
    """Compare generated images with real ones, and real ones with each other.

    Args:
        measuring: What is measured with.
        generated: Features of generated images.
        chosen: Training images whose conditions they were drawn for, (N,).
    """
    seed, rows = measuring.options.seed, measuring.reference
    real, places = measuring.real.take(rows), measuring.places[rows]
    labels, real_labels = _labels(measuring, chosen), _labels(measuring, places)
    ours, theirs = _with_own_classes(measuring, generated), _with_own_classes(measuring, real)
    distance = measuring.distance
    quality = image_quality(ours, theirs, labels, real_labels, seed=seed, distance=distance)
    limit = real_against_real(theirs, real_labels, seed=seed, distance=distance)
    if ours.probabilities is None:
        for found, seen in ((quality, generated), (limit, real)):
            _add_confidence(found, seen)
    results: dict[str, Any] = {**quality.scores, "real": limit.scores}
    if labels is not None and ours.probabilities is not None:
        name = f"accuracy_{len(labels)}"
        results |= accuracy_interval(ours.probabilities, labels, seed, name)
    results["by_class"] = _named(quality, measuring.data.label_names)
    if quality.left_out:
        results["left_out"] = quality.left_out
    return results


def sweep(measuring: Measuring) -> dict[str, dict[str, float]]:
    """Return distance, precision and recall of images that are drawn with less and less noise."""
    drawer, data = measuring.drawer, measuring.data
    number = min(measuring.options.num_samples, MOST_SWEPT)
    conditions = drawer.conditions(data.train, spread_places(data.train, number))
    noise = drawer.noise(number, measuring.options.seed)
    real = measuring.real.take(measuring.reference)
    found = {}
    for truncation in (*SWEEP, 1.0):
        seen = extract(measuring.extractor, drawer.draw(conditions, noise, truncation))
        quality = image_quality(
            seen, real, seed=measuring.options.seed, distance=measuring.distance
        )
        found[f"{truncation:g}"] = {
            name: value
            for name, value in quality.scores.items()
            if name.rpartition("_")[0] in SWEPT
        }
    return found


def copies(measuring: Measuring, generated: Features) -> dict[str, float]:
    """Return how near generated images are to training images, beside held-out real ones."""
    held_out = measuring.data.validation
    if held_out is None or len(held_out) < 2:
        return {}
    known = extract(measuring.extractor, held_out.images[:MOST_REAL])
    found = copying(generated.features, known.features, measuring.real.features)
    return {"copy_ratio": found.ratio, "copy_share": found.share}


def captions(measuring: Measuring) -> dict[str, Any]:
    """Return how often generated images find their caption, of training and of held-out images."""
    judge, data = measuring.judge, measuring.data
    if measuring.drawer.kind != "text" or judge is None or judge.config.task != "matching":
        return {}
    parts = {"training": data.train, "held_out": data.validation}
    found = {
        split: _retrieval(measuring, judge, images)
        for split, images in parts.items()
        if images is not None and len(images) > 1
    }
    return {"retrieval": {split: scores for split, scores in found.items() if scores}}


def describe(measuring: Measuring) -> str:
    """Return in words what saw the features."""
    if measuring.judge is None:
        return measuring.extractor.name
    accuracy = measuring.judge.config.accuracy
    said = f", {describe_accuracy(measuring.judge.config)}" if accuracy is not None else ""
    return f"a judge ({measuring.judge.config.backbone}{said})"


def _check_frames(num_frames: int, judge: GenJudgeForImageClassification | None) -> None:
    """Check that what sees features looks at as many frames as the model draws.

    Raises:
        UserError: If it does not.
    """
    seen = 1 if judge is None else judge.config.num_frames
    if seen != num_frames:
        raise UserError(
            f"--judge looks at {seen} frames, and the model draws {num_frames}. Leave it out, or train one "
            f"that fits: genmodels train judge --num_frames {num_frames}"
        )


def _labels(measuring: Measuring, places: np.ndarray) -> np.ndarray | None:
    """Return what is known about training images by which the generator draws."""
    if measuring.drawer.kind not in ("class", "attributes"):
        return None
    return np.asarray(measuring.data.train.labels)[places]


def _with_own_classes(measuring: Measuring, features: Features) -> Features:
    """Return features with the probabilities of the data's labels, in their order, or with none."""
    judge, names = measuring.judge, measuring.data.label_names
    if judge is None or judge.config.task != TASK_OF[measuring.data.kind]:
        return Features(features.features)
    known = {str(name): int(number) for name, number in (judge.config.label2id or {}).items()}
    if features.probabilities is None or set(known) != set(names):
        return Features(features.features)
    columns = [known[name] for name in names]
    return Features(features.features, features.probabilities[:, columns])


def _add_confidence(quality: Quality, seen: Features) -> None:
    """Add the Inception score over classes that are not those of the data."""
    shares = seen.probabilities
    if shares is not None and np.allclose(shares.sum(axis=1), 1, atol=1e-3) and len(shares) > 10:
        quality.scores[f"inception_score_{len(seen)}"] = inception_score(shares).score


def accuracy_interval(
    probabilities: np.ndarray, labels: np.ndarray, seed: int, name: str
) -> dict[str, float]:
    """Return the 95 % confidence interval of an accuracy over images.

    Args:
        probabilities: Of the classes, or of each attribute on its own, (N, K).
        labels: Classes (N,), or attributes (N, K).
        seed: Seed of the resamples.
        name: What the accuracy is called.
    """
    if labels.ndim == 2:
        right = ((probabilities >= 0.5) == labels.astype(bool)).mean(axis=1)
    else:
        right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    counts = np.stack([right, np.ones_like(right)], axis=1)
    ends = interval(bootstrap_scores(counts, lambda sums: sums[0] / sums[1], seed=seed))
    return {f"{name}_low": ends.low, f"{name}_high": ends.high}


def _named(quality: Quality, names: list[str]) -> dict[str, dict[str, float]]:
    """Return scores by the names of classes."""
    return {
        score: {names[label]: value for label, value in found.items() if not math.isnan(value)}
        for score, found in quality.by_class.items()
    }


def _retrieval(
    measuring: Measuring, judge: GenJudgeForImageClassification, images: ImageSet
) -> dict[str, Any]:
    """Draw an image for each of some captions and look whether it finds it; nothing for one caption."""
    drawer, seed = measuring.drawer, measuring.options.seed
    chosen = spread_places(images, min(len(images), MOST_RETRIEVED))
    texts, own = unique_texts([(images.captions or [])[place][0] for place in chosen.tolist()])
    if len(texts) < 2:
        return {}
    drawn = drawer.draw(
        drawer.texts([texts[number] for number in own.tolist()]),
        drawer.noise(len(chosen), seed + 3),
        measuring.options.truncation,
    )
    with torch.inference_mode():
        embedded = judge.embed_texts(*judge.encode_texts(texts))
        scores = []
        for pixels in (drawn, images.images[chosen]):
            seen = torch.from_numpy(extract(measuring.extractor, pixels).features)
            similar = judge.embed_images(seen.to(judge.device)) @ embedded.T
            scores.append(retrieval_precision(similar.cpu().numpy(), own, seed=seed))
    generated, real = scores
    return {**generated._asdict(), "real_precision": real.precision}
