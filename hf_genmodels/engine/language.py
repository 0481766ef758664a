"""The steps around the loop of a language model: checking, building, describing, validating."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from hf_genmodels.config.lm import PICTURE_FIELDS, TrainLMConfig
from hf_genmodels.config.lm_adversarial import TrainLMAdversarialConfig
from hf_genmodels.data.image_folders import holds_images
from hf_genmodels.data.image_sources import image_sources
from hf_genmodels.data.language import TextData, TrainingBatches, load_text_data, text_sources
from hf_genmodels.data.pixels import PixelData
from hf_genmodels.data.sampling import validation_loader
from hf_genmodels.engine.adapting import adapt_model
from hf_genmodels.engine.checkpoint import MODEL_CONFIG
from hf_genmodels.engine.dry_run import describe_dry_run
from hf_genmodels.engine.estimate import estimate_memory
from hf_genmodels.engine.evaluation import evaluate_language_model, sample_texts
from hf_genmodels.engine.logging import warn_if_failing
from hf_genmodels.engine.pixels import (
    build_pixel_tokenizer,
    draw_samples,
    in_words,
    load_images,
    load_pixel_data,
    measure_pixels,
    picture_fields,
)
from hf_genmodels.engine.report import write_results, write_samples
from hf_genmodels.engine.run import Run, check_run
from hf_genmodels.errors import UserError, require_extra
from hf_genmodels.hub.loading import load_model, load_tokenizer, refuse_companion
from hf_genmodels.models.configuration_gpt import GenGPTConfig
from hf_genmodels.models.modeling_gpt import GenGPTForCausalLM
from hf_genmodels.tokenization.bpe import train_bpe
from hf_genmodels.tokenization.saving import load_tokenizer as load_local_tokenizer
from hf_genmodels.tokenization.saving import save_tokenizer

logger = logging.getLogger("hf_genmodels")
DRAWN = ("guidance_scale", "columns")  # how pictures are shown, not what is learned
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def check_inputs(config: TrainLMConfig) -> None:
    """Look at the data, the folders and the optional libraries before any work is begun.

    Raises:
        UserError: With what cannot work.
    """
    check_run(config)
    refuse_companion(config.model_name_or_path, f"--model_name_or_path {config.model_name_or_path}")
    if config.lora.r:
        require_extra("peft", "lora")
    if config.draws:
        with config.pixels.naming_flags():
            image_sources(config.pixels.image_data(config), None)
    else:
        _check_texts(config)


def _check_texts(config: TrainLMConfig) -> None:
    """Look at the texts.

    Raises:
        UserError: If they cannot be used; where they are pictures, with what learns these.
    """
    try:
        text_sources(config)
    except UserError as error:
        if not any(map(holds_images, config.train_file)):
            raise
        raise UserError(
            f"{error} Pictures, as there are here, are learned with --pixels.image_size 16, or by a "
            "preset such as --config pixels-fashion."
        ) from error


def build_tokenizer(
    config: TrainLMConfig, output_dir: Path, *, show_progress: bool
) -> PreTrainedTokenizerFast:
    """Load the tokenizer that the user named or the model has, or train one on the text or prompts.

    A tokenizer that is trained here is kept in the output folder, where a resumed run and the other
    processes find it.

    Raises:
        UserError: If there is no such tokenizer.
    """
    if config.draws:
        return build_pixel_tokenizer(config, output_dir, show_progress=show_progress)
    if (output_dir / "tokenizer.json").is_file():
        return load_local_tokenizer(output_dir)
    given = given_tokenizer(config)
    if given is not None:
        return given
    source, _ = text_sources(config)
    logger.info("training a tokenizer of %d tokens", config.tokenizer_vocab_size)
    tokenizer = train_bpe(
        source.texts(),
        vocab_size=config.tokenizer_vocab_size,
        model_max_length=config.model.max_position_embeddings,
        show_progress=show_progress,
        total_bytes=source.size_in_bytes(),
    )
    save_tokenizer(tokenizer, output_dir)
    return tokenizer


def given_tokenizer(config: TrainLMConfig) -> PreTrainedTokenizerFast | None:
    """Return the tokenizer that the user named or the model has; `None` if one is to be trained.

    Raises:
        UserError: If there is no such tokenizer.
    """
    name = config.tokenizer_name or config.model_name_or_path
    if not name:
        return None
    return load_local_tokenizer(name) if Path(name).is_dir() else load_tokenizer(name)


def build_model(
    config: TrainLMConfig,
    tokenizer: PreTrainedTokenizerFast,
    checkpoint: Path | None,
) -> PreTrainedModel:
    """Make a new model, or load the one to fine-tune; freeze and adapt as asked for.

    Args:
        config: The run's options.
        tokenizer: The model's tokenizer.
        checkpoint: Checkpoint whose weights will replace those of a pretrained model, which then
            need not be there any more.

    Raises:
        UserError: If model, tokenizer and windows do not fit together.
    """
    model: PreTrainedModel
    if checkpoint is not None and config.model_name_or_path:
        model = GenGPTForCausalLM(GenGPTConfig.from_json_file(checkpoint / MODEL_CONFIG))
    else:
        ids = {name: getattr(tokenizer, name) for name in TOKEN_IDS}
        fields = picture_fields(config, tokenizer)
        model = new_or_pretrained_model(config, len(tokenizer), **ids, **fields)
    _check_fit(config, model.config, tokenizer)
    return adapt_model(config, model, task_type="CAUSAL_LM")


def load_data(
    config: TrainLMConfig,
    tokenizer: PreTrainedTokenizerFast,
    output_dir: Path,
    *,
    show_progress: bool,
) -> TextData | PixelData:
    """Return what the model is trained and validated on.

    Raises:
        UserError: If the texts or images cannot be used.
    """
    if config.draws:
        return load_pixel_data(config, tokenizer, output_dir, show_progress=show_progress)
    return load_text_data(config, tokenizer, seed=config.seed, show_progress=show_progress)


def new_or_pretrained_model(
    config: TrainLMConfig, vocab_size: int, **fields: Any
) -> PreTrainedModel:
    """Return the model to fine-tune, or a new one.

    Args:
        config: The run's options.
        vocab_size: Vocabulary of a new model.
        **fields: `bos_token_id`, `eos_token_id`, `pad_token_id` and the fields of pictures of a new
            model.

    Raises:
        UserError: If the model to fine-tune is not one of such data.
    """
    if config.model_name_or_path:
        model = _load_pretrained(config.model_name_or_path)
        if model.config.draws_pictures and not config.draws:
            raise UserError(
                f"--model_name_or_path {config.model_name_or_path} is a language model that draws, and "
                "these data are texts. For pictures give --pixels.image_size "
                f"{model.config.image_sizes[0]}, or go on with a model of texts."
            )
        return model
    return GenGPTForCausalLM(config.new_model_config(vocab_size, **fields))


def identity_of(
    config: TrainLMConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    data: TextData | PixelData,
) -> dict[str, Any]:
    """Return what must stay the same when a run goes on, JSON-able."""
    inherited = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    own = {field.name for field in dataclasses.fields(GenGPTConfig)} - inherited
    own -= set(PICTURE_FIELDS)  # which follow from the options and the tokenizer
    processes = {"num_processes": config.num_processes} if config.streaming else {}
    pixels = dataclasses.asdict(config.pixels) if config.draws else {}
    return {
        **processes,
        **{f"pixels.{name}": value for name, value in pixels.items() if name not in DRAWN},
        "model_name_or_path": config.model_name_or_path,
        "tokenizer_name": config.tokenizer_name,
        "data": hashlib.sha256(data.fingerprint.encode()).hexdigest()[:16],
        "tokenizer": hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()[:16],
        "seed": config.seed,
        "block_size": config.block_size,
        "examples in a step": config.global_batch_size,
        "ema_decay": config.ema_decay,
        "freeze": config.freeze,
        **{f"model.{name}": getattr(model.config, name) for name in sorted(own)},
        **{f"optim.{key}": value for key, value in dataclasses.asdict(config.optim).items()},
        **{f"lora.{key}": value for key, value in dataclasses.asdict(config.lora).items()},
    }


def training_batches(
    run: Run,
    config: TrainLMConfig | TrainLMAdversarialConfig,
    data: TextData | PixelData,
    tokenizer: PreTrainedTokenizerFast,
    stream_state: dict[str, Any] | None,
) -> TrainingBatches:
    """Return this rank's batches from where the run stands."""
    return TrainingBatches(
        config,
        data,
        tokenizer,
        batch_size=config.per_device_train_batch_size,
        seed=config.seed,
        rank=run.accelerator.process_index,
        world_size=run.accelerator.num_processes,
        start=run.state.examples,
        num_workers=config.num_workers,
        stream_state=stream_state,
    )


