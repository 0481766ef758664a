"""Train a judge of images or clips on real ones: a small network by whose features others are measured."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from hf_genmodels.config.images import ImageDataConfig
from hf_genmodels.config.judge import JudgeOptions
from hf_genmodels.data.cache_folder import open_or_build
from hf_genmodels.data.image_batches import EncodedCaptions, ImageBatches
from hf_genmodels.data.images import ImageData, ImageSet, scaled
from hf_genmodels.data.seeding import mix_seed
from hf_genmodels.metrics.retrieval import retrieval_hits, unique_texts
from hf_genmodels.models.configuration_judge import GenJudgeConfig
from hf_genmodels.models.modeling_judge import GenJudgeForImageClassification, turned

logger = logging.getLogger("hf_genmodels")

RECIPE_VERSION = 2
WEIGHT_DECAY = 0.05
WARMUP = 0.2
MAX_GRAD_NORM = 1.0
LARGEST_SHIFT = 32  # an image moves by at most a 32nd of its side
HELD_OUT = 0.1
MOST_HELD_OUT = 5000
CANDIDATES = 100
EVAL_BATCH = 500
_WEIGHT_STREAM, _SHIFT_STREAM = 31, 32


def train_judge(
    data: ImageData,
    config: ImageDataConfig,
    options: JudgeOptions | None = None,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    bf16: bool = False,
    show_progress: bool = True,
) -> GenJudgeForImageClassification:
    """Train a judge; the same arguments give the same weights on the same machine.

    Torch's global random stream is left as it was.

    Args:
        data: Real images or clips, and what is known about them.
        config: Their options, of which `flip` counts.
        options: What the judge is; by default what suits the images.
        seed: Seed of weights, order, shifts and dropout.
        device: Where to compute.
        bf16: Whether to compute convolutions and matrix products in bf16.
        show_progress: Whether to show a bar.

    Returns:
        The judge in eval mode on the device; `config.accuracy` is what it reached on held-out images.

    Raises:
        UserError: If the task does not suit the images.
    """
    options = options or JudgeOptions()
    model_config = _model_config(data, options)
    train, held_out = (_labelled(part, model_config) for part in _split(data))
    with torch.random.fork_rng():
        torch.manual_seed(mix_seed(seed, _WEIGHT_STREAM))
        model: Any = GenJudgeForImageClassification(model_config)
        model = model.to(device).to(memory_format=torch.channels_last).train()
        captions = _encode(model, train) if model_config.task == "matching" else None
        batches = ImageBatches(
            dataclasses.replace(config, balanced=False),
            train,
            seed=seed,
            batch_size=min(options.batch_size, max(2, len(train))),
            captions=captions,
        )
        steps = options.steps_for(model_config.task, len(train))
        rate = options.learning_rate
        _train(model, batches, steps, rate, seed=seed, bf16=bf16, show_progress=show_progress)
    model = model.eval()
    model.config.accuracy = judge_accuracy(model, held_out)
    if model_config.task == "factors":
        model.config.factor_accuracies = _factor_accuracies(model, held_out)
    model.config.trained_on = _key(data, config, options, seed, bf16)
    return model


def find_judge(
    data: ImageData,
    config: ImageDataConfig,
    options: JudgeOptions | None = None,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    bf16: bool = False,
    show_progress: bool = True,
) -> GenJudgeForImageClassification:
    """Return the judge that an earlier call trained on these images, or train it and keep it.

    It is kept beside the decoded images. The arguments are those of `train_judge`.

    Raises:
        UserError: If the task does not suit the images, or the judge cannot be written.
    """
    options = options or JudgeOptions()
    key = _key(data, config, options, seed, bf16)

    def load(folder: Path) -> GenJudgeForImageClassification:
        return _load(folder, key)

    def write(folder: Path) -> None:
        from hf_genmodels.hub.folder import no_progress_bars

        judge = train_judge(
            data,
            config,
            options,
            seed=seed,
            device=device,
            bf16=bf16,
            show_progress=show_progress,
        )
        with no_progress_bars():
            judge.save_pretrained(folder)

    judge: Any = open_or_build(data.path.parent / f"judge-{key}", load, write)
    return judge.to(device)


@torch.inference_mode()
def judge_accuracy(model: GenJudgeForImageClassification, images: ImageSet) -> float:
    """Return how often a judge is right.

    Args:
        model: The judge, in eval mode.
        images: Images it was not trained on; at most 5,000 of them are used.

    Returns:
        The share of images, of attributes or factors of images, of turned images, or in matching of
        images that find their own caption among a hundred (or all, if there are fewer).
    """
    images = _labelled(images.part(0, MOST_HELD_OUT), model.config)
    if model.config.task == "matching":
        return float(_matching_hits(model, images).mean())
    return float(_right(model, images).mean())


@torch.inference_mode()
def _factor_accuracies(model: GenJudgeForImageClassification, images: ImageSet) -> dict[str, float]:
    """Return how often a judge is right about each factor; see `judge_accuracy`."""
    shares = _right(model, images.part(0, MOST_HELD_OUT)).mean(dim=0).tolist()
    return dict(zip(model.config.factors or (), shares, strict=True))


def _right(model: GenJudgeForImageClassification, images: ImageSet) -> torch.Tensor:
    """Return whether the judge is right, 0 or 1: a row for each image."""
    starts = range(0, len(images), EVAL_BATCH)
    return torch.cat(
        [
            _is_right(model, scaled(images.images[start : start + EVAL_BATCH]), images, start)
            for start in starts
        ]
    )


def describe_accuracy(config: GenJudgeConfig) -> str:
    """Return what `config.accuracy` says, in words."""
    if config.task == "factors":
        shares = (config.factor_accuracies or {}).items()
        told = " and ".join(f"{name} of {100 * share:.1f} %" for name, share in shares)
        return f"{told} of held-out clips are told rightly"
    what = {
        "class": "of held-out images are classified rightly",
        "attributes": "of the attributes of held-out images are found",
        "rotation": "of turned held-out images are told how they were turned",
        "matching": f"of held-out images find their caption among up to {CANDIDATES}",
    }
    return f"{100 * float(config.accuracy or 0):.1f} % {what[config.task]}"


def _train(
    model: GenJudgeForImageClassification,
    batches: ImageBatches,
    steps: int,
    learning_rate: float,
    *,
    seed: int,
    bf16: bool,
    show_progress: bool,
) -> None:
    """Minimise the loss of the task with AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, steps))
    shifts = torch.Generator().manual_seed(mix_seed(seed, _SHIFT_STREAM))
    bar = tqdm(
        range(steps),
        desc="Training the judge",
        disable=None if show_progress else True,
    )
    for _ in bar:
        batch = {name: value.to(model.device) for name, value in next(batches).items()}
        inputs = _inputs(model.config.task, batch, shifts)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
            loss = model(**inputs).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        schedule.step()


