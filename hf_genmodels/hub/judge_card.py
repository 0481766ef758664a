"""The model card of a judge of images."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCardData

from hf_genmodels.hub import card_text as text
from hf_genmodels.hub.folder import publish_folder
from hf_genmodels.metrics.judge_training import describe_accuracy
from hf_genmodels.models.configuration_judge import GenJudgeConfig
from hf_genmodels.models.modeling_judge import GenJudgeForImageClassification

_LEARNED = {
    "class": "It tells their classes apart: {names}.",
    "attributes": "It tells which attributes they have: {names}.",
    "rotation": "It learned by how many quarters images were turned, which needs no labels.",
    "matching": "It tells how well an image and a text go together.",
    "factors": "It tells of each clip: {names}.",
}
_MOST_NAMES = 20
_CARD = """\
---
{metadata}
---

# {name}

A judge of {medium}: a small network that was trained on real {medium}, {shape} with {channels}, so that
generated ones can be measured by what it sees in them. {learned}
Of what it was not trained on: {accuracy}.

It was trained on: {data}. Distances over its features can be compared with each other, not with distances over
another network's.

## How to use it

```python
import torch
from transformers import AutoModelForImageClassification

judge = AutoModelForImageClassification.from_pretrained("{place}", trust_remote_code=True)
pixels = torch.rand({numbers}) * 2 - 1  # {one}, from -1 to 1
print(judge.features(pixels).shape)
```

`trust_remote_code=True` runs the Python files beside the weights; read them first. Where the package
`hf_genmodels` is installed it is not needed, and this measures a generator by the judge:
`genmodels evaluate GAN --file {argument} --judge {name}`

## Limits

It knows the kind of {medium} that it was trained on and no other. It was made to compare collections of {medium}, not
to decide anything about a single one.
"""


def publish_judge(
    judge: GenJudgeForImageClassification,
    folder: str | Path,
    training_data: str,
    model_id: str | None = None,
) -> Path:
    """Write a judge in Hub format, with its card and its code; see `publish_folder`.

    Args:
        judge: The judge, on the CPU.
        folder: Where to publish; made if need be.
        training_data: What it was trained on, in words.
        model_id: Repository that it is meant for, if any.

    Returns:
        The folder.

    Raises:
        UserError: If the folder is a file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    staged = folder / ".README.md.tmp"
    card = judge_card(judge.config, folder.resolve().name, training_data, model_id)
    staged.write_text(card, "utf-8")
    staged.replace(folder / "README.md")
    return publish_folder(judge, None, folder)


def judge_card(
    config: GenJudgeConfig, name: str, training_data: str, model_id: str | None = None
) -> str:
    """Return the text of README.md.

    Args:
        config: Configuration of the judge.
        name: Name of the model.
        training_data: What it was trained on, in words.
        model_id: Repository that it is meant for, if any.
    """
    names = list((config.id2label or {}).values())
    listed = ", ".join(text.inline(str(label)) for label in names[:_MOST_NAMES])
    side = (config.image_size, config.image_size)
    numbers = (1, *([config.num_frames] if config.is_video else []), config.num_channels, *side)
    frames = f"{config.num_frames} frames of " if config.is_video else ""
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag="video-classification" if config.is_video else "image-classification",
        tags=["hf_genmodels", "custom_code", "image-quality"],
    )
    return _CARD.format(
        metadata=metadata.to_yaml(),
        name=text.inline(name),
        place=text.string(text.code(model_id or name)),
        medium="clips" if config.is_video else "images",
        one="a clip" if config.is_video else "an image",
        argument="CLIPS" if config.is_video else "IMAGES",
        shape=f"{frames}{config.image_size} x {config.image_size}",
        numbers=", ".join(map(str, numbers)),
        channels={1: "one grey channel", 3: "three colours", 4: "three colours and opacity"}[
            config.num_channels
        ],
        learned=_LEARNED[config.task].format(
            names=listed + (", ..." if len(names) > _MOST_NAMES else "")
        ),
        accuracy=describe_accuracy(config),
        data=text.inline(training_data),
    )