def validate(
    run: Run,
    config: TrainLMConfig,
    model: nn.Module,
    bare_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    data: TextData | PixelData,
) -> None:
    """Measure the validation loss, write or draw samples, and log both."""
    measured: dict[str, float] = {}
    if data.validation is not None:
        measured, words = _measured(run, config, model, data)
        run.state.record_eval(measured["eval_loss"])
        run.metrics.write(run.state.step, measured)
        logger.info(
            "step %d  validation %s%s",
            run.state.step,
            words,
            "  (best so far)" if run.state.best_step == run.state.step else "",
        )
    if isinstance(data, PixelData):
        samples: dict[str, Any] = {
            "prompts": draw_samples(run, config, bare_model, tokenizer, data)
        }
    else:
        samples = {"samples": _write_samples(run, config, bare_model, tokenizer)}
    if run.is_main:
        with warn_if_failing(f"The report of step {run.state.step} was not written", OSError):
            write_results(run.report_dir, {"step": run.state.step, **samples, **measured})


def _measured(
    run: Run, config: TrainLMConfig, model: nn.Module, data: TextData | PixelData
) -> tuple[dict[str, float], str]:
    """Return what was measured on the validation data, and the same in words."""
    if isinstance(data, PixelData):
        found = measure_pixels(run, config, model, data)
        return found, in_words(found)
    assert data.validation is not None
    loader = validation_loader(
        data.validation,
        config.per_device_eval_batch_size or config.per_device_train_batch_size,
        rank=run.accelerator.process_index,
        world_size=run.accelerator.num_processes,
    )
    found = evaluate_language_model(run, model, loader, data.bytes_per_token)
    return found, (
        f"loss {found['eval_loss']:.4f}  perplexity {found['eval_perplexity']:.2f}  "
        f"bits per byte {found['eval_bits_per_byte']:.4f}"
    )


