"""The steps around the loop of adversarial language modelling: checking, describing, batches, card."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from hf_genmodels.config.lm_adversarial import TrainLMAdversarialConfig
from hf_genmodels.config.run import file_names
from hf_genmodels.data.language import TextData, load_text_data, text_sources
from hf_genmodels.engine.adversarial import frozen, update
from hf_genmodels.engine.estimate import format_count, format_duration
from hf_genmodels.engine.language import training_batches
from hf_genmodels.engine.lm_adversarial_models import (
    AdversarialNetworks,
    build_networks,
    build_optimizer,
    own_tokenizer,
)
from hf_genmodels.engine.lm_adversarial_step import AdversarialObjective
from hf_genmodels.engine.publishing import circumstances, results_of
from hf_genmodels.engine.run import Run, check_run, make_accelerator
from hf_genmodels.hub.card import CardData, Sample
from hf_genmodels.hub.card_credit import credit_of
from hf_genmodels.hub.card_metrics import metrics_of
from hf_genmodels.hub.loading import refuse_companion

logger = logging.getLogger("hf_genmodels")
PROBE_STEPS = 3


def check_inputs(config: TrainLMAdversarialConfig) -> None:
    """Look at the data and the folders before any work is begun.

    Raises:
        UserError: With what cannot work.
    """
    check_run(config)
    refuse_companion(config.model_name_or_path, f"--model_name_or_path {config.model_name_or_path}")
    text_sources(config)


def identity_of(
    config: TrainLMAdversarialConfig,
    networks: AdversarialNetworks,
    tokenizer: PreTrainedTokenizerFast,
    data: TextData,
) -> dict[str, Any]:
    """Return what must stay the same when a run goes on, JSON-able."""
    adversarial = dataclasses.asdict(config.adversarial)
    for name in ("eval_texts", "leash", "stop_if_unhealthy"):  # they change no weights
        adversarial.pop(name)
    processes = {"num_processes": config.num_processes} if config.streaming else {}
    names = ("model_name_or_path", "seed", "block_size", "ema_decay", "per_device_train_batch_size")
    return {
        **processes,
        **{name: getattr(config, name) for name in names},
        "examples in a step": config.global_batch_size,
        "data": hashlib.sha256(data.fingerprint.encode()).hexdigest()[:16],
        "tokenizer": hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()[:16],
        **_own_fields("model", networks.generator.config),
        **_own_fields("discriminator", networks.discriminator.config),
        **{f"adversarial.{name}": value for name, value in adversarial.items()},
        **{f"optim.{name}": value for name, value in dataclasses.asdict(config.optim).items()},
    }


def _own_fields(section: str, config: PreTrainedConfig) -> dict[str, Any]:
    inherited = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    own = {field.name for field in dataclasses.fields(type(config))} - inherited
    return {f"{section}.{name}": getattr(config, name) for name in sorted(own)}


def describe(
    run: Run, config: TrainLMAdversarialConfig, networks: AdversarialNetworks, data: TextData
) -> None:
    """Say what is going to be trained on what."""
    options = config.adversarial
    sizes = [_size(networks.generator), _size(networks.discriminator)]
    logger.info(
        "model: generator %s and discriminator %s parameters (%s), vocabulary %s, precision %s",
        *map(format_count, sizes),
        networks.discriminator.config.attention,
        f"{networks.config.vocab_size:,}",
        run.accelerator.mixed_precision,
    )
    logger.info(
        "method: %s with the %s loss, %d tokens behind %d, leash %g nats per token, from %s",
        options.method,
        options.kind,
        options.sample_tokens,
        options.prompt_tokens,
        options.leash,
        config.model_name_or_path,
    )
    logger.info(
        "data: %s to train on, %s to validate on, of %d tokens",
        f"{len(data.windows):,} windows" if data.windows is not None else "a stream",
        f"{len(data.validation):,} windows" if data.validation is not None else "none",
        config.block_size,
    )
    logger.info(
        "%d steps of %d texts on %d process%s, into %s%s",
        config.max_steps,
        config.examples_per_step,
        run.accelerator.num_processes,
        "es" if run.accelerator.num_processes > 1 else "",
        run.output_dir,
        f"; going on after step {run.state.step}" if run.state.step else "",
    )


def card_of(
    run: Run, config: TrainLMAdversarialConfig, networks: AdversarialNetworks, data: TextData
) -> CardData:
    """Gather what the model card says."""
    results = results_of(run)
    source = config.dataset_name or file_names(config.train_file)
    windows = "a stream" if data.windows is None else f"{len(data.windows):,}"
    options = config.adversarial
    return CardData(
        name=run.output_dir.resolve().name,
        license=config.license,
        base_model=config.model_name_or_path,
        model_id=config.hub_model_id,
        datasets=[config.dataset_name] if config.dataset_name else [],
        training_data={"source": source, "windows": windows, "window": config.block_size},
        credit=credit_of(config.train_file),
        training={
            "method": f"adversarial, {options.method}",
            "loss": options.kind,
            "weights": f"{options.adversarial_weight:g} adversarial, {options.mle_weight:g} "
            f"cross-entropy, {options.kl_weight:g} divergence from the base model",
            "steps": f"{run.state.step:,} of {config.max_steps:,}",
            "texts": f"{run.state.examples:,} of {options.sample_tokens} tokens behind "
            f"{options.prompt_tokens}",
            "discriminator": f"{_size(networks.discriminator):,} parameters, "
            f"{networks.discriminator.config.attention}",
            "learning rates": f"{config.optim.generator_lr:g} (generator), "
            f"{config.optim.discriminator_lr:g} (discriminator)",
            "schedule": config.schedule.name,
            **circumstances(run),
        },
        metrics=metrics_of(results, data.validation_name),
        samples=[Sample(**sample) for sample in results.get("samples", [])],
        health=results.get("health", ""),
        num_parameters=_size(networks.generator),
    )


def dry_run(config: TrainLMAdversarialConfig) -> str:
    """Return configuration, sizes, speed of a few steps and estimated time; write no output folder.

    The text is tokenised into the cache, as the run would do it. One process trains on it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = own_tokenizer(config, Path(scratch))
    run = Run(config, make_accelerator(config), Path(config.output_dir or ""))
    networks = build_networks(config, None).to(run.accelerator.device).train()
    data = load_text_data(config, tokenizer, seed=config.seed)
    speed = _probe(run, config, networks, data, tokenizer)
    texts = config.max_steps * config.examples_per_step
    sizes = [_size(networks.generator), _size(networks.discriminator)]
    lines = [
        yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True),
        f"parameters      {format_count(sizes[0])} generator, {format_count(sizes[1])} discriminator",
        f"precision       {run.accelerator.mixed_precision} on {run.accelerator.device}",
        f"texts a step    {config.examples_per_step:,} on {config.num_processes} process(es)",
        f"speed           {speed:,.1f} texts/s ({PROBE_STEPS} steps, one process)",
        f"estimated time  {format_duration(texts / (speed * config.num_processes))} for "
        f"{config.max_steps:,} steps, and validations",
    ]
    return "\n".join(lines)


def _probe(
    run: Run,
    config: TrainLMAdversarialConfig,
    networks: AdversarialNetworks,
    data: TextData,
    tokenizer: PreTrainedTokenizerFast,
) -> float:
    """Return texts a second of a few training steps, after one that warms up."""
    optimizer = build_optimizer(networks, config.optim)
    objective = AdversarialObjective(config, networks, run)
    batches = training_batches(run, config, data, tokenizer, None)
    after = config.adversarial.discriminator_first  # steps of both networks
    started = time.monotonic()
    for step in range(PROBE_STEPS + 1):
        if step == 1:
            started = time.monotonic()
        with run.accelerator.autocast():
            batch = run.to_device(next(batches))
            texts = objective.write(batch, step, step + after, last_turn=True)
            loss = objective.discriminator_losses(texts)["d_loss"]
        run.accelerator.backward(loss)
        update(run, networks.discriminator, optimizer)
        with run.accelerator.autocast(), frozen(networks.discriminator):
            run.accelerator.backward(objective.generator_losses(texts)["g_loss"])
        update(run, networks.generator, optimizer)
    seconds = max(time.monotonic() - started, 1e-9)
    return PROBE_STEPS * config.per_device_train_batch_size / seconds


def _size(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
