"""Write a model folder in Hub format: whole, or not at all.

Files are written into a staging folder first, which is renamed to `READY` when it is complete. From
then on the new version is certain: its files are moved into place with config.json as the last one,
and where that is interrupted `finish_publishing` goes on. A folder with a config.json is complete.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from safetensors import SafetensorError

from hf_genmodels.auto import (
    FAMILIES,
    auto_map_for,
    code_files_for,
    companion_name,
    custom_pipelines_for,
    family_of,
    image_processor_for,
)
from hf_genmodels.errors import UserError
from hf_genmodels.hub.card import CardData, render_card
from hf_genmodels.hub.generation_defaults import generation_defaults
from hf_genmodels.reading import read_json
from hf_genmodels.tokenization.saving import save_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
    from transformers.image_processing_utils import BaseImageProcessor

STAGING = ".publishing"
READY = ".published"
LOCK = ".publish.lock"
WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")
IMAGE_PROCESSOR = "preprocessor_config.json"
# Classes of transformers that load it.
PROCESSOR_CLASSES = ("AutoImageProcessor", "AutoProcessor")
ROOT_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    IMAGE_PROCESSOR,
    "README.md",
)
TARGET_TOKENIZER = "target_tokenizer"
CARD_IMAGE = re.compile(
    r"!\[[^\]]*\]\(((?!https?:)[^)\s]+\.(?:png|jpe?g|gif|webp|svg))\)", re.IGNORECASE
)
RELATIVE_IMPORT = re.compile(r"^\s*from \.(\w+) import", re.MULTILINE)


def publish_folder(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast | None,
    folder: str | Path,
    card: CardData | None = None,
    *,
    state_dict: Mapping[str, torch.Tensor] | None = None,
    target_tokenizer: PreTrainedTokenizerFast | None = None,
    companions: Mapping[str, PreTrainedModel] | None = None,
    image_processor: BaseImageProcessor | None = None,
) -> Path:
    """Write everything that the Auto classes, a pipeline and a reader need.

    Weights (safetensors), configuration with `auto_map`, generation defaults, tokenizer, the model's
    code and the model card. Other files in the folder stay as they are. What was published there
    before stays whole until the new version is written completely.

    Args:
        model: The model itself, not wrapped by a distributed or compiled one.
        tokenizer: Its tokenizer, if it reads texts.
        folder: Where to publish; made if need be.
        card: What the model card says. `None`: a README.md that is there stays, else a card is
            written from the configuration alone.
        state_dict: Weights to write instead of the model's own, such as those gathered from several
            processes or averaged ones.
        target_tokenizer: Tokenizer of what the model writes, if that is not the one of what it
            reads; it goes into a folder of its own.
        companions: Subfolder -> a model that belongs to this one, such as a generator's
            discriminator; see `Family.companions`.
        image_processor: What prepares images for it, if it reads some.

    Returns:
        The folder.

    Raises:
        UserError: If the folder is a file.
        ValueError: If a model of this type has no such companion.
        OSError: If the disk is full or the folder is read-only; what was published before stays.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"'{folder}' is a file, and a folder was meant. Choose another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    finish_publishing(folder)
    staging = folder / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        _write_model(model, staging, state_dict)
        for name, companion in (companions or {}).items():
            _write_companion(model, name, companion, staging)
        if tokenizer is not None:
            save_tokenizer(tokenizer, staging)
        if target_tokenizer is not None:
            save_tokenizer(target_tokenizer, staging / TARGET_TOKENIZER)
        if image_processor is not None:
            save_image_processor(image_processor, model.config, staging)
        _write_card(model, folder, staging, card, companions or ())
        for file in _files_below(staging):
            file.chmod((staging / "config.json").stat().st_mode)
        _sync(*staging.rglob("*"), staging)
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        if type(error) is SafetensorError:  # its word for a full disk
            raise OSError(f"The weights could not be written: {error}") from error
        raise
    staging.rename(folder / READY)
    _sync(folder)
    finish_publishing(folder)
    return folder


