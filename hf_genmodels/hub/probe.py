"""What a folder is asked to compute when it is verified, here and in a clean process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hf_genmodels.auto import FAMILIES, resolve, task_of, tasks_of
from hf_genmodels.hub.clean_process import given, written

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

PROMPT = "Once upon a time"
DRAWN_PROMPT = "a red heart"
MAX_CHECKED_TOKENS = 32
NEW_TOKENS = 8
NUM_IMAGES = 2
PICTURE = {"size": 12, "seed": 0}  # of random colours


@dataclass(frozen=True)
class Call:
    """A pipeline that must run.

    Attributes:
        task: Its name.
        prompt: What it is given; `{"size": ..., "seed": ...}` is a picture of random colours.
        options: Options of the call.
        is_exact: Whether it draws nothing at random, so that its result is compared too.
    """

    task: str
    prompt: Any = PROMPT
    options: Mapping[str, Any] = field(default_factory=lambda: {"max_new_tokens": NEW_TOKENS})
    is_exact: bool = False


@dataclass(frozen=True)
class Probe:
    """What is computed.

    Attributes:
        auto_classes: Auto classes that must load the folder, the one with the head last.
        inputs: Arguments of the model's forward pass.
        output: The field of its output that is compared to the last bit.
        calls: Pipelines that must run.
    """

    auto_classes: list[str]
    inputs: Mapping[str, torch.Tensor]
    output: str = "logits"
    calls: tuple[Call, ...] = ()


def probe_of(model: PreTrainedModel) -> Probe:
    """Return what a model is asked to compute; it depends on its configuration only.

    Args:
        model: The model.
    """
    config: Any = model.config
    family = FAMILIES.get(config.model_type)
    if family is None:
        # Of transformers' own pipelines, none makes one text of another.
        if config.is_encoder_decoder:
            return Probe(["AutoModelForSeq2SeqLM"], _texts(model))
        classes = ["AutoModel", "AutoModelForCausalLM"]
        return Probe(classes, _texts(model), calls=(Call("text-generation"),))
    classes, task = list(family.models), task_of(config).name
    if family.kind == "gan":
        count = "num_videos" if config.is_video else "num_images"
        return Probe(
            classes,
            _noise(model),
            output="images",
            calls=(Call(task, _drawn(config), {count: NUM_IMAGES, "seed": 0}, True),),
        )
    if family.kind == "judge":
        return Probe(classes, _pictures(config))
    if family.kind == "discriminator":
        return Probe(classes, _texts(model))
    if config.to_dict().get("image_sizes"):
        return Probe(classes, _texts(model), calls=_drawing_calls(config))
    is_exact = family.kind == "seq2seq"
    return Probe(classes, _texts(model), calls=(Call(task, is_exact=is_exact),))


def _drawing_calls(config: Any) -> tuple[Call, ...]:
    """Return calls of all pipelines of a language model that draws."""
    drawn = {"num_images": NUM_IMAGES, "seed": 0}
    known: dict[str, tuple[Any, Mapping[str, Any]]] = {
        "text-to-image": (None, drawn),
        "image-completion": (PICTURE, drawn),
        "image-super-resolution": (PICTURE, drawn),
        "image-to-caption": (PICTURE, {"max_new_tokens": NEW_TOKENS}),
    }
    names = [task.name for task in tasks_of(config) if task.name in known]
    return tuple(Call(name, *known[name], is_exact=True) for name in names)


def output_of(model: PreTrainedModel, probe: Probe) -> torch.Tensor:
    """Return what a model in eval mode computes."""
    import torch

    with torch.no_grad():
        result: torch.Tensor = model(**probe.inputs)[probe.output]
    return result


def written_by(pipe: Any, call: Call) -> list[str]:
    """Return what a pipeline makes of the prompt: texts, or digests of images."""
    return [written(one) for one in pipe(given(call.prompt), **call.options)]


def pipeline_of(task: str, model: PreTrainedModel, **parts: Any) -> Any:
    """Return this package's own pipeline for a model, on the CPU.

    Args:
        task: What the pipeline does.
        model: The model.
        **parts: `tokenizer`, `target_tokenizer` and `image_processor`, those that it has.
    """
    pipelines = {task.name: task.pipeline for task in tasks_of(model.config)}
    pipeline_class: Any = resolve(pipelines[task])
    there = {name: part for name, part in parts.items() if part is not None}
    return pipeline_class(model=model, device="cpu", **there)


def _texts(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return ids of tokens, two rows of them; they depend on the model's sizes only."""
    values = model.config.to_dict()
    size = values.get("source_vocab_size") or model.config.vocab_size
    inputs = {"input_ids": _fixed_ids(model, size, seed=0)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = _fixed_ids(model, model.config.vocab_size, seed=1)
    return inputs


def _fixed_ids(model: PreTrainedModel, vocab_size: int, seed: int) -> torch.Tensor:
    import torch

    from hf_genmodels.models.decoding import max_positions

    length = min(MAX_CHECKED_TOKENS, max_positions(model) or MAX_CHECKED_TOKENS)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(vocab_size, (2, length), generator=generator)


def _noise(model: Any) -> dict[str, torch.Tensor]:
    """Return noise and conditions of a generator, two of each."""
    import torch

    generator = torch.Generator().manual_seed(0)
    config, values = model.config, model.config.to_dict()
    inputs = {"latents": torch.randn(2, config.noise_dim, generator=generator)}
    if values["conditioning"] == "class":
        inputs["class_labels"] = torch.tensor([0, config.num_labels - 1])
    elif values["conditioning"] == "attributes":
        inputs["class_labels"] = torch.rand(2, config.num_labels, generator=generator).round()
    elif values["conditioning"] == "text":
        length = min(MAX_CHECKED_TOKENS, values["max_position_embeddings"])
        size = model.condition.text.encoder.config.vocab_size  # a frozen one has its own
        inputs["input_ids"] = torch.randint(size, (2, length), generator=generator)
        inputs["attention_mask"] = torch.ones(2, length, dtype=torch.int64)
        inputs["attention_mask"][1, length // 2 :] = 0
    return inputs


def _drawn(config: Any) -> Any:
    """Return what the pipeline of a generator is given."""
    first = {"none": None, "class": 0, "attributes": [0]}
    return DRAWN_PROMPT if config.conditioning == "text" else first[config.conditioning]


def _pictures(config: Any) -> dict[str, torch.Tensor]:
    import torch

    frames = (config.num_frames,) if config.is_video else ()
    shape = (2, *frames, config.num_channels, config.image_size, config.image_size)
    return {"pixel_values": torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1}
