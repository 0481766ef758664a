"""What is measured of generated clips beside the distances of their features: frames, motion, factors."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from hf_genmodels.config.images import ImageDataConfig
from hf_genmodels.config.judge import JudgeOptions
from hf_genmodels.data.image_set import ImageSet
from hf_genmodels.data.images import ImageData
from hf_genmodels.engine.precision import has_fast_bf16
from hf_genmodels.inference.image_measuring import SEED_OF_JUDGE, Measuring, accuracy_interval
from hf_genmodels.metrics.frechet_distance.gaussian_distance import frechet_distance
from hf_genmodels.metrics.image_extractors import JudgeFeatures
from hf_genmodels.metrics.image_features import Features, extract
from hf_genmodels.metrics.judge_training import describe_accuracy, find_judge
from hf_genmodels.metrics.temporal import LEAST_FRAMES, motion, smoothness

MOST_FRAMES = 10_000  # real frames, and those that their judge learns from; one of each clip
MOST_MOVING = 2000  # real clips whose motion is measured
VISIBLE = "class"  # the factor that a single frame shows


def frames_of(clips: Any, places: np.ndarray) -> np.ndarray:
    """Return a frame of each of some clips, another one of each: (N, C, S, S).

    Args:
        clips: Bytes, (clips, T, C, S, S), or what gives such for numbers.
        places: Which clips, (N,).
    """
    numbers = np.arange(len(places)) % clips.shape[1]
    rows = [
        clips[part][np.arange(len(part)), own]
        for part, own in zip(_parts(places), _parts(numbers), strict=True)
    ]
    return np.concatenate(rows)


def frame_data(data: ImageData) -> ImageData:
    """Return still images of which a judge of frames learns.

    Args:
        data: Clips. Of their frames the classes are known, if they are known of the clips; captions and
            attributes may speak of motion, so that frames are judged without them.
    """
    parts = [_stills(part, data.kind) for part in (data.train, data.validation) if part is not None]
    classes = parts[0].labels is not None
    names = data.factor_names.get(VISIBLE, data.label_names) if classes else []
    return dataclasses.replace(
        data,
        train=parts[0],
        validation=parts[1] if len(parts) > 1 else None,
        kind="class" if classes else "none",
        label_names=names,
        factor_names={},
        fingerprint=f"{data.fingerprint} frames",
    )


def frame_scores(
    measuring: Measuring, config: ImageDataConfig, drawn: np.ndarray
) -> dict[str, Any]:
    """Return the Fréchet distance between generated and real frames, and that of real ones from real ones.

    Args:
        measuring: What is measured with.
        config: Where the clips come from.
        drawn: Generated clips, bytes (N, T, C, S, S).
    """
    device = measuring.drawer.model.device
    stills = frame_data(measuring.data)
    judge = find_judge(
        stills,
        dataclasses.replace(config, num_frames=1, sprite_size=None),
        JudgeOptions(),
        seed=SEED_OF_JUDGE,
        device=device,
        bf16=has_fast_bf16(device),
    )
    seen = JudgeFeatures(judge, device)
    generated = extract(seen, frames_of(drawn, np.arange(len(drawn))))
    real = extract(seen, stills.train.images)
    name, limit = f"frame_fid_{len(generated)}", {}
    try:
        value = frechet_distance(generated.features, real.features)
        first, second = real.halves(measuring.options.seed)
        limit[name] = frechet_distance(first.features, second.features)
    except ValueError as error:
        return {"left_out": {"frame_fid": str(error)}}
    return {name: value, "real": limit, "frame_features": describe_accuracy(judge.config)}


def motion_scores(measuring: Measuring, drawn: np.ndarray) -> dict[str, Any]:
    """Return how generated clips change from frame to frame beside real ones.

    Args:
        measuring: What is measured with.
        drawn: Generated clips, bytes (N, T, C, S, S).
    """
    clips = measuring.data.train.images
    if drawn.shape[1] < LEAST_FRAMES:
        return {"left_out": {"motion": f"Motion needs clips of {LEAST_FRAMES} frames and more."}}
    rows = measuring.reference[:: max(1, len(measuring.reference) // MOST_MOVING)]
    real = motion(clips[measuring.places[rows]])
    half = len(rows) // 2
    try:
        ours = smoothness(motion(drawn), real)
        limit = smoothness(motion(clips[measuring.places[rows[:half]]]), real)
    except ValueError as error:
        return {"left_out": {"motion": str(error)}}
    sides = [
        {f"motion_{name}_{len(drawn)}": value for name, value in side._asdict().items()}
        for side in (ours, limit)
    ]
    return {**sides[0], "real": sides[1]}


def factor_scores(measuring: Measuring, generated: Features, chosen: np.ndarray) -> dict[str, Any]:
    """Return how often the judge sees in generated clips what they were asked to show, factor by factor.

    Args:
        measuring: What is measured with.
        generated: Features of generated clips.
        chosen: Training clips whose conditions they were drawn for, (N,).
    """
    judge, known = measuring.judge, measuring.data.train.factors
    drawer = measuring.drawer
    if drawer.kind == "none" or judge is None or judge.config.task != "factors" or known is None:
        return {}
    real = measuring.real.take(measuring.reference)
    places = measuring.places[measuring.reference]
    results: dict[str, Any] = {"real": {}, "by_class": {}}
    for name, own in judge.config.factor_slices.items():
        if name not in known or (name != VISIBLE and drawer.kind == "class"):
            continue  # of this it was asked nothing
        ids = np.asarray(known[name])
        shares, wanted = _shares(generated, own), ids[chosen]
        score, right = f"{name}_accuracy_{len(chosen)}", shares.argmax(axis=1) == wanted
        results[score] = float(right.mean())
        results |= accuracy_interval(shares, wanted, measuring.options.seed, score)
        results["real"][score] = float((_shares(real, own).argmax(axis=1) == ids[places]).mean())
        results["by_class"][f"{name}_accuracy"] = {
            label: float(right[wanted == number].mean())
            for number, label in enumerate((judge.config.factors or {})[name])
            if (wanted == number).any()
        }
    return results


def _shares(features: Features, own: slice) -> np.ndarray:
    """Return the probabilities of the classes of one factor, (N, K)."""
    assert features.probabilities is not None
    return features.probabilities[:, own]


def _stills(clips: ImageSet, kind: str) -> ImageSet:
    """Return a frame of each of some clips, evenly chosen, and their classes, if these are known."""
    number = min(len(clips), MOST_FRAMES)
    places = (np.arange(number) * (len(clips) / number)).astype(np.int64)
    labels = (clips.factors or {}).get(VISIBLE, clips.labels if kind == "class" else None)
    classes = None if labels is None else np.asarray(labels)[places]
    return ImageSet(frames_of(clips.images, places), classes)


def _parts(rows: np.ndarray) -> list[np.ndarray]:
    """Cut an array into pieces of a few hundred rows."""
    return np.array_split(rows, -(-len(rows) // 256))
