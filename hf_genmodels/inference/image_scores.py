"""Measure a generator of images or clips against real ones."""

from __future__ import annotations

import json
import logging
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from hf_genmodels.config.commands import refuse_options
from hf_genmodels.config.evaluate import NOT_OF_GANS, EvaluateOptions
from hf_genmodels.config.images import ImageDataConfig
from hf_genmodels.config.judge import JudgeOptions
from hf_genmodels.config.parser import read_yaml
from hf_genmodels.config.run import CONFIG_NAME
from hf_genmodels.data.images import load_image_data
from hf_genmodels.engine.report import write_results
from hf_genmodels.errors import UserError
from hf_genmodels.hub.card_evaluation import show_evaluation
from hf_genmodels.hub.loading import (
    is_checkpoint,
    load_model,
    load_tokenizer_if_any,
    place_model,
    run_folder,
)
from hf_genmodels.hub.model_files import HUB_ID
from hf_genmodels.inference import image_pictures as pictures
from hf_genmodels.inference import video_pictures
from hf_genmodels.inference.image_measuring import (
    Measuring,
    captions,
    compare,
    copies,
    describe,
    prepare,
    sweep,
)
from hf_genmodels.inference.image_sampling import ImageDrawer, spread_places
from hf_genmodels.inference.text_to_text import moving
from hf_genmodels.inference.video_measuring import factor_scores, frame_scores, motion_scores
from hf_genmodels.metrics.image_features import Features, extract

logger = logging.getLogger("hf_genmodels")

RESULTS, EVALUATION = "results.json", "evaluation"
LABELS = {
    "fid": "Fréchet distance",
    "fvd": "Fréchet video distance",
    "frame_fid": "Fréchet distance of frames",
    "kid": "kernel distance",
    "inception_score": "Inception score",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "accuracy": "accuracy",
    "class_fid": "Fréchet distance within classes",
    "diversity": "diversity within classes",
    "motion_change": "change between frames",
    "motion_jerk": "jerk between frames",
    "motion_frozen": "share of frozen clips",
}


def evaluate(options: EvaluateOptions) -> dict[str, Any]:
    """Measure a generator, and write results.json and pictures into the folder `report` beside it.

    Args:
        options: The generator, the real images and how to measure.

    Returns:
        Scores, each named with the number of images behind it; under `real` the same scores of one half
        of the real images against the other, the limit; and what is known by class, about copies, about
        captions and about truncation. `..._low` and `..._high` are 95 % confidence intervals. Of clips
        also what is known about single frames, about motion, and about what they show and where it goes.

    Raises:
        UserError: If the model, the images or the judge cannot be used, or do not fit together.
    """
    refuse_options(options, NOT_OF_GANS, "a generator of images")
    check_judge(options.judge)
    model = place_model(load_model(options.model), options.device)
    shape = {name: getattr(model.config, name) for name in ("image_size", "num_channels")}
    config = image_options(options, **shape, num_frames=model.config.num_frames)
    kind = model.config.conditioning
    of_sprites = kind if config.sprite_size and kind != "none" else None
    data = load_image_data(config, conditioning=of_sprites)
    drawer = ImageDrawer(model, load_tokenizer_if_any(options.model), data)
    measuring = prepare(
        options, data, drawer, config, JudgeOptions(max_steps=judge_steps(options.model))
    )
    number = options.num_samples
    chosen = spread_places(data.train, number)
    noise = drawer.noise(number, options.seed)
    with tqdm(total=number, unit=" images", desc="Drawing", disable=None) as bar:
        conditions = drawer.conditions(data.train, chosen)
        drawn = drawer.draw(conditions, noise, options.truncation, moving(bar))
    generated = extract(measuring.extractor, drawn)
    results = {
        "unit": "clips" if model.config.is_video else "images",
        "num_samples": number,
        "num_real": len(measuring.reference),
        "features": describe(measuring),
        "truncation": options.truncation,
        **compare(measuring, generated, chosen),
        **copies(measuring, generated),
        **captions(measuring),
    }
    if model.config.is_video:
        _add(results, factor_scores(measuring, generated, chosen))
        _add(results, frame_scores(measuring, config, drawn))
        _add(results, motion_scores(measuring, drawn))
    if options.sweep:
        results["by_truncation"] = sweep(measuring)
    folder = report_folder(options.model)
    if model.config.is_video:
        results["pictures"] = video_pictures.draw_pictures(measuring, drawn, generated, folder)
    else:
        results["pictures"] = draw_pictures(measuring, drawn, generated, chosen, folder)
    write_report(folder, results)
    rows, how = comparison(results), measured_on(results)
    show_evaluation(folder.parent, rows, results["pictures"], how, results["unit"])
    return results


