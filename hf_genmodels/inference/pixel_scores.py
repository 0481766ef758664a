"""Measure a language model that draws: likelihood, drawn pictures, captions, enlarged pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerFast

from hf_genmodels.config.commands import refuse_options
from hf_genmodels.config.evaluate import NOT_OF_PIXELS, EvaluateOptions
from hf_genmodels.config.judge import JudgeOptions
from hf_genmodels.data.image_set import ImageSet
from hf_genmodels.data.images import ImageData, load_image_data
from hf_genmodels.data.packing import IGNORED, collate
from hf_genmodels.data.pixel_documents import EncodedPictures, TaskDocuments, prompts_of
from hf_genmodels.errors import UserError, require_extra
from hf_genmodels.hub.card_evaluation import show_evaluation
from hf_genmodels.hub.loading import (
    load_image_processor_if_any,
    load_model,
    load_tokenizer,
    place_model,
)
from hf_genmodels.inference import image_pictures as pictures
from hf_genmodels.inference import image_scores as scores_of_images
from hf_genmodels.inference.image_measuring import captions, compare, copies, describe, prepare
from hf_genmodels.inference.image_sampling import spread_places
from hf_genmodels.inference.pixel_drawing import PixelDrawer
from hf_genmodels.inference.text_to_text import moving
from hf_genmodels.metrics.bleu.corpus_bleu import corpus_bleu
from hf_genmodels.metrics.bootstrap import bootstrap_scores, interval
from hf_genmodels.metrics.image_features import extract
from hf_genmodels.metrics.psnr.peak_signal import psnr
from hf_genmodels.metrics.ssim.structural_similarity import ssim
from hf_genmodels.models.image_processing_pixels import GenPixelsImageProcessor
from hf_genmodels.models.pixel_sampling import PixelSettings
from hf_genmodels.tokenization.pixels import PixelVocabulary

MOST_DESCRIBED = MOST_ENLARGED = 500
LONGEST_PROMPT = 64
ENLARGED_LABELS = {"psnr": "PSNR", "ssim": "SSIM"}


@dataclass
class HeldOut:
    """Pictures that the model is measured on, as it sees them.

    Attributes:
        images: The pictures.
        encoded: Their colours and the tokens of their prompts.
        prompts: Their prompts.
        vocabulary: Tokens of pictures.
    """

    images: ImageSet
    encoded: EncodedPictures
    prompts: list[list[str]]
    vocabulary: PixelVocabulary


def evaluate(options: EvaluateOptions) -> dict[str, Any]:
    """Measure a model, and write results.json and pictures into the folder `report` beside it.

    Likelihood, captions and enlarged pictures are measured on held-out images (where there are none, on
    all that were given), drawn pictures as those of a generator of images: against the training images.

    Args:
        options: The model, the real images and how to measure.

    Returns:
        `bits_per_dimension` with its interval; the scores of `image_scores.evaluate`; `captions` and
        `super_resolution`, if the model was trained for them.

    Raises:
        UserError: If the model, the images or the judge cannot be used, or do not fit together.
    """
    refuse_options(options, NOT_OF_PIXELS, "a language model that draws")
    scores_of_images.check_judge(options.judge)
    model: Any = place_model(load_model(options.model), options.device, int8=options.int8)
    tokenizer = load_tokenizer(options.model)
    processor: Any = load_image_processor_if_any(options.model)
    size, channels = processor.image_sizes[0], processor.num_channels
    config = scores_of_images.image_options(options, size, channels)
    data = load_image_data(config)
    settings = PixelSettings(
        options.temperature, options.top_k, options.top_p, options.guidance_scale
    )
    drawer = PixelDrawer(model, tokenizer, processor, data, settings)
    held_out = held_out_pictures(data, tokenizer, processor)
    results: dict[str, Any] = {
        "num_pictures": len(held_out.images),
        **likelihood(model, held_out, channels, options),
    }
    if model.config.caption_token_id is not None and held_out.encoded.prompts is not None:
        results["captions"] = caption_scores(drawer, held_out)
    if len(processor.image_sizes) > 1:
        results["super_resolution"] = enlarged_scores(drawer, held_out)
    results |= _drawn_scores(options, data, drawer, config)
    folder = scores_of_images.report_folder(options.model)
    scores_of_images.write_report(folder, results)
    show_evaluation(
        folder.parent,
        [*_own_rows(results), *scores_of_images.comparison(results)],
        results["pictures"],
        scores_of_images.measured_on(results),
    )
    return results


def held_out_pictures(
    data: ImageData, tokenizer: PreTrainedTokenizerFast, processor: GenPixelsImageProcessor
) -> HeldOut:
    """Return the held-out pictures, or where there are none the training ones."""
    images = data.validation if data.validation is not None else data.train
    encoded = EncodedPictures.of(images, data.label_names, processor, tokenizer, LONGEST_PROMPT)
    vocabulary = PixelVocabulary.of(tokenizer, len(processor.image_sizes), len(processor.palette))
    return HeldOut(images, encoded, prompts_of(images, data.label_names), vocabulary)


@torch.inference_mode()
def likelihood(
    model: Any, held_out: HeldOut, channels: int, options: EvaluateOptions
) -> dict[str, float]:
    """Return the bits of a value of a pixel, given its prompt, with the interval over pictures.

    They are those of the colours of the palette, exactly as the model predicts them: what the palette
    loses of a picture is not counted.
    """
    documents = TaskDocuments(held_out.encoded, held_out.vocabulary, "draw")
    sums: list[float] = []
    with tqdm(total=len(documents), unit=" pictures", desc="Likelihood", disable=None) as bar:
        for start in range(0, len(documents), options.batch_size):
            keys = range(start, min(start + options.batch_size, len(documents)))
            batch = collate(documents.__getitems__(keys))
            ids, labels = (batch[name].to(model.device) for name in ("input_ids", "labels"))
            if ids.shape[1] > model.config.max_position_embeddings:
                raise UserError("The prompts of these images are longer than the model reads.")
            logits = model(ids, use_cache=False).logits[:, :-1].float()
            losses = torch.nn.functional.cross_entropy(
                logits.transpose(1, 2), labels[:, 1:], ignore_index=IGNORED, reduction="none"
            )
            sums += losses.double().sum(dim=1).tolist()
            bar.update(len(keys))
    pixels = len(held_out.encoded.colours[0][0]) * channels
    bits = np.array(sums)[:, None] / math.log(2) / pixels
    return _mean("bits_per_dimension", bits[:, 0], options.seed)


def caption_scores(drawer: PixelDrawer, held_out: HeldOut) -> dict[str, Any]:
    """Return how often the model writes one of a picture's prompts, and BLEU against them."""
    require_extra("sacrebleu", "metrics")
    chosen = spread_places(held_out.images, min(len(held_out.images), MOST_DESCRIBED))
    with tqdm(total=len(chosen), unit=" pictures", desc="Captions", disable=None) as bar:
        written = drawer.described(held_out.encoded.colours[0][chosen], moving(bar))
    own = [held_out.prompts[place] for place in chosen.tolist()]
    right = [text in texts for text, texts in zip(written, own, strict=True)]
    found = corpus_bleu(written, own)
    return {
        "num_pictures": len(chosen),
        **_mean("exact_match", np.array(right, np.float64), 0),
        "bleu": found["bleu"],
        "bleu_signature": found["signature"],
        "examples": [
            {"written": text, "prompt": texts[0]}
            for text, texts in list(zip(written, own, strict=True))[:10]
        ],
    }


