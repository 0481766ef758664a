"""What the card of a model that draws images shows besides the words that all cards have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_genmodels.auto import FAMILIES, image_processor_for, task_of
from hf_genmodels.hub import card_text as text

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from hf_genmodels.hub.card import CardData

# What they are called in the template -> their place in the folder.
PICTURES = {
    "grid": "report/grid.png",
    "real": "report/real.png",
    "clips": "report/clips.webp",
    "progress": "report/progress.webp",
    "curves": "report/curves.png",
    "interpolation": "report/interpolation.png",
    "truncation": "report/truncation.png",
    "neighbours": "report/neighbours.png",
    "enlarged": "report/super_resolution.png",
}
LISTED_LABELS = 60


def image_values(
    card: CardData,
    config: PreTrainedConfig,
    prompt: str,
    folder: str | Path | None,
) -> dict[str, Any]:
    """Return the values of the template; none for a model that draws no images.

    Args:
        card: What the card says.
        config: The model's configuration.
        prompt: What the usage example draws, if it is a text.
        folder: Where the card will stand.
    """
    family = FAMILIES.get(config.model_type)
    if family is not None and image_processor_for(config):
        return _values_of_pixels(config, folder)
    if family is None or family.kind != "gan":
        return {}
    conditioning = config.to_dict()["conditioning"]
    labels = _labels(config) if conditioning in ("class", "attributes") else []
    pictures = {name: picture(folder, place) for name, place in PICTURES.items()}
    return {
        "pictures": pictures,
        "is_video": task_of(config).name.endswith("-video"),
        "has_pictures": any(
            place for name, place in pictures.items() if name not in ("grid", "clips")
        ),
        "has_real": any(metric.real is not None for metric in card.metrics),
        "has_features": any(metric.features for metric in card.metrics),
        "pipeline": task_of(config).name,
        "drawn": _drawn(conditioning, prompt if prompt and not labels else "", labels, card.prompt),
        "labels": _listed(labels),
        "is_attributes": conditioning == "attributes",
    }


def _values_of_pixels(config: PreTrainedConfig, folder: str | Path | None) -> dict[str, Any]:
    """Return the values of the template of a language model that draws."""
    values = config.to_dict()
    return {
        "pictures": {name: picture(folder, place) for name, place in PICTURES.items()},
        "enlarges": len(values["image_sizes"]) > 1,
        "describes": values["caption_token_id"] is not None,
    }


def picture(folder: str | Path | None, name: str) -> str:
    """Return the name of a picture, or nothing if it is not there."""
    return name if folder is not None and (Path(folder) / name).is_file() else ""


def _labels(config: Any) -> list[str]:
    return [str(name) for _, name in sorted(config.id2label.items())]


def _drawn(conditioning: str, prompt: str, labels: list[str], label: str) -> str:
    """Return what the usage example draws, as Python."""
    if conditioning == "none":
        return ""
    literal = f'"{text.string((label or labels[0]) if labels else prompt)}"'
    return f"[{literal}]" if conditioning == "attributes" else literal


def _listed(labels: list[str]) -> str:
    names = [f"`{text.code(name)}`" for name in labels[:LISTED_LABELS]]
    more = f" and {len(labels) - LISTED_LABELS} more" if len(labels) > LISTED_LABELS else ""
    return ", ".join(names) + more