def finish_publishing(folder: str | Path) -> bool:
    """Go on with a publication that was interrupted after everything had been written.

    Where another process is moving the files at this moment, it is waited for.

    Args:
        folder: A folder that `publish_folder` wrote, or any other.

    Returns:
        Whether there was anything to do.
    """
    folder = Path(folder)
    if not (folder / READY).is_dir():
        return False
    _check_no_links(folder)
    with FileLock(folder / LOCK):
        _move_into_place(folder / READY, folder)
    (folder / LOCK).unlink(missing_ok=True)
    return True


def _check_no_links(folder: Path) -> None:
    """Refuse to move files of, or into, a place that a link leads to."""
    ready = folder / READY
    places = [folder / path.relative_to(ready) for path in ready.rglob("*") if path.is_dir()]
    if link := next((path for path in (ready, *places) if path.is_symlink()), None):
        raise UserError(f"'{link}' is a link, and a folder was meant. Remove it.")


def _move_into_place(ready: Path, folder: Path) -> None:
    """Move files that were written completely, config.json last."""
    if not ready.is_dir():
        return
    names = [file.relative_to(ready).as_posix() for file in _files_below(ready)]
    if "config.json" in names:
        if (folder / "config.json").exists():
            for name in _weights_of(folder, names):
                if name not in names:
                    (folder / name).unlink()
            (folder / "config.json").unlink()
            _sync(folder)
        names.remove("config.json")
        names.append("config.json")
    for name in names:
        if name == "config.json":
            _sync(folder)
        (folder / name).parent.mkdir(exist_ok=True)
        (ready / name).replace(folder / name)
    _sync(folder)
    shutil.rmtree(ready)


def published_files(folder: str | Path) -> list[Path]:
    """Return the files of a folder that belong to the published model, relative to it, sorted.

    Nothing else (checkpoints, metrics, caches, files of the user) has a place on a hub.

    Args:
        folder: A published folder.
    """
    folder = Path(folder)
    names = {name for name in ROOT_FILES if (folder / name).is_file()}
    companions = [f"{name}/config.json" for name in companion_names(folder)]
    names |= {*companions, *_weights_of(folder, companions)}
    names |= {
        f"{TARGET_TOKENIZER}/{file.name}" for file in folder.glob(f"{TARGET_TOKENIZER}/*.json")
    }
    names |= set(_code_names(folder))
    readme = folder / "README.md"
    if readme.is_file():
        images = CARD_IMAGE.findall(readme.read_text(encoding="utf-8"))
        names |= {name for name in images if _is_inside(folder, name)}
    return sorted(Path(name) for name in names)


def companion_names(folder: str | Path) -> list[str]:
    """Return the subfolders of a published folder that hold models which belong to its own."""
    folder = Path(folder)
    if not (folder / "config.json").is_file():  # a training state
        return []
    config = read_json(folder / "config.json")
    family = FAMILIES.get(str(config.get("model_type")))
    names = family.companions if family else ()
    return [name for name in names if (folder / name / "config.json").is_file()]


def _weights_of(folder: Path, names: Iterable[str]) -> list[str]:
    """Return the weight files in a folder, and in those of its subfolders that names lead to."""
    places = {folder, *((folder / name).parent for name in names)}
    files = [file for place in places if place.is_dir() for file in place.iterdir()]
    return [f.relative_to(folder).as_posix() for f in files if WEIGHTS.fullmatch(f.name)]


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing its bars, which stand in the way of a command's own output."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars
    from transformers.utils import logging

    enabled = logging.is_progress_bar_enabled()
    hub_is_quiet = are_progress_bars_disabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()  # those of the hub's client too
        if hub_is_quiet:
            disable_progress_bars()


def _write_model(
    model: PreTrainedModel, staging: Path, state_dict: Mapping[str, torch.Tensor] | None
) -> None:
    """Write weights, configuration, generation settings and code."""
    weights = dict(state_dict) if state_dict is not None else None
    with no_progress_bars():
        model.save_pretrained(staging, state_dict=weights)
    if model.can_generate():
        generation_defaults(model).save_pretrained(staging)
    if model.config.model_type in FAMILIES:
        add_code(model, staging)


