"""Model cards: what a reader must know about a model, and the metadata that the Hub reads."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_genmodels.auto import FAMILIES

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

TEMPLATE = "templates/language_model.md.j2"
LOSS_CURVE = "report/loss_curve.png"
LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "huggingface_hub")
LIMITS = (
    "A small language model writes text that resembles its training data and has no notion of truth: "
    "names, numbers and facts in it are inventions. It repeats what the data say, prejudices included, "
    "and may repeat passages word for word. It was not tuned to follow instructions or to be safe. "
    "Do not let it decide about people, and have a person read what it writes before it is used."
)
CODE_LICENCE = "The Python files beside the weights are licensed under Apache-2.0."


@dataclass(frozen=True)
class Metric:
    """A measured figure.

    Attributes:
        type: Name of the metric, such as `perplexity`, `loss` or `bits_per_byte`.
        value: The figure.
        dataset: What it was measured on, in words: a file or a hub name.
        split: Which part of it.
        num_tokens: How many tokens were scored.
    """

    type: str
    value: float
    dataset: str
    split: str = "validation"
    num_tokens: int | None = None


@dataclass(frozen=True)
class Sample:
    """A text that the model wrote.

    Attributes:
        prompt: What it was given.
        text: What it wrote after that.
    """

    prompt: str
    text: str


@dataclass
class CardData:
    """What a model card says.

    Attributes:
        name: Name of the model, without its owner.
        model_id: `owner/name` on the hub, or the folder; shown in the usage example. `None`: `name`.
        summary: A sentence or two about the model. Empty: made from the configuration.
        license: Licence of the weights as the Hub writes it, such as `apache-2.0`. `None`: not said.
        language: Codes of the languages it writes, such as `["en"]`.
        base_model: The model that it was fine-tuned from.
        datasets: Names of the hub datasets it was trained on.
        training_data: Facts about the training data, such as `{"documents": 1200}`.
        training: Settings and circumstances of the training.
        metrics: Measured figures.
        samples: What the model writes.
        prompt: Prompt in the usage example. Empty: the first sample's, or a neutral one.
        limits: What the model cannot do and should not be used for.
        num_parameters: Number of parameters, tied ones once.
        versions: Library -> version. `None`: those of this process.
        tags: More tags for the Hub.
    """

    name: str
    model_id: str | None = None
    summary: str = ""
    license: str | None = None
    language: Sequence[str] = ()
    base_model: str | None = None
    datasets: Sequence[str] = ()
    training_data: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Sequence[Metric] = ()
    samples: Sequence[Sample] = ()
    prompt: str = ""
    limits: str = LIMITS
    num_parameters: int | None = None
    versions: Mapping[str, str] | None = None
    tags: Sequence[str] = ()


def render_card(
    card: CardData, config: PreTrainedConfig, *, folder: str | Path | None = None
) -> str:
    """Write a model card in Markdown, with the Hub's metadata on top. Nothing is asked of the network.

    Args:
        card: What to say.
        config: The model's configuration.
        folder: Where the card will stand; `report/loss_curve.png` is shown if it is there.

    Returns:
        The text of README.md.
    """
    from huggingface_hub import ModelCard

    template = resources.files("hf_genmodels.model_cards").joinpath(TEMPLATE)
    has_curve = folder is not None and (Path(folder) / LOSS_CURVE).is_file()
    first_prompt = card.samples[0].prompt if card.samples else ""
    rendered = ModelCard.from_template(
        _metadata(card, config),
        template_str=template.read_text(encoding="utf-8"),
        name=_inline(card.name),
        model_id=_inline(card.model_id or card.name),
        summary=card.summary.strip() or _summary(card),
        facts=_rows(_facts(card, config)),
        custom_code=config.model_type in FAMILIES,
        prompt=_string(card.prompt or first_prompt or "Once upon a time"),
        base_model=_inline(_shown(card.base_model)),
        training_data=_rows(_training_data(card)),
        training=_rows(card.training),
        loss_curve=LOSS_CURVE if has_curve else "",
        metrics=[_metric_row(metric) for metric in card.metrics],
        samples=[_quote(sample) for sample in card.samples],
        limits=card.limits.strip() or LIMITS,
        licence=_licence(card, config),
        versions=_versions(card),
    )
    return str(rendered).rstrip() + "\n"


def _metadata(card: CardData, config: PreTrainedConfig) -> Any:
    """Return the card's metadata; what is not known is left out."""
    from huggingface_hub import EvalResult, ModelCardData

    ours = config.model_type in FAMILIES
    tags = ["hf_genmodels", config.model_type, *(["custom_code"] if ours else []), *card.tags]
    task = FAMILIES[config.model_type].task if ours else "text-generation"
    results = [
        EvalResult(
            task_type=task,
            dataset_type=re.sub(r"[^\w./-]+", "-", metric.dataset).strip("-") or "text",
            dataset_name=metric.dataset,
            dataset_split=metric.split,
            metric_type=metric.type,
            metric_name=_metric_name(metric),
            metric_value=metric.value,
        )
        for metric in card.metrics
    ]
    return ModelCardData(
        language=list(card.language) or None,
        license=card.license,
        library_name="transformers",
        pipeline_tag=task,
        tags=list(dict.fromkeys(tags)),
        datasets=[name for name in card.datasets if _is_on_hub(name)] or None,
        base_model=card.base_model if _is_on_hub(card.base_model) else None,
        model_name=card.name if results else None,
        eval_results=results or None,
    )