def rate_at(step: int, steps: int) -> float:
    """Return the part of the highest learning rate: it rises along a line and falls along a cosine.

    Args:
        step: From 0.
        steps: Number of steps.
    """
    rising = max(1, round(WARMUP * steps))
    if step < rising:
        return (step + 1) / rising
    return (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising))) / 2


def _inputs(
    task: str, batch: dict[str, torch.Tensor], shifts: torch.Generator
) -> dict[str, torch.Tensor]:
    """Return what the judge is trained on: shifted images and what it has to find out."""
    images = _shifted(batch["images"], shifts)
    if images.ndim == 4:  # a backbone for clips lays out its frames itself
        images = images.contiguous(memory_format=torch.channels_last)
    if task == "rotation":
        views, turns = turned(images)
        return {"pixel_values": views, "labels": turns}
    if task == "matching":
        return {"pixel_values": images} | {
            name: batch[name] for name in ("input_ids", "attention_mask")
        }
    labels = batch["class_labels"]
    return {"pixel_values": images, "labels": labels.long() if task == "factors" else labels}


def _shifted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Move all images (..., C, S, S) by the same few pixels; the edge is repeated."""
    most = images.shape[-1] // LARGEST_SHIFT
    if not most:
        return images
    side = images.shape[-1]
    top, left = torch.randint(2 * most + 1, (2,), generator=generator).tolist()
    frames = images.flatten(0, -4)
    padded = torch.nn.functional.pad(frames, (most,) * 4, mode="replicate")
    return padded[..., top : top + side, left : left + side].reshape(images.shape)


def _is_right(
    model: GenJudgeForImageClassification, pixels: torch.Tensor, images: ImageSet, start: int
) -> torch.Tensor:
    """Return whether the judge is right about some images, float (any shape)."""
    pixels = pixels.to(model.device)
    if model.config.task == "rotation":
        views, turns = turned(pixels)
        return (model(views).logits.argmax(dim=-1) == turns).float()
    labels = torch.from_numpy(np.asarray(images.labels)[start : start + len(pixels)])
    logits = model(pixels).logits
    labels = labels.to(logits.device)
    if model.config.task == "attributes":
        return ((logits > 0) == labels.bool()).float()
    if model.config.task == "factors":
        slices = model.config.factor_slices.values()
        said = torch.stack([logits[:, own].argmax(dim=-1) for own in slices], dim=1)
        return (said == labels).float()
    return (logits.argmax(dim=-1) == labels).float()


def _matching_hits(model: GenJudgeForImageClassification, images: ImageSet) -> np.ndarray:
    """Return whether each image finds its first caption among a hundred."""
    texts, own = unique_texts([captions[0] for captions in images.captions or []])
    embedded = [
        model.embed_images(model.features(scaled(part).to(model.device)))
        for part in np.array_split(images.images, -(-len(images) // EVAL_BATCH))
    ]
    similarities = torch.cat(embedded) @ model.embed_texts(*model.encode_texts(texts)).T
    if len(texts) < 2:
        return np.ones(len(images))
    return retrieval_hits(similarities.cpu().numpy(), own, min(CANDIDATES, len(texts)))


def _encode(model: GenJudgeForImageClassification, images: ImageSet) -> EncodedCaptions:
    """Return the pieces of all captions."""
    captions = images.captions or []
    ids, mask = model.encode_texts([text for own in captions for text in own])
    starts = np.cumsum([0, *map(len, captions)]).astype(np.int64)
    return EncodedCaptions(ids.cpu().numpy(), mask.cpu().numpy(), starts)


def _split(data: ImageData) -> tuple[ImageSet, ImageSet]:
    """Return images to train on and others; without validation images, some at the end are kept apart."""
    if data.validation is not None:
        return data.train, data.validation
    size = len(data.train)
    start = size - min(MOST_HELD_OUT, max(1, round(size * HELD_OUT)))
    return data.train.part(0, max(1, start)), data.train.part(min(start, size - 1), size)


def _labelled(images: ImageSet, config: GenJudgeConfig) -> ImageSet:
    """Return images whose labels are their factors, (N, factors), if that is what is judged."""
    if config.task != "factors" or images.factors is None:
        return images
    ids = np.stack([images.factors[name] for name in config.factors or ()], axis=1)
    return dataclasses.replace(images, labels=ids)


def _model_config(data: ImageData, options: JudgeOptions) -> GenJudgeConfig:
    shape = data.train.images.shape
    side, num_frames = shape[-1], shape[1] if len(shape) == 5 else 1
    task = options.task_for(data.kind, data.factor_names)
    names: dict[str, Any] = {}
    if task in ("class", "attributes"):
        names["id2label"] = dict(enumerate(data.label_names))
        names["label2id"] = {name: number for number, name in enumerate(data.label_names)}
    if task == "factors":
        names["factors"] = data.factor_names
    return GenJudgeConfig(
        task=task,
        backbone=options.backbone_for(side, data.num_channels, num_frames),
        num_frames=num_frames,
        image_size=side,
        num_channels=data.num_channels,
        width=options.width,
        feature_dim=options.feature_dim,
        **names,
    )


def _key(
    data: ImageData, config: ImageDataConfig, options: JudgeOptions, seed: int, bf16: bool
) -> str:
    """Return a digest of all that decides about the weights."""
    own = {field.name: getattr(options, field.name) for field in dataclasses.fields(JudgeOptions)}
    content = [RECIPE_VERSION, data.fingerprint, own, config.flip, seed, bf16]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _load(folder: Path, key: str) -> GenJudgeForImageClassification:
    """Load a judge of the cache.

    Raises:
        ValueError: If it is damaged.
    """
    from hf_genmodels.hub.loading import load_model

    judge: Any = load_model(folder)
    if judge.config.trained_on != key:
        raise ValueError(f"The judge in {folder} was trained on something else.")
    return judge