def image_options(
    options: EvaluateOptions, image_size: int, num_channels: int, num_frames: int = 1
) -> ImageDataConfig:
    """Return where the real images are from and how they are read.

    By default they are those that the model was trained on, if its folder tells; and columns and the way
    of resizing are those of its training in any case.

    Args:
        options: What the user asked for.
        image_size: Height and width of the model's images.
        num_channels: Their channels.
        num_frames: Frames of its clips; 1 of a model of images.

    Raises:
        UserError: If the options cannot work.
    """
    trained_with = _options_of_run(options.model)
    trained_with |= (
        trained_with.get("pixels") or {}
    )  # a section of its own in runs of language models
    own = {
        field.name: trained_with[field.name]
        for field in fields(ImageDataConfig)
        if field.name in trained_with
    }
    source = {
        "dataset_name": options.dataset_name,
        "dataset_config_name": options.dataset_config_name,
        "train_file": options.file,
    }
    is_own = all(own.get(name) == value for name, value in source.items())
    if (options.file or options.dataset_name) and not is_own:
        own = {name: value for name, value in own.items() if name not in _SOURCES} | source
    elif not own:
        raise UserError("There is nothing to measure on. Give the real images with --file.")
    given = {name: getattr(options, name) for name in _COLUMNS if getattr(options, name)}
    if set(given) & _CONDITIONS:
        own = {name: value for name, value in own.items() if name not in _CONDITIONS}
    own |= {"image_size": image_size, "num_channels": num_channels, "num_frames": num_frames}
    own |= given
    try:
        return ImageDataConfig(**own)
    except UserError as error:
        raise UserError(str(error).replace("--train_file", "--file")) from error


def draw_pictures(
    measuring: Measuring,
    drawn: np.ndarray,
    generated: Features,
    chosen: np.ndarray,
    folder: Path,
) -> list[str]:
    """Draw all pictures of an evaluation; return the names of their files."""
    drawer, data, seed = measuring.drawer, measuring.data, measuring.options.seed
    rows = np.linspace(0, len(drawn) - 1, min(pictures.MOST_ROWS, len(drawn))).astype(np.int64)
    files = [
        pictures.draw_samples(drawer, data, folder, seed),
        pictures.draw_nearest(
            drawn[rows],
            generated.take(rows),
            data,
            measuring.places,
            measuring.real,
            pictures.row_labels(drawer, data, chosen[rows]),
            folder,
        ),
        pictures.draw_interpolation(drawer, data, folder, seed),
        pictures.draw_truncation(drawer, data, folder, seed),
    ]
    return [file.name for file in files]


def report_folder(model: str) -> Path:
    """Return where the results of a model are written: into its own folder, or into `report` here."""
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return Path("report")
    return (run_folder(folder) if is_checkpoint(folder) else folder) / "report"


def write_report(folder: Path, results: dict[str, Any]) -> Path:
    """Write results.json; what a run wrote into it stays beside them."""
    file = folder / RESULTS
    known: dict[str, Any] = {}
    if file.is_file():
        try:
            known = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            logger.warning("%s was damaged and is written anew.", file)
    return write_results(folder, {**known, EVALUATION: results})