def add_code(model: PreTrainedModel, folder: Path) -> None:
    """Add a model's code to a folder that holds its config.json, and name the classes there.

    Args:
        model: A model of ours, in whose own folder its code shall stand.
        folder: The folder.
    """
    companion = companion_name(model)
    fields: dict[str, Any] = {"auto_map": auto_map_for(model.config, companion)}
    pipelines = custom_pipelines_for(model.config)
    if pipelines and companion is None:
        fields["custom_pipelines"] = pipelines
    _add_to_config(folder, fields)
    for file in code_files_for(model.config):
        shutil.copyfile(file, folder / file.name)


def save_image_processor(
    image_processor: BaseImageProcessor, config: PreTrainedConfig, folder: Path
) -> None:
    """Save what prepares images, so that `AutoImageProcessor` and `AutoProcessor` find its code beside the weights.

    Args:
        image_processor: The processor.
        config: Configuration of its model.
        folder: The folder.
    """
    image_processor.save_pretrained(folder)
    auto_map = dict.fromkeys(PROCESSOR_CLASSES, image_processor_for(config))
    # By this name `AutoProcessor` finds a class that is registered here, before the folder's code.
    fields = {"auto_map": auto_map, "processor_class": type(image_processor).__name__}
    _add_to_config(folder, fields, IMAGE_PROCESSOR)


def processor_classes(folder: Path) -> list[str]:
    """Return the classes of transformers that load what prepares images, as a published folder says.

    Args:
        folder: A folder with a preprocessor_config.json.
    """
    auto_map = read_json(folder / IMAGE_PROCESSOR).get("auto_map")
    named = list(auto_map) if isinstance(auto_map, dict) else []
    return [name for name in PROCESSOR_CLASSES if name in named] or [PROCESSOR_CLASSES[0]]


def _write_companion(
    model: PreTrainedModel, name: str, companion: PreTrainedModel, staging: Path
) -> None:
    """Write weights and configuration of a model that belongs to another one, and its code beside that one's."""
    if name not in family_of(model.config).companions:
        raise ValueError(f"A model of type {model.config.model_type!r} has no companion {name!r}.")
    with no_progress_bars():
        companion.save_pretrained(staging / name)
    _add_to_config(staging / name, {"auto_map": auto_map_for(companion.config, name)})
    for file in code_files_for(companion.config):
        shutil.copyfile(file, staging / file.name)


def _add_to_config(folder: Path, fields: Mapping[str, Any], name: str = "config.json") -> None:
    config_file = folder / name
    config = json.loads(config_file.read_text(encoding="utf-8")) | fields
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    config_file.write_text(text, encoding="utf-8")


def _write_card(
    model: PreTrainedModel,
    folder: Path,
    staging: Path,
    card: CardData | None,
    companions: Iterable[str],
) -> None:
    if card is None and (folder / "README.md").is_file():
        return
    card = card or CardData(name=folder.resolve().name)
    text = render_card(card, model.config, folder=folder, companions=list(companions))
    (staging / "README.md").write_text(text, encoding="utf-8")


def _code_names(folder: Path) -> list[str]:
    """Return the names of the Python files that a config.json names, and of those they import."""
    places = [folder, *(folder / name for name in companion_names(folder))]
    configs = [read_json(place / "config.json") for place in places]
    references = [str(value) for one in configs for value in one.get("auto_map", {}).values()]
    references += [str(task["impl"]) for task in configs[0].get("custom_pipelines", {}).values()]
    waiting = {name for ref in references if re.fullmatch(r"\w+", name := ref.split(".")[0])}
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        file = folder / f"{name}.py"
        if name not in found and file.is_file():
            found.add(name)
            waiting.update(RELATIVE_IMPORT.findall(file.read_text(encoding="utf-8")))
    return [f"{name}.py" for name in found]


def _files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _is_inside(folder: Path, name: str) -> bool:
    file = (folder / name).resolve()
    return file.is_file() and file.is_relative_to(folder.resolve())


def _sync(*paths: Path) -> None:
    """Make sure that files, or the entries of folders, are on the disk."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
