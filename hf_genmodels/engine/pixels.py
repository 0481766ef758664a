"""The steps around the loop of a language model that draws: vocabulary, validation, pictures."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from hf_genmodels.config.lm import TrainLMConfig
from hf_genmodels.data.images import ImageData, load_image_data
from hf_genmodels.data.pixel_documents import prompts_of
from hf_genmodels.data.pixels import PixelData, pixel_data
from hf_genmodels.data.sampling import validation_loader
from hf_genmodels.engine.evaluation import evaluate_language_model
from hf_genmodels.engine.logging import warn_if_failing
from hf_genmodels.engine.run import Run
from hf_genmodels.errors import UserError
from hf_genmodels.hub.loading import load_image_processor_if_any, load_tokenizer
from hf_genmodels.image_grid import Group, draw_grid
from hf_genmodels.models.image_processing_pixels import GenPixelsImageProcessor
from hf_genmodels.models.pixel_sampling import PixelSettings, draw_pixels, picture_prompt
from hf_genmodels.tokenization.palette import train_palette
from hf_genmodels.tokenization.pixels import PixelVocabulary, train_pixel_tokenizer
from hf_genmodels.tokenization.saving import load_tokenizer as load_local_tokenizer
from hf_genmodels.tokenization.saving import save_tokenizer

logger = logging.getLogger("hf_genmodels")
GRID, ENLARGED = "grid.png", "super_resolution.png"
ROWS = 10
MOST_REAL = 2


def build_pixel_tokenizer(
    config: TrainLMConfig, output_dir: Path, *, show_progress: bool
) -> PreTrainedTokenizerFast:
    """Find palette and tokens of the images, or take those of the model to fine-tune.

    Both are kept in the output folder, where a resumed run and the other processes find them.

    Raises:
        UserError: If the images cannot be used, or the model has no such palette.
    """
    if (output_dir / "tokenizer.json").is_file():
        return load_local_tokenizer(output_dir)
    options = config.pixels
    if config.model_name_or_path:
        processor = _processor_of(config)
        tokenizer = load_tokenizer(config.model_name_or_path)
    else:
        images = load_images(config, show_progress=show_progress)
        logger.info("finding a palette of %d colours", options.palette_size)
        palette = train_palette(images.train.images, options.palette_size, config.seed)
        labels = images.label_names if images.kind == "class" else []
        processor = GenPixelsImageProcessor(
            palette.tolist(), options.image_sizes, options.resize, labels
        )
        prompts = prompts_of(images.train, images.label_names)
        tokenizer = train_pixel_tokenizer(
            dict.fromkeys(text for own in prompts for text in own),
            vocab_size=config.tokenizer_vocab_size,
            num_colours=len(palette),
            model_max_length=config.block_size,
        )
    processor.save_pretrained(output_dir)
    save_tokenizer(tokenizer, output_dir)
    return tokenizer


def load_images(
    config: TrainLMConfig, *, num_channels: int | None = None, show_progress: bool
) -> ImageData:
    """Decode the images, or find them decoded.

    Args:
        config: The run's options.
        num_channels: Channels of the palette, where there is one already.
        show_progress: Whether this process shows a bar and warns of images left out.

    Raises:
        UserError: If the images cannot be used.
    """
    image_data = config.pixels.image_data(config)
    image_data.num_channels = num_channels or image_data.num_channels
    with config.pixels.naming_flags():
        return load_image_data(image_data, show_progress=show_progress)


def load_pixel_data(
    config: TrainLMConfig,
    tokenizer: PreTrainedTokenizerFast,
    output_dir: Path,
    *,
    show_progress: bool,
) -> PixelData:
    """Make documents of the images, with the palette that stands in the output folder.

    Raises:
        UserError: If the images cannot be used.
    """
    processor = GenPixelsImageProcessor.from_pretrained(output_dir)
    options = config.pixels
    channels = processor.num_channels if config.model_name_or_path else None
    images = load_images(config, num_channels=channels, show_progress=show_progress)
    return pixel_data(
        images,
        processor,
        tokenizer,
        options,
        seed=config.seed,
        max_eval_images=config.max_eval_windows,
    )


def picture_fields(
    config: TrainLMConfig, tokenizer: PreTrainedTokenizerFast | None
) -> dict[str, Any]:
    """Return the fields of a new model's configuration that tell of pictures.

    Args:
        config: The run's options.
        tokenizer: The model's tokenizer; `None` before there is one.

    Raises:
        UserError: If the tokenizer knows no colours.
    """
    options = config.pixels
    if not config.draws:
        return {}
    sizes = options.image_sizes
    if tokenizer is None:
        fields = {"image_token_ids": list(range(len(sizes))), "palette_token_id": len(sizes)}
        return {"image_sizes": sizes, **fields, "palette_size": options.palette_size}
    fields = PixelVocabulary.of(tokenizer, len(sizes)).config_fields
    if not options.caption:
        fields["caption_token_id"] = None  # nothing is learned of it
    return {"image_sizes": sizes, **fields}


def _processor_of(config: TrainLMConfig) -> GenPixelsImageProcessor:
    """Return the palette of the model to fine-tune."""
    name = str(config.model_name_or_path)
    processor: GenPixelsImageProcessor | None = load_image_processor_if_any(name)
    if processor is None:
        raise UserError(
            f"--model_name_or_path {name} is a model of texts, and --pixels.image_size asks for "
            "pictures. Leave one of them out."
        )
    if processor.image_sizes != config.pixels.image_sizes:
        raise UserError(
            f"--model_name_or_path {name} draws pictures of {processor.image_sizes} pixels a side, "
            f"and --pixels asks for {config.pixels.image_sizes}. Ask for the same."
        )
    return processor


def measure_pixels(
    run: Run, config: TrainLMConfig, model: nn.Module, data: PixelData
) -> dict[str, float]:
    """Return the loss of every task; that of the first one decides which weights are best.

    `eval_loss` is in nats for a token. Bits per dimension are those of a pixel's colour in the
    palette, divided by its channels.
    """
    measured: dict[str, float] = {}
    for task, documents in (data.validation or {}).items():
        loader = validation_loader(
            documents,
            config.per_device_eval_batch_size or config.per_device_train_batch_size,
            rank=run.accelerator.process_index,
            world_size=run.accelerator.num_processes,
        )
        found = evaluate_language_model(run, model, loader, 1.0)
        name = "" if not measured else f"{task}_"
        measured[f"eval_{name}tokens"] = found["eval_tokens"]
        for end in ("", "_low", "_high"):
            if f"eval_loss{end}" not in found:  # of too few batches to say
                continue
            measured[f"eval_{name}loss{end}"] = found[f"eval_loss{end}"]
            if task != "caption":
                bits = found[f"eval_loss{end}"] / math.log(2) / data.processor.num_channels
                measured[f"eval_{name}bits_per_dimension{end}"] = bits
    return measured


def in_words(measured: dict[str, float]) -> str:
    """Return what was measured, for the log."""
    names = {name.removeprefix("eval_"): value for name, value in measured.items()}
    hidden = ("tokens", "_low", "_high")
    shown = {name: value for name, value in names.items() if not name.endswith(hidden)}
    return "  ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in shown.items())


def draw_samples(
    run: Run,
    config: TrainLMConfig,
    model: Any,
    tokenizer: PreTrainedTokenizerFast,
    data: PixelData,
) -> list[str]:
    """Draw pictures of prompts and of small pictures into the report; return the prompts.

    Real pictures stand beside drawn ones.
    """
    if not config.sample.max_new_tokens:
        return []
    prompts = [text for text in config.sample.prompts if text] or data.prompts(ROWS)
    columns, vocabulary = config.pixels.columns, data.vocabulary
    longest = config.pixels.max_prompt_tokens
    tokens = tokenizer(prompts, truncation=True, max_length=longest)["input_ids"]
    rows = [
        [vocabulary.begin, *own, vocabulary.images[0]] for own in tokens for _ in range(columns)
    ]
    drawn = _drawn(config, model, rows, run.state.step, config.pixels.guidance_scale)
    real = [data.pictures_of(prompt, MOST_REAL) for prompt in prompts]
    number = min(map(len, real))
    lines = []
    for row, own in enumerate(real):
        lines += [*drawn[row * columns : (row + 1) * columns], *own[:number]]
    groups = [("drawn", columns), *([("real", number)] if number else [])]
    if run.is_main:
        _write_grid(run, GRID, data.processor.to_pixels(np.stack(lines)), groups, prompts)
    if "super_resolution" in data.windows.tasks:
        _draw_enlarged(run, config, model, data)
    return prompts


def _draw_enlarged(run: Run, config: TrainLMConfig, model: Any, data: PixelData) -> None:
    """Draw pictures of small ones, and write given, drawn and real ones side by side."""
    processor = data.processor
    chosen = np.linspace(0, len(data.shown) - 1, min(ROWS, len(data.shown))).astype(int)
    pairs = [data.shown.picture(int(index)) for index in chosen]
    rows = [picture_prompt(model.config, small=small.tolist()) for _, small in pairs]
    drawn = _drawn(config, model, rows, run.state.step, 1.0)
    if not run.is_main:
        return
    small = processor.to_pixels(np.stack([small for _, small in pairs]))
    size = processor.image_sizes[0]
    given = nn.functional.interpolate(small, size=(size, size), mode="nearest")
    large = processor.to_pixels(np.stack([large for large, _ in pairs]))
    cells = torch.stack([given, processor.to_pixels(drawn), large], dim=1).flatten(0, 1)
    groups = [(title, 1) for title in ("given", "drawn", "real")]
    _write_grid(run, ENLARGED, cells, groups)


def _write_grid(
    run: Run, name: str, pixels: torch.Tensor, groups: Sequence[Group], labels: Sequence[str] = ()
) -> None:
    """Write a picture into the report; where the disk is full, the run goes on without it."""
    with warn_if_failing(f"{name} of step {run.state.step} was not written", OSError):
        draw_grid(run.report_dir / name, pixels, groups, labels)


def _drawn(
    config: TrainLMConfig,
    model: Any,
    rows: list[list[int]],
    step: int,
    guidance_scale: float,
) -> np.ndarray:
    """Return the colours that a model draws behind beginnings of documents, (B, size * size)."""
    sample = config.sample
    settings = PixelSettings(sample.temperature, sample.top_k, sample.top_p, guidance_scale)
    seeds = range(config.seed + step, config.seed + step + len(rows))
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return draw_pixels(model, rows, settings, generators=generators).numpy()
