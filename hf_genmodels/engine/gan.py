"""The steps around the loop of a GAN: checking, tokenizer, describing, batches."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from hf_genmodels.config.gan import TrainGANConfig
from hf_genmodels.config.parser import model_config_of
from hf_genmodels.data.image_batches import EncodedCaptions, ImageBatches
from hf_genmodels.data.image_sources import image_sources
from hf_genmodels.data.images import ImageData, load_image_data
from hf_genmodels.engine.adversarial import frozen, update
from hf_genmodels.engine.estimate import format_count, format_duration
from hf_genmodels.engine.gan_models import GANPair, build_pair
from hf_genmodels.engine.gan_recipe import Recipe, build_gan_optimizer, recipe_of
from hf_genmodels.engine.gan_step import GANObjective
from hf_genmodels.engine.publishing import circumstances, results_of
from hf_genmodels.engine.run import Run, check_run, make_accelerator
from hf_genmodels.hub.card import CardData
from hf_genmodels.hub.card_credit import credit_of
from hf_genmodels.hub.card_kinds import COLORS
from hf_genmodels.hub.card_metrics import metrics_of
from hf_genmodels.hub.loading import load_tokenizer, refuse_companion
from hf_genmodels.models.configuration_gan import CLIP_FIELDS, GenGANConfig
from hf_genmodels.tokenization.bpe import train_bpe
from hf_genmodels.tokenization.pairs import for_pairs
from hf_genmodels.tokenization.saving import load_tokenizer as load_local_tokenizer
from hf_genmodels.tokenization.saving import save_tokenizer

logger = logging.getLogger("hf_genmodels")
PROBE_STEPS = 8


def check_inputs(config: TrainGANConfig) -> None:
    """Look at the data, the folders and the optional libraries before any work is begun.

    Raises:
        UserError: With what cannot work.
    """
    check_run(config)
    refuse_companion(config.model_name_or_path, f"--model_name_or_path {config.model_name_or_path}")
    if not config.model_name_or_path:
        by_labels = config.model.discriminator_conditioning == "classifier"
        model_config_of(
            GenGANConfig,
            config.model,
            "model",
            image_size=config.image_size,
            num_channels=config.num_channels or 1,
            num_frames=config.num_frames,
            # What the images have is known later.
            conditioning=config.model.conditioning or ("class" if by_labels else "none"),
        )
    image_sources(config, config.model.conditioning)


def conditioning_of(config: TrainGANConfig, data: ImageData) -> str:
    """Return what images are drawn for: as asked for, or what is known about them."""
    return str(config.model.conditioning or data.kind)


def build_tokenizer(
    config: TrainGANConfig, data: ImageData, output_dir: Path, *, show_progress: bool
) -> PreTrainedTokenizerFast | None:
    """Load the tokenizer of the captions, or train it on them; `None` if nothing is read.

    It is kept in the output folder, where a resumed run and the other processes find it.

    Raises:
        UserError: If there is no such tokenizer.
    """
    if conditioning_of(config, data) != "text":
        return None
    if (output_dir / "tokenizer.json").is_file():
        return load_local_tokenizer(output_dir)
    name = config.tokenizer_name or config.model_name_or_path or config.text_encoder_name
    length = config.model.max_position_embeddings
    if name:
        tokenizer = load_tokenizer(name)
    else:
        texts = [text for own in data.train.captions or [] for text in own]
        tokenizer = train_bpe(
            texts, vocab_size=config.tokenizer_vocab_size, show_progress=show_progress
        )
        tokenizer = for_pairs(tokenizer, length)
    save_tokenizer(tokenizer, output_dir)
    return tokenizer


def encoded_captions(
    config: TrainGANConfig, data: ImageData, tokenizer: PreTrainedTokenizerFast | None
) -> EncodedCaptions | None:
    """Return the tokens of the training captions, if the model reads them."""
    if tokenizer is None:
        return None
    return EncodedCaptions.from_texts(
        data.train.captions or [], tokenizer, config.model.max_position_embeddings
    )


def identity_of(
    config: TrainGANConfig, pair: GANPair, recipe: Recipe, data: ImageData
) -> dict[str, Any]:
    """Return what must stay the same when a run goes on, JSON-able."""
    inherited = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    own = {field.name for field in dataclasses.fields(type(pair.config))} - inherited
    names = ("model_name_or_path", "seed", "ema_decay", "flip", "balanced")
    identity = {
        **{name: getattr(config, name) for name in names},
        "images in a step": config.examples_per_step,
        "per_device_train_batch_size": config.per_device_train_batch_size,
        "data": hashlib.sha256(data.fingerprint.encode()).hexdigest()[:16],
        **{f"model.{name}": getattr(pair.config, name) for name in sorted(own)},
        **{f"loss.{name}": value for name, value in dataclasses.asdict(config.loss).items()},
        **dataclasses.asdict(recipe),
        "optim.discriminator_steps": config.optim.discriminator_steps,
        "optim.max_grad_norm": config.optim.max_grad_norm,
    }
    of_clips = {"loss.frames_judged", *(f"model.{name}" for name in CLIP_FIELDS)}
    if pair.config.is_video:
        return identity
    return {name: value for name, value in identity.items() if name not in of_clips}


def describe(
    run: Run, config: TrainGANConfig, pair: GANPair, recipe: Recipe, data: ImageData
) -> None:
    """Say what is going to be trained on what, with every number that was derived."""
    generator, discriminator = (
        sum(p.numel() for p in network.parameters())
        for network in (pair.generator, pair.discriminator)
    )
    model = pair.config
    logger.info(
        "model: %s, generator %s and discriminator %s parameters, precision %s",
        model.architecture,
        format_count(generator),
        format_count(discriminator),
        run.accelerator.mixed_precision,
    )
    known = {"class": "classes", "attributes": "attributes"}.get(data.kind, data.kind)
    logger.info(
        "data: %s %s of %d x %d x %d%s%s",
        f"{len(data.train):,}",
        config.unit if not model.is_video else f"clips with {model.num_frames} frames",
        config.image_size,
        config.image_size,
        data.num_channels,
        f", {len(data.label_names)} {known}" if data.label_names else "",
        ", with captions" if data.kind == "text" else "",
    )
    logger.info(
        "recipe: batch %d, %s, EMA %.4f, loss %s",
        config.global_batch_size,
        recipe,
        config.ema_decay,
        config.loss.adversarial,
    )
    logger.info(
        "%d steps (%.1f epochs) on %d process%s, into %s%s",
        config.max_steps,
        config.max_steps * config.examples_per_step / len(data.train),
        run.accelerator.num_processes,
        "es" if run.accelerator.num_processes > 1 else "",
        run.output_dir,
        f"; going on after step {run.state.step}" if run.state.step else "",
    )


def training_batches(
    run: Run,
    config: TrainGANConfig,
    data: ImageData,
    captions: EncodedCaptions | None,
    position: dict[str, int] | None,
) -> ImageBatches:
    """Return this rank's batches from where the run stands.

    Args:
        run: The run.
        config: Its options.
        data: The images.
        captions: Their captions, if the model reads them.
        position: Where the batches stood when the checkpoint was saved; rank 0 knows it.
    """
    return ImageBatches(
        config,
        data.train,
        seed=config.seed,
        batch_size=config.per_device_train_batch_size,
        rank=run.accelerator.process_index,
        world_size=run.accelerator.num_processes,
        start=run.broadcast(position),
        captions=captions,
    )


def dry_run(config: TrainGANConfig) -> str:
    """Return configuration, sizes, speed of a few steps and estimated time; write no output folder.

    The images are decoded into the cache, as the run would do it. One process trains on them.
    """
    data = load_image_data(config, conditioning=config.model.conditioning)
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = build_tokenizer(config, data, Path(scratch), show_progress=False)
    run = Run(config, make_accelerator(config), Path(config.output_dir or ""))
    pair = build_pair(config, data, tokenizer, None).to(run.accelerator.device).train()
    recipe = recipe_of(config, pair.config.architecture, len(data.train))
    speed = _probe(run, config, pair, recipe, data, encoded_captions(config, data, tokenizer))
    seconds = config.max_steps * config.examples_per_step / (speed * config.num_processes)
    sizes = [sum(p.numel() for p in n.parameters()) for n in (pair.generator, pair.discriminator)]
    lines = [
        yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True),
        f"{config.unit:15} {len(data.train):,} of {config.image_size} x {config.image_size} x "
        f"{data.num_channels}, {conditioning_of(config, data)}",
        f"parameters      {format_count(sizes[0])} generator, {format_count(sizes[1])} discriminator",
        f"recipe          {recipe}",
        f"precision       {run.accelerator.mixed_precision} on {run.accelerator.device}",
        f"{config.unit} a step   {config.examples_per_step:,} on {config.num_processes} process(es)",
        f"speed           {speed:,.0f} {config.unit}/s ({PROBE_STEPS} steps, one process)",
        f"estimated time  {format_duration(seconds)} for {config.max_steps:,} steps, and validations",
    ]
    return "\n".join(lines)


def _probe(
    run: Run,
    config: TrainGANConfig,
    pair: GANPair,
    recipe: Recipe,
    data: ImageData,
    captions: EncodedCaptions | None,
) -> float:
    """Return images a second of a few training steps, after one that warms up."""
    optimizer = build_gan_optimizer(pair, recipe)
    objective = GANObjective(config, pair, recipe, run)
    batches = training_batches(run, config, data, captions, None)
    started = time.monotonic()
    for step in range(PROBE_STEPS + 1):
        if step == 1:
            started = time.monotonic()
        with run.accelerator.autocast():
            drawn = objective.draw(run.to_device(next(batches)), step)
            found = objective.discriminator_losses(drawn, step)
        run.accelerator.backward(found["d_loss"])
        update(run, pair.discriminator, optimizer)
        with run.accelerator.autocast(), frozen(pair.discriminator):
            loss = objective.generator_losses(drawn)["g_loss"]
            run.accelerator.backward(loss)
        update(run, pair.generator, optimizer)
    seconds = max(time.monotonic() - started, 1e-9)
    return PROBE_STEPS * config.per_device_train_batch_size / seconds


def example_of(data: ImageData, config: GenGANConfig) -> list[str]:
    """Return arguments of `genmodels generate` that draw something."""
    shown = ["--num_images", "16", "--grid", "grid.png"]
    if config.is_video:
        shown = ["--num_videos", "4", "--output", "clips.gif"]
    if config.conditioning == "text" and data.train.captions:
        return [data.train.captions[0][0], *shown]
    if config.conditioning in ("class", "attributes"):
        return ["--label", data.label_names[0], *shown]
    return shown


def _made_of(config: TrainGANConfig) -> dict[str, str]:
    """Return what clips were made of, in words, if they were."""
    if config.sprite_size is None:
        return {}
    directions = ", ".join(config.sprite_directions)
    size = f"{config.sprite_size} x {config.sprite_size}"
    return {"made of": f"images brought to {size}, moving {directions}"}


def card_of(
    run: Run, config: TrainGANConfig, pair: GANPair, recipe: Recipe, data: ImageData
) -> CardData:
    """Gather what the model card says."""
    results = results_of(run)
    return CardData(
        name=run.output_dir.resolve().name,
        license=config.license,
        base_model=config.model_name_or_path,
        model_id=config.hub_model_id,
        datasets=[config.dataset_name] if config.dataset_name else [],
        training_data={
            "source": config.train_names,
            config.unit: f"{len(data.train):,}",
            "left out": f"{len(data.skipped):,}",
            "size": f"{config.image_size} x {config.image_size}, {COLORS[data.num_channels]}"
            + (f", {config.num_frames} frames" if config.num_frames > 1 else ""),
            **_made_of(config),
        },
        training={
            "steps": f"{run.state.step:,} of {config.max_steps:,}",
            config.unit: f"{run.state.examples:,}",
            "batch": f"{config.global_batch_size:,}",
            "loss": config.loss.adversarial,
            "recipe": str(recipe),
            "schedule": config.schedule.name,
            **circumstances(run),
        },
        metrics=metrics_of(results, data.train_names, "train"),
        credit=credit_of(config.train_file),
        health=results.get("health", ""),
        num_parameters=sum(p.numel() for p in pair.generator.parameters()),
    )