def table(results: dict[str, Any]) -> str:
    """Return the results of `evaluate` as lines for a terminal."""
    number = results["num_samples"]
    lines = [f"{'':<32} {'generated':>10} {'real':>10}"]
    lines += [
        f"{label:<32} {value:>10} {limit:>10}"
        + ("" if samples == number else f"  ({samples:,} {results.get('unit', 'images')})")
        for label, value, limit, samples in comparison(results)
    ]
    for split, found in results.get("retrieval", {}).items():
        lines.append(
            f"{f'own caption of {split}':<32} {_figure(found['precision']):>10} "
            f"{_figure(found['real_precision']):>10}  (among {found['candidates']}, "
            f"{found['images']:,} images; a guess: {found['chance']:.3f})"
        )
    if "copy_ratio" in results:
        lines.append(
            f"{'distance to training images':<32} {results['copy_ratio']:>10.2f} {1:>10.2f}"
        )
        lines.append(
            f"{'nearer than 99 % of real images':<32} {results['copy_share']:>10.3f} {0.01:>10.3f}"
        )
    for truncation, scores in results.get("by_truncation", {}).items():
        values = "  ".join(
            f"{LABELS[name.rpartition('_')[0]]} {_figure(value)}" for name, value in scores.items()
        )
        lines.append(f"truncation {truncation:<5} {values}")
    lines += [f"left out: {name}: {why}" for name, why in results.get("left_out", {}).items()]
    lines.append(measured_on(results))
    lines.append("real: one half of the real images against the other, the limit")
    return "\n".join(lines)


def check_judge(judge: str | None) -> None:
    """Refuse what can be neither a folder, a file nor the name of a model on the hub.

    Raises:
        UserError: If it is neither.
    """
    if judge is None or Path(judge).expanduser().exists() or HUB_ID.fullmatch(judge):
        return
    raise UserError(
        f"--judge {judge}: there is no such folder or file. Give the folder of a judge (genmodels train "
        "judge), a vision model, or a file of Inception's weights; or leave it out."
    )


def _add(results: dict[str, Any], more: dict[str, Any]) -> None:
    """Add results to others; what is known of real images, by class, or left out lies a level deeper."""
    for name, value in more.items():
        if isinstance(value, dict):
            results.setdefault(name, {}).update(value)
        else:
            results[name] = value


def _options_of_run(model: str) -> dict[str, Any]:
    """Return the options of the run that trained a model; nothing if its folder does not tell."""
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return {}
    file = (run_folder(folder) if is_checkpoint(folder) else folder) / CONFIG_NAME
    return read_yaml(file) if file.is_file() else {}


def comparison(results: dict[str, Any]) -> list[tuple[str, str, str, int]]:
    """Return what was measured, its value, that of real images and the number of generated ones."""
    rows = []
    factors = {
        name: f"accuracy of {name.removesuffix('_accuracy')}"
        for name in (key.rpartition("_")[0] for key in results)
        if name.endswith("_accuracy")
    }
    for name, label in {**LABELS, **factors}.items():
        value, samples = _score(results, name)
        if value is not None:
            limit, _ = _score(results["real"], name)
            rows.append((label, _figure(value), _figure(limit), samples))
    return rows


def measured_on(results: dict[str, Any]) -> str:
    """Return in words how many images were compared by what."""
    return (
        f"measured on {results['num_samples']:,} generated and {results['num_real']:,} real "
        f"{results.get('unit', 'images')} by "
        f"{results['features']}"
    )


def judge_steps(model: str) -> int:
    """Return how long the judge of the run that trained a model was trained."""
    options = _options_of_run(model).get("judge") or {}
    return int(options.get("max_steps") or JudgeOptions().max_steps)


def _score(scores: dict[str, Any], name: str) -> tuple[float | None, int]:
    """Return a score and the number of images behind it."""
    for key, value in scores.items():
        base, _, samples = key.rpartition("_")
        if base == name and samples.isdigit():
            return value, int(samples)
    return None, 0


def _figure(value: float | None) -> str:
    """Return a figure with as many places as mean something."""
    if value is None:
        return "-"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"


_SOURCES = {
    "dataset_name",
    "dataset_config_name",
    "train_file",
    "validation_file",
    "max_train_images",
}
_COLUMNS = ("image_column", "label_column", "text_column", "attribute_columns", "sprite_size")
_CONDITIONS = {"label_column", "text_column", "extra_text_columns", "attribute_columns"}