def _write_samples(
    run: Run, config: TrainLMConfig, bare_model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> list[dict[str, str]]:
    """Write texts behind the prompts, into the report too."""
    prompts, step = config.sample.prompts, run.state.step
    if not (config.sample.max_new_tokens and prompts):
        return []
    texts = sample_texts(bare_model, tokenizer, prompts, config.sample, seed=config.seed + step)
    logger.info("step %d  sample: %s", step, _one_line(prompts[0] + texts[0]))
    if run.is_main:
        with warn_if_failing(f"The samples of step {step} were not written", OSError):
            write_samples(run.report_dir, step, prompts, texts)
    return [{"prompt": prompt, "text": text} for prompt, text in zip(prompts, texts, strict=True)]


def dry_run(config: TrainLMConfig) -> str:
    """Say what a run would be; see `describe_dry_run`.

    A tokenizer that would be trained is counted with its intended size, so that neither tokenizer
    nor texts need to be made. Images are decoded into the cache, as the run would do it.
    """
    if config.draws:
        load_images(config, show_progress=True)
    tokenizer = given_tokenizer(config)
    vocab_size = config.expected_vocab_size if tokenizer is None else len(tokenizer)
    model = new_or_pretrained_model(config, vocab_size, **picture_fields(config, None))
    model = adapt_model(config, model, task_type="CAUSAL_LM").train()
    batch_size, block_size = config.per_device_train_batch_size, config.block_size
    memory = estimate_memory(
        model, config.optim.name, batch_size, block_size, ema=config.ema_decay is not None
    )

    def random_batch() -> dict[str, torch.Tensor]:
        ids = torch.randint(model.config.vocab_size, (batch_size, block_size))
        return {"input_ids": ids, "labels": ids}

    return describe_dry_run(config, model, config.optim, random_batch, memory)


def _load_pretrained(name: str) -> PreTrainedModel:
    """Load a model of ours, or a GPT-2 checkpoint of transformers as one."""
    model = load_model(name)
    if model.config.model_type == "gpt2":
        return GenGPTForCausalLM.from_gpt2(name)
    if model.config.model_type != GenGPTConfig.model_type:
        raise UserError(
            f"--model_name_or_path {name} is a {model.config.model_type!r} model. This command "
            f"trains {GenGPTConfig.model_type!r} models, and 'gpt2' ones, which it converts."
        )
    return model


def _check_fit(
    config: TrainLMConfig, model_config: PreTrainedConfig, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Check that every token is in the vocabulary and a window in the context."""
    num_ids = max(tokenizer.get_vocab().values()) + 1
    if num_ids > model_config.vocab_size:
        raise UserError(
            f"The tokenizer has {num_ids:,} tokens, but the model's vocabulary only "
            f"{model_config.vocab_size:,}. Use the model's own tokenizer: leave out "
            "--tokenizer_name."
        )
    if config.block_size > model_config.max_position_embeddings:
        raise UserError(
            f"--block_size {config.block_size} is longer than the model's context of "
            f"{model_config.max_position_embeddings} tokens."
        )


def _one_line(text: str, width: int = 160) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 3] + "..."