def enlarged_scores(drawer: PixelDrawer, held_out: HeldOut) -> dict[str, Any]:
    """Return how near pictures that are drawn of small ones are to the real ones, beside bicubic ones.

    Bicubic interpolation is given the small picture itself, the model its colours in the palette.
    """
    chosen = np.sort(spread_places(held_out.images, min(len(held_out.images), MOST_ENLARGED)))
    real = np.asarray(held_out.images.images[chosen])
    small_size = drawer.processor.image_sizes[1]
    with tqdm(total=len(chosen), unit=" pictures", desc="Enlarging", disable=None) as bar:
        drawn = drawer.enlarged(held_out.encoded.colours[1][chosen], moving(bar))
    bicubic = _resized(_resized(real, small_size), real.shape[-1])
    results: dict[str, Any] = {"num_pictures": len(chosen), "from": small_size}
    for kind, images in (("", drawn), ("bicubic_", bicubic)):
        for name, measure in (("psnr", psnr), ("ssim", ssim)):
            found = measure(images, real)
            results |= _mean(f"{kind}{name}", found[np.isfinite(found)], 0)
    return results


def table(results: dict[str, Any]) -> str:
    """Return the results of `evaluate` as lines for a terminal."""
    bits, low, high = (results[f"bits_per_dimension{end}"] for end in ("", "_low", "_high"))
    lines = [
        f"bits per dimension   {bits:.4f} (95 %: {low:.4f} to {high:.4f}), "
        f"{results['num_pictures']:,} pictures"
    ]
    if found := results.get("captions"):
        lines.append(
            f"captions             {found['exact_match']:.3f} exact (95 %: "
            f"{found['exact_match_low']:.3f} to {found['exact_match_high']:.3f}), BLEU "
            f"{found['bleu']:.1f}, {found['num_pictures']:,} pictures"
        )
    if found := results.get("super_resolution"):
        shown = "; ".join(
            f"{label} {found[name]:.3f} (bicubic: {found[f'bicubic_{name}']:.3f})"
            for name, label in ENLARGED_LABELS.items()
        )
        lines.append(f"enlarged             {shown}, {found['num_pictures']:,} pictures")
    return "\n".join([*lines, scores_of_images.table(results)])


