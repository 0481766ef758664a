"""Model cards: what a reader must know about a model, and the metadata that the Hub reads."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_genmodels.auto import FAMILIES
from hf_genmodels.hub import card_images
from hf_genmodels.hub import card_text as text
from hf_genmodels.hub.card_images import image_values, picture
from hf_genmodels.hub.card_kinds import CardKind, kind_of
from hf_genmodels.hub.card_metadata import metadata_of, metric_name, shown
from hf_genmodels.hub.citations import citations_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

TEMPLATES = "templates"
LOSS_CURVE = "report/loss_curve.png"
ATTENTION_MAP = "report/attention.png"
PICTURES = (LOSS_CURVE, ATTENTION_MAP, *card_images.PICTURES.values())
LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "huggingface_hub")
PERCENTAGES = ("bleu", "chrf")  # given with one decimal
VERBS = {"translation": "translate", "summarization": "summarise"}
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
        num_sentences: How many sentences were scored, where these count and not tokens.
        low: Lower end of the 95 % confidence interval.
        high: Its upper end.
        signature: How it was measured, in sacrebleu's words.
        num_images: How many images were drawn, where images count.
        features: Network whose features were compared, in words.
        real: The same figure of real images against other real ones.
    """

    type: str
    value: float
    dataset: str
    split: str = "validation"
    num_tokens: int | None = None
    num_sentences: int | None = None
    low: float | None = None
    high: float | None = None
    signature: str = ""
    num_images: int | None = None
    features: str = ""
    real: float | None = None


@dataclass(frozen=True)
class Sample:
    """A text that the model wrote.

    Attributes:
        prompt: What it was given.
        text: What it wrote after that.
    """

    prompt: str
    text: str


@dataclass(frozen=True)
class Translation:
    """What a sequence-to-sequence model made of a text.

    Attributes:
        source: What it was given.
        reference: What stands in the data.
        output: What it wrote.
    """

    source: str
    reference: str
    output: str


@dataclass
class CardData:
    """What a model card says.

    Attributes:
        name: Name of the model, without its owner.
        model_id: `owner/name` on the hub, or the folder; shown in the usage example. `None`: `name`.
        summary: A sentence or two about the model. Empty: made from the configuration.
        task: What it does as the Hub calls it: `translation`, `summarization`, `text-generation`. `None`:
            `text-generation`.
        source_language: Code of the language that it reads, if it is a translator.
        target_language: Code of the language that it translates into.
        license: Licence of the weights as the Hub writes it, such as `apache-2.0`. `None`: not said.
        language: Codes of its languages, such as `["en"]`. A translator's two need not be repeated.
        base_model: The model that it was fine-tuned from.
        datasets: Names of the hub datasets it was trained on.
        training_data: Facts about the training data, such as `{"documents": 1200}`.
        credit: Who made the training data and under which licence, in Markdown.
        training: Settings and circumstances of the training.
        metrics: Measured figures.
        samples: What a language model writes.
        translations: What a sequence-to-sequence model makes of texts, beside what stands in the data.
        health: What the numbers of a training say about its health, in words.
        prompt: Text or label in the usage example. Empty: the first sample's, translation's or label, or a
            neutral one.
        limits: What the model cannot do and should not be used for. Empty: what holds for its kind.
        num_parameters: Number of parameters, tied ones once.
        versions: Library -> version. `None`: those of this process.
        tags: More tags for the Hub.
    """

    name: str
    model_id: str | None = None
    summary: str = ""
    task: str | None = None
    source_language: str | None = None
    target_language: str | None = None
    license: str | None = None
    language: Sequence[str] = ()
    base_model: str | None = None
    datasets: Sequence[str] = ()
    training_data: Mapping[str, Any] = field(default_factory=dict)
    credit: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Sequence[Metric] = ()
    samples: Sequence[Sample] = ()
    translations: Sequence[Translation] = ()
    health: str = ""
    prompt: str = ""
    limits: str = ""
    num_parameters: int | None = None
    versions: Mapping[str, str] | None = None
    tags: Sequence[str] = ()


