"""The graphs that a model is written as, and how each is compared with the model.

Shapes are written with these letters: B batch, T new tokens, P past tokens, S tokens of the source,
K key-value heads, C channels of a head, D hidden_size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hf_genmodels.hub import export_report
from hf_genmodels.hub.probe import probe_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BATCH, LENGTH, SOURCE_LENGTH = "batch", "length", "source_length"
PAST_LENGTH, TOTAL_LENGTH = "past_length", "total_length"
# Rows, tokens of the first step and of the second, which uses what the first one remembered.
TEXT_SHAPES = ((1, 1, 1), (2, 5, 3), (3, 8, 1))
SOURCE_ROWS = (slice(0, 1), slice(2, 5), slice(0, export_report.NUM_SOURCES))
IMAGE_COUNTS = (1, 2, 5)
# A step of an 8-bit image is 8e-3 wide in [-1, 1].
IMAGE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Part:
    """One graph.

    Attributes:
        name: Name of its file.
        module: What computes it.
        inputs: Names of its inputs -> example tensors and the names of their axes that may grow.
        outputs: Names of its outputs.
        num_named: How many of the inputs are arguments of their own; the others are `*arguments`.
    """

    name: str
    module: nn.Module
    inputs: Mapping[str, tuple[torch.Tensor, dict[int, str]]]
    outputs: Sequence[str]
    num_named: int

    @property
    def arguments(self) -> tuple[torch.Tensor, ...]:
        """The example tensors in order, none of them twice: one tensor is traced as one input."""
        return tuple(tensor.clone() for tensor, _ in self.inputs.values())

    @property
    def dynamic_shapes(self) -> tuple[Any, ...]:
        """Their axes that may grow, nested as the arguments of the module are."""
        axes = [names for _, names in self.inputs.values()]
        named, more = axes[: self.num_named], axes[self.num_named :]
        return (*named, tuple(more)) if more else tuple(named)


@dataclass(frozen=True)
class Parts:
    """The graphs of a model.

    Attributes:
        parts: The graphs.
        compare: From the folder and the sessions by name to the largest difference, and what was
            compared, in words. It raises `UserError` if the difference is too large.
    """

    parts: Sequence[Part]
    compare: Callable[[Path, Mapping[str, Any]], tuple[float, str]]


def parts_of(model: PreTrainedModel) -> Parts:
    """Return the graphs of a model in eval mode, on the CPU.

    Args:
        model: A language model, an encoder-decoder Transformer or a generator of ours.
    """
    makers = {"gen_gpt": _language_model, "gen_seq2seq": _seq2seq, "gen_gan": _generator}
    return makers[model.config.model_type](model)


class _LanguageModelStep(nn.Module):
    """Logits of some tokens behind those whose keys and values are given."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        *past: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Return logits (B, T, V), then keys and values (B, K, P + T, C) of each layer."""
        from transformers import DynamicCache

        cache: Any = DynamicCache(config=self.model.config)
        for index, (keys, values) in enumerate(zip(past[::2], past[1::2], strict=True)):
            cache.update(keys, values, index)
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        )
        present = [one for layer in cache.layers for one in (layer.keys, layer.values)]
        return (output.logits, *present)


class _Encoder(nn.Module):
    """States of the source."""

    def __init__(self, model: Any):
        super().__init__()
        self.encoder = model.get_encoder()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return states (B, S, D)."""
        states: torch.Tensor = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask
        ).last_hidden_state
        return states


class _Decoder(nn.Module):
    """Logits of a target, all of whose tokens are given."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: torch.Tensor,
        encoder_attention_mask: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
    ) -> torch.Tensor:
        """Return logits (B, T, V)."""
        logits: torch.Tensor = self.model(
            attention_mask=encoder_attention_mask,
            decoder_input_ids=input_ids,
            encoder_outputs=(encoder_hidden_states,),
            use_cache=False,
        ).logits
        return logits


class _Images(nn.Module):
    """Images of noise and of what they shall show."""

    def __init__(self, generator: Any, conditions: Sequence[str]):
        super().__init__()
        self.generator, self.conditions = generator, tuple(conditions)

    def forward(self, latents: torch.Tensor, *conditions: torch.Tensor) -> torch.Tensor:
        """Return images (B, channels, S, S) in [-1, 1]."""
        named = dict(zip(self.conditions, conditions, strict=True))
        images: torch.Tensor = self.generator(latents, **named).images
        return images


def _language_model(model: Any) -> Parts:
    config = model.config
    names = [
        f"{index}.{what}" for index in range(config.num_hidden_layers) for what in ("key", "value")
    ]
    ids = torch.zeros(2, 3, dtype=torch.int64)
    mask = torch.ones(2, 5, dtype=torch.int64)
    past = torch.zeros(2, config.num_key_value_heads, 2, config.head_dim)
    inputs = {
        "input_ids": (ids, {0: BATCH, 1: LENGTH}),
        "attention_mask": (mask, {0: BATCH, 1: TOTAL_LENGTH}),
        "position_ids": (ids, {0: BATCH, 1: LENGTH}),
    }
    memory = {f"past_key_values.{name}": (past, {0: BATCH, 2: PAST_LENGTH}) for name in names}
    outputs = ["logits", *(f"present.{name}" for name in names)]
    part = Part("model", _LanguageModelStep(model), inputs | memory, outputs, len(inputs))

    def compare(folder: Path, sessions: Mapping[str, Any]) -> tuple[float, str]:
        (found, expected) = _texts_of(model, sessions["model"])
        difference = export_report.check_difference(folder, found, expected)
        return difference, (
            f"onnxruntime computes it for {len(TEXT_SHAPES)} shapes of batches, each in two steps "
            f"with the keys and values of the first; largest difference of {expected.numel():,} "
            f"logits to the source: {difference:.3g}"
        )

    return Parts([part], compare)