def _drawn_scores(
    options: EvaluateOptions, data: ImageData, drawer: PixelDrawer, config: Any
) -> dict[str, Any]:
    """Compare drawn pictures with the training images, as those of a generator of images."""
    steps = scores_of_images.judge_steps(options.model)
    measuring = prepare(options, data, drawer, config, JudgeOptions(max_steps=steps))
    number = options.num_samples
    chosen = spread_places(data.train, number)
    with tqdm(total=number, unit=" pictures", desc="Drawing", disable=None) as bar:
        conditions = drawer.conditions(data.train, chosen)
        drawn = drawer.draw(conditions, drawer.noise(number, options.seed), 1.0, moving(bar))
    generated = extract(measuring.extractor, drawn)
    rows = np.linspace(0, number - 1, min(pictures.MOST_ROWS, number)).astype(np.int64)
    folder = scores_of_images.report_folder(options.model)
    files = [
        pictures.draw_samples(drawer, data, folder, options.seed),
        pictures.draw_nearest(
            drawn[rows],
            generated.take(rows),
            data,
            measuring.places,
            measuring.real,
            pictures.row_labels(drawer, data, chosen[rows]),
            folder,
        ),
    ]
    return {
        "num_samples": number,
        "num_real": len(measuring.reference),
        "features": describe(measuring),
        **compare(measuring, generated, chosen),
        **copies(measuring, generated),
        **captions(measuring),
        "pictures": [file.name for file in files],
    }


def _own_rows(results: dict[str, Any]) -> list[tuple[str, str, str, int]]:
    """Return what only such models are measured by, as rows of the card."""
    number = results["num_pictures"]
    rows = [("bits per dimension", f"{results['bits_per_dimension']:.3f}", "-", number)]
    if found := results.get("captions"):
        number = found["num_pictures"]
        rows.append(("captions, exact match", f"{found['exact_match']:.3f}", "-", number))
        rows.append(("captions, BLEU", f"{found['bleu']:.1f}", "-", number))
    if found := results.get("super_resolution"):
        for name, label in ENLARGED_LABELS.items():
            number = found["num_pictures"]
            title = f"{label} of enlarged pictures (bicubic: {found[f'bicubic_{name}']:.3f})"
            rows.append((title, f"{found[name]:.3f}", "-", number))
    return rows


def _mean(name: str, values: np.ndarray, seed: int) -> dict[str, float]:
    """Return a mean over pictures and its 95 % interval."""
    draws = bootstrap_scores(
        np.stack([values, np.ones_like(values)], axis=1), lambda s: s[0] / s[1], seed=seed
    )
    ends = interval(draws)
    return {name: float(values.mean()), f"{name}_low": ends.low, f"{name}_high": ends.high}


def _resized(images: np.ndarray, size: int) -> np.ndarray:
    """Return pictures (N, C, H, W) in another size, bicubic."""
    planes = [
        np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.BICUBIC))
        for plane in images.reshape(-1, *images.shape[2:])
    ]
    return np.stack(planes).reshape(*images.shape[:2], size, size)