def render_card(
    card: CardData,
    config: PreTrainedConfig,
    *,
    folder: str | Path | None = None,
    companions: Sequence[str] = (),
) -> str:
    """Write a model card in Markdown, with the Hub's metadata on top. Nothing is asked of the network.

    Args:
        card: What to say.
        config: The model's configuration.
        folder: Where the card will stand; pictures of `report/` are shown if they are there.
        companions: Subfolders that hold models which belong to this one.

    Returns:
        The text of README.md.
    """
    kind = kind_of(config)
    ours = config.model_type in FAMILIES
    rendered = (
        _templates()
        .get_template(kind.template)
        .render(
            card_data=metadata_of(card, config).to_yaml(),
            name=text.inline(card.name) or "model",
            model_id=text.string(text.code(card.model_id or card.name)),
            summary=card.summary.strip() or _summary(card, kind),
            facts=text.rows({"parameters": card.num_parameters} | kind.facts(config)),
            task=_task(card, kind),
            verb=VERBS.get(_task(card, kind), "write"),
            custom_code=ours,
            own_target_tokenizer=_has_two_vocabularies(config),
            prompt=text.string(_prompt(card) or kind.prompt),
            base_model=text.inline(shown(card.base_model)),
            training_data=text.rows(_training_data(card)),
            training=text.rows(card.training),
            loss_curve=picture(folder, LOSS_CURVE),
            attention_map=picture(folder, ATTENTION_MAP),
            metrics=[_metric_row(metric) for metric in card.metrics],
            has_intervals=any(metric.low is not None for metric in card.metrics),
            signatures=_signatures(card),
            samples=[text.block(sample.prompt + sample.text) for sample in card.samples],
            translations=[
                (text.cell(one.source), text.cell(one.reference), text.cell(one.output))
                for one in card.translations
            ],
            limits=card.limits.strip() or kind.limits,
            licence=_licence(card, ours),
            versions=_versions(card),
            verb_of_commands=kind.verb,
            credit=card.credit.strip(),
            citations=citations_of(config, str(card.training.get("method", ""))),
            health=text.paragraph(card.health),
            has_discriminator="discriminator" in companions,
            **image_values(card, config, _prompt(card) or kind.prompt, folder),
        )
    )
    return rendered.rstrip() + "\n"


@cache
def _templates() -> Any:
    """Return the environment that compiles each template once."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FunctionLoader(_template), undefined=jinja2.StrictUndefined
    )


def _template(name: str) -> str:
    file = resources.files("hf_genmodels.model_cards").joinpath(TEMPLATES).joinpath(name)
    return file.read_text(encoding="utf-8")


def _has_two_vocabularies(config: PreTrainedConfig) -> bool:
    """Tell whether the targets have a vocabulary of their own, in our words or in Marian's."""
    values = config.to_dict()
    separate = values.get("share_encoder_decoder_embeddings") is False
    return separate or values.get("source_vocab_size") is not None


def _prompt(card: CardData) -> str:
    given = [*(one.prompt for one in card.samples), *(one.source for one in card.translations)]
    return card.prompt or next(iter(given), "")


def _task(card: CardData, kind: CardKind) -> str:
    return card.task or kind.task


def _summary(card: CardData, kind: CardKind) -> str:
    how = (
        f"fine-tuned from {text.inline(shown(card.base_model))}"
        if card.base_model
        else "trained from scratch"
    )
    if not card.training:
        how = "in the format of Hugging Face transformers"
    languages = (text.code(code or "") for code in (card.source_language, card.target_language))
    return f"{kind.describe(_task(card, kind), *languages)}, {how}. Made with hf_genmodels."


def _training_data(card: CardData) -> dict[str, Any]:
    facts = dict(card.training_data)
    if card.datasets and "datasets" not in facts:
        facts["datasets"] = ", ".join(shown(name) for name in card.datasets)
    return facts


def _metric_row(metric: Metric) -> dict[str, str]:
    tokens = f"{metric.num_tokens:,}" if metric.num_tokens is not None else "not counted"
    if metric.num_tokens is None and metric.num_sentences is not None:
        tokens = f"{metric.num_sentences:,} texts"
    size = f"{tokens} tokens" if metric.num_tokens is not None else tokens
    if metric.num_sentences is not None:
        size = f"{metric.num_sentences:,} sentences"
    form = ".1f" if metric.type in PERCENTAGES else ".4g"
    has_interval = metric.low is not None and metric.high is not None
    return {
        "real": f"{metric.real:{form}}" if metric.real is not None else "not measured",
        "features": text.inline(metric.features) or "not said",
        "name": text.inline(metric_name(metric)),
        "value": f"{metric.value:{form}}",
        "interval": f"{metric.low:{form}} to {metric.high:{form}}" if has_interval else "not known",
        "data": text.inline(f"{metric.dataset} ({metric.split})"),
        "tokens": tokens,
        "size": size,
    }


def _signatures(card: CardData) -> list[tuple[str, str]]:
    found = {
        (text.paragraph(metric_name(one)), text.code(one.signature)): None
        for one in card.metrics
        if one.signature.strip()
    }
    return list(found)


def _licence(card: CardData, ours: bool) -> str:
    code = f" {CODE_LICENCE}" if ours else ""
    if card.license:
        return f"The weights are licensed under `{text.code(card.license)}`.{code}"
    return f"No licence was stated for the weights; ask who published them.{code}"


def versions_here() -> dict[str, str]:
    """Return the versions of this process: of Python, of the libraries and of the package."""
    versions = {"Python": platform.python_version()}
    versions |= {name: metadata.version(name) for name in LIBRARIES}
    return versions | {"hf_genmodels": metadata.version("hf_genmodels")}


def _versions(card: CardData) -> str:
    versions = versions_here() if card.versions is None else card.versions
    words = (f"{name} {version}" for name, version in versions.items())
    return text.paragraph(", ".join(filter(str.strip, words)))