def _texts_of(model: Any, session: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits (N, V) of a graph that works in two steps, and of the model that works in one."""
    config = model.config
    generator = torch.Generator().manual_seed(0)
    found, expected = [], []
    for rows, first, second in TEXT_SHAPES:
        total = min(first + second, config.max_position_embeddings)
        first = min(first, total)
        ids = torch.randint(config.vocab_size, (rows, total), generator=generator)
        mask = torch.ones_like(ids)
        mask[1:, : first // 2] = 0  # padding on the left, as batches of prompts have it
        places = (mask.cumsum(1) - 1).clamp(min=0)
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask, position_ids=places).logits
        expected.append(logits[mask.bool()])
        present = [
            torch.zeros(rows, config.num_key_value_heads, 0, config.head_dim)
            for _ in range(2 * config.num_hidden_layers)
        ]
        steps = []
        for start, end in ((0, first), (first, total)):
            if start < end:
                given = (ids[:, start:end], mask[:, :end], places[:, start:end], *present)
                step, *present = _run(session, given)
                steps.append(step)
        found.append(torch.cat(steps, 1)[mask.bool()])
    return torch.cat(found), torch.cat(expected)


def _seq2seq(model: Any) -> Parts:
    config = model.config
    ids = torch.zeros(2, 3, dtype=torch.int64)
    source = torch.ones(2, 5, dtype=torch.int64)
    states = torch.zeros(2, 5, config.hidden_size)
    source_axes = {0: BATCH, 1: SOURCE_LENGTH}
    encoder = Part(
        "encoder",
        _Encoder(model),
        {"input_ids": (source, source_axes), "attention_mask": (source, source_axes)},
        ["last_hidden_state"],
        2,
    )
    decoder = Part(
        "decoder",
        _Decoder(model),
        {
            "input_ids": (ids, {0: BATCH, 1: LENGTH}),
            "encoder_attention_mask": (source, source_axes),
            "encoder_hidden_states": (states, source_axes),
        },
        ["logits"],
        3,
    )

    def compare(folder: Path, sessions: Mapping[str, Any]) -> tuple[float, str]:
        found, expected = [], []
        for rows in SOURCE_ROWS:
            sources = export_report.fixed_sources(model)[rows]
            batch = export_report.padded(sources, config.pad_token_id)
            mask = batch["attention_mask"]
            targets = batch["input_ids"].clamp(max=config.vocab_size - 1)
            with torch.no_grad():
                logits = model(**batch, decoder_input_ids=targets).logits
            (states,) = _run(sessions["encoder"], (batch["input_ids"], mask))
            (computed,) = _run(sessions["decoder"], (targets, mask, states))
            expected.append(logits[mask.bool()])
            found.append(computed[mask.bool()])
        difference = export_report.check_difference(folder, torch.cat(found), torch.cat(expected))
        return difference, (
            f"onnxruntime computes it for {len(SOURCE_ROWS)} shapes of batches; largest difference of "
            f"{torch.cat(expected).numel():,} logits to the source: {difference:.3g}"
        )

    return Parts([encoder, decoder], compare)


def _generator(model: Any) -> Parts:
    examples = dict(probe_of(model).inputs)
    with_length = ("input_ids", "attention_mask")
    inputs = {
        name: (tensor, {0: BATCH, 1: LENGTH} if name in with_length else {0: BATCH})
        for name, tensor in examples.items()
    }
    conditions = [name for name in examples if name != "latents"]
    part = Part("generator", _Images(model, conditions), inputs, ["images"], 1)

    def compare(folder: Path, sessions: Mapping[str, Any]) -> tuple[float, str]:
        found, expected = [], []
        generator = torch.Generator().manual_seed(1)
        for count in IMAGE_COUNTS:
            given = {name: tensor[torch.arange(count) % 2] for name, tensor in examples.items()}
            given["latents"] = torch.randn(given["latents"].shape, generator=generator)
            for name in set(with_length) & set(given):
                given[name] = given[name][:, : given[name].shape[1] - count + 1]
            with torch.no_grad():
                expected.append(model(**given).images)
            found += _run(sessions["generator"], tuple(given.values()))
        difference = export_report.check_difference(
            folder, torch.cat(found), torch.cat(expected), IMAGE_TOLERANCE, "images"
        )
        return difference, (
            f"onnxruntime draws {', '.join(map(str, IMAGE_COUNTS))} images at once; largest difference "
            f"of {torch.cat(expected).numel():,} numbers of them, from -1 to 1, to the source: "
            f"{difference:.3g}"
        )

    return Parts([part], compare)


def _run(session: Any, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the outputs of a graph."""
    names = [one.name for one in session.get_inputs()]
    given = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
    return [torch.from_numpy(one) for one in session.run(None, given)]
