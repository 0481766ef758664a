"""What the cards of one kind of model have of their own: template, words and facts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hf_genmodels.auto import FAMILIES, image_processor_for, task_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

COLORS = {1: "grey", 3: "RGB", 4: "RGBA"}  # by number of channels
_LANGUAGE_MODEL_LIMITS = (
    "A small language model writes text that resembles its training data and has no notion of truth: "
    "names, numbers and facts in it are inventions. It repeats what the data say, prejudices included, "
    "and may repeat passages word for word. It was not tuned to follow instructions or to be safe. "
    "Do not let it decide about people, and have a person read what it writes before it is used."
)
_SEQ2SEQ_LIMITS = (
    "A small model knows the words and the subjects of its training data and no others. What it makes of "
    "a text may read well and still leave something out, add something or say the opposite; names, "
    "numbers and negations suffer most. Other kinds of text, longer texts and other languages are "
    "beyond it. It repeats what the data say, prejudices included. Do not let it decide about people, and "
    "have a person who reads both sides check what it writes before it is used."
)
_GAN_LIMITS = (
    "A small generator draws what its training images show and nothing else, at their size. Images may be "
    "distorted, and rare or unusual things are drawn badly or not at all. It repeats what the data show, "
    "one-sidedness included, and an image may come close to a training image. Do not pass its images off as "
    "photographs or as the work of a person, and do not use them as evidence of anything."
)
_PIXELS_LIMITS = (
    "A small language model of pixels draws what its training pictures show and nothing else, at their size and "
    "in its palette. A prompt that it has not learned is drawn as something that it has. It repeats what the data "
    "show, one-sidedness included, and a picture may come close to a training picture. What it adds to a half-given "
    "or a small picture is invented, and what it writes about a picture may be wrong. Do not use either as evidence "
    "of anything, and do not pass its pictures off as photographs or as the work of a person."
)
# What a model does, by the Hub's name of the task; the Hub files all other text-to-text models under
# text-generation.
_DOES = {"translation": "translates", "summarization": "summarises text"}
_SEQ2SEQ_FACTS = {
    "encoder_layers": "encoder layers",
    "decoder_layers": "decoder layers",
    "refinement_layers": "refinement layers",
    "hidden_size": "width",
    "d_model": "width",
    "num_attention_heads": "heads",
    "encoder_attention_heads": "heads",
    "cell": "cell",
    "attention": "attention",
    "cross_attention": "cross-attention",
}
_SEQ2SEQ_SIZES = {
    "max_position_embeddings": "longest text",
    "vocab_size": "vocabulary",
    "source_vocab_size": "source vocabulary",
    "decoder_vocab_size": "target vocabulary",
}


@dataclass(frozen=True)
class CardKind:
    """What the cards of one kind of model have of their own.

    Attributes:
        template: File in `model_cards/templates`.
        task: What the Hub calls what the model does, unless the card says so.
        tags: Tags for the Hub.
        limits: What such a model cannot do and should not be used for.
        prompt: Text in the usage example, where the card has none.
        describe: From the task, the source language and the target language to what a model is.
        facts: From the configuration to facts about its shape.
        verb: What `genmodels generate` does with it.
    """

    template: str
    task: str
    tags: tuple[str, ...]
    limits: str
    prompt: str
    describe: Callable[[str, str, str], str]
    facts: Callable[[PreTrainedConfig], dict[str, Any]]
    verb: str = "writes"


def kind_of(config: PreTrainedConfig) -> CardKind:
    """Return the kind of a model."""
    family = FAMILIES.get(config.model_type)
    if family is not None and family.kind == "gan":
        return GANS[task_of(config).name]
    if family is not None and image_processor_for(config):
        return PIXELS
    return SEQ2SEQ if config.is_encoder_decoder else LANGUAGE_MODEL


def _describe_seq2seq(task: str, source: str, target: str) -> str:
    does = _DOES.get(task, "makes one text of another")
    if source and target and source != target:
        does += f" from `{source}` to `{target}`"
    return f"A compact encoder-decoder that {does}"


def _language_model_facts(config: PreTrainedConfig) -> dict[str, Any]:
    return {
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "heads": config.num_attention_heads,
        "context": f"{config.max_position_embeddings:,} tokens",
        "vocabulary": f"{config.vocab_size:,} tokens",
    }


def _pixel_facts(config: Any) -> dict[str, Any]:
    sizes = " and ".join(f"{size} x {size}" for size in config.image_sizes)
    facts = {"pictures": sizes, "palette": f"{config.palette_size} colours"}
    return _language_model_facts(config) | facts


def _seq2seq_facts(config: PreTrainedConfig) -> dict[str, Any]:
    values = config.to_dict()
    if not values.get("refinement_decoder"):
        values.pop("refinement_layers", None)
    facts = {label: values[name] for name, label in _SEQ2SEQ_FACTS.items() if values.get(name)}
    sizes = {label: values[name] for name, label in _SEQ2SEQ_SIZES.items() if values.get(name)}
    return facts | {label: f"{size:,} tokens" for label, size in sizes.items()}


def _gan_facts(config: Any) -> dict[str, Any]:
    counted = {"class": "classes", "attributes": "attributes"}.get(config.conditioning)
    size = f"{config.image_size} x {config.image_size}, {COLORS[config.num_channels]}"
    if config.is_video:
        size = f"{config.num_frames} frames of {size}"
    facts = {
        "architecture": config.architecture,
        "clips" if config.is_video else "images": size,
        "noise": f"{config.noise_dim} numbers",
    }
    return facts | ({counted: config.num_labels} if counted else {})


LANGUAGE_MODEL = CardKind(
    template="language_model.md.j2",
    task="text-generation",
    tags=(),
    limits=_LANGUAGE_MODEL_LIMITS,
    prompt="Once upon a time",
    describe=lambda *_: "A compact language model that continues a given text",
    facts=_language_model_facts,
)
PIXELS = CardKind(
    template="pixels.md.j2",
    task="text-to-image",
    tags=("image-generation",),
    limits=_PIXELS_LIMITS,
    prompt="a red heart",
    describe=lambda *_: "A compact language model of pixels that draws pictures of texts",
    facts=_pixel_facts,
    verb="draws",
)
SEQ2SEQ = CardKind(
    template="seq2seq.md.j2",
    task="text-generation",
    tags=("text2text-generation",),
    limits=_SEQ2SEQ_LIMITS,
    prompt="In the beginning",
    describe=_describe_seq2seq,
    facts=_seq2seq_facts,
)
GAN = CardKind(
    template="gan.md.j2",
    task="unconditional-image-generation",
    tags=("gan", "image-generation"),
    limits=_GAN_LIMITS,
    prompt="",
    describe=lambda *_: "A compact generative adversarial network that draws images",
    facts=_gan_facts,
    verb="draws",
)
GAN_OF_TEXTS = replace(
    GAN,
    task="text-to-image",
    prompt="a red heart",
    describe=lambda *_: "A compact generative adversarial network that draws images of texts",
)
GAN_OF_CLIPS = replace(
    GAN,
    tags=("gan", "video-generation"),
    limits=_GAN_LIMITS.replace("Images", "Clips")
    .replace("images", "clips")
    .replace("an image", "a clip"),
    describe=lambda *_: "A compact generative adversarial network that draws short clips",
)
# By the names of their tasks.
GANS = {
    "class-to-image": GAN,
    "text-to-image": GAN_OF_TEXTS,
    "class-to-video": GAN_OF_CLIPS,
    "text-to-video": replace(
        GAN_OF_CLIPS,
        task="text-to-video",
        prompt="sneaker moving left",
        describe=lambda *_: (
            "A compact generative adversarial network that draws short clips of texts"
        ),
    ),
}