def _is_on_hub(name: str | None) -> bool:
    """Tell a name on the hub from a folder of this machine, which is nobody else's business."""
    return bool(name) and not Path(str(name)).is_absolute() and not Path(str(name)).exists()


def _shown(name: str | None) -> str:
    """Return a name on the hub as it is, and the last part of a folder's path."""
    return str(name) if _is_on_hub(name) else Path(name or "").name


def _summary(card: CardData) -> str:
    how = (
        f"fine-tuned from {_shown(card.base_model)}" if card.base_model else "trained from scratch"
    )
    if not card.training:
        how = "in the format of Hugging Face transformers"
    return f"A compact language model that continues a given text, {how}. Made with hf_genmodels."


def _facts(card: CardData, config: PreTrainedConfig) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if card.num_parameters:
        facts["parameters"] = card.num_parameters
    facts["layers"] = config.num_hidden_layers
    facts["width"] = config.hidden_size
    facts["heads"] = config.num_attention_heads
    facts["context"] = f"{config.max_position_embeddings:,} tokens"
    facts["vocabulary"] = f"{config.vocab_size:,} tokens"
    return facts


def _training_data(card: CardData) -> dict[str, Any]:
    facts = dict(card.training_data)
    if card.datasets and "datasets" not in facts:
        facts["datasets"] = ", ".join(_shown(name) for name in card.datasets)
    return facts


def _metric_name(metric: Metric) -> str:
    return metric.type.replace("_", " ")


def _metric_row(metric: Metric) -> dict[str, str]:
    return {
        "name": _metric_name(metric),
        "value": f"{metric.value:.4g}",
        "data": _inline(f"{metric.dataset} ({metric.split})"),
        "tokens": f"{metric.num_tokens:,}" if metric.num_tokens is not None else "not counted",
    }


def _licence(card: CardData, config: PreTrainedConfig) -> str:
    code = f" {CODE_LICENCE}" if config.model_type in FAMILIES else ""
    if card.license:
        return f"The weights are licensed under `{card.license}`.{code}"
    return f"No licence was stated for the weights; ask who published them.{code}"


def _versions(card: CardData) -> str:
    versions = card.versions
    if versions is None:
        versions = {"Python": platform.python_version()}
        versions |= {name: metadata.version(name) for name in LIBRARIES}
        versions["hf_genmodels"] = metadata.version("hf_genmodels")
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _rows(table: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the rows of a table that have a value."""
    return [
        (_inline(str(key)), _inline(f"{value:,}" if type(value) is int else str(value)))
        for key, value in table.items()
        if value is not None and value != ""
    ]


def _quote(sample: Sample) -> str:
    """Return a sample as a block of plain text, whatever it holds."""
    text = printable(sample.prompt + sample.text).strip("\n") or " "
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def printable(text: str) -> str:
    """Return text with control characters replaced, all but line ends and tabs."""
    return "".join(
        c if c in "\n\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def _inline(text: str) -> str:
    """Return text for one cell of a table."""
    return " ".join(printable(text).split()).replace("|", "\\|")


def _string(text: str) -> str:
    """Return text for the inside of a string literal in double quotes."""
    return printable(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
