"""Translate many sequences with an encoder-decoder model, several times faster than `generate`.

Greedy search and beam search give the tokens and scores that `model.generate` gives. The time is
saved around them: sequences are sorted by length and batched by tokens, so that little is padding;
a sequence leaves its batch when it is finished; the source is kept once for all beams; and between
two steps of the model there is little else to do. Whatever else a `GenerationConfig` can ask for
goes to `model.generate`, in the same batches.

Shapes are written with these letters: B sequences of a batch, S source tokens, T target tokens.
"""

import copy
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel

from .search import SHARE_SOURCES, DecoderSteps, SearchSettings, beam_search, greedy_search

DEFAULT_NEW_TOKENS = 256
OVERLONG = ("truncate", "error")
# What the searches here follow, what only concerns drawing, and what has no effect at this value.
FOLLOWED = {
    "max_length", "max_new_tokens", "early_stopping", "num_beams", "length_penalty", "do_sample",
    "num_return_sequences", "pad_token_id", "bos_token_id", "eos_token_id",
    "decoder_start_token_id", "use_cache", "transformers_version",
}  # fmt: skip
OF_DRAWING = {
    "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff",
}  # fmt: skip
NEUTRAL_AT_ONE = {"repetition_penalty", "encoder_repetition_penalty", "num_beam_groups"}


@dataclass(frozen=True)
class Hypothesis:
    """What was decoded from a source.

    Attributes:
        ids: Tokens without start, end and padding.
        score: Sum of the log-probabilities of the tokens and the end, divided by their number to
            the power of `length_penalty`. `None` where none was asked for.
        attention: How much each token looked at each source token, (T, S), if it was asked for: of
            the decoder's last layer, the mean over its heads.
    """

    ids: list[int]
    score: float | None = None
    attention: torch.Tensor | None = None


def decode(
    model: PreTrainedModel,
    sources: Sequence[Sequence[int]],
    *,
    generation_config: GenerationConfig | None = None,
    batch_tokens: int = 8192,
    return_scores: bool = False,
    return_attention: bool = False,
    overlong: str = "truncate",
    progress: Callable[[int], None] | None = None,
    **settings: Any,
) -> list[list[Hypothesis]]:
    """Decode from every source.

    Args:
        model: Any encoder-decoder model of transformers, in eval mode.
        sources: Token ids of each source, as its tokenizer gives them (with the end token, if the
            model was trained with one).
        generation_config: Settings of the generation. `None`: the model's own.
        batch_tokens: Most source tokens of a batch, padding counted and times the beams.
        return_scores: Compute scores also where the search does not need them.
        return_attention: Compute the attention between each result and its source.
        overlong: What to do with a source that is longer than the model's positions: "truncate" it,
            keeping its last token, with a warning, or "error".
        progress: Is told how many sources are done, after each batch.
        **settings: Fields of `GenerationConfig`, such as `num_beams` or `max_new_tokens`, which
            come before `generation_config`. The default of `max_new_tokens` is the number of the
            model's positions, or 256.

    Returns:
        For each source, in the order given, `num_return_sequences` hypotheses, the best one first.

    Raises:
        ValueError: If a source is empty, or too long and `overlong="error"`, or settings are
            unknown or contradict each other.
    """
    config = resolve_settings(model, generation_config, settings)
    prepared = _check_sources(model, sources, overlong)
    run = _own_search if can_search(model, config) else _generate
    results: list[list[Hypothesis]] = [[] for _ in prepared]
    done = 0
    with torch.inference_mode():
        lengths = [len(source) for source in prepared]
        for batch in batches_by_tokens(lengths, batch_tokens // config.num_beams):
            ids = [prepared[index] for index in batch]
            found = run(model, ids, config, return_scores)
            if return_attention:
                found = _with_attention(model, ids, found, config)
            for index, hypotheses in zip(batch, found, strict=True):
                results[index] = hypotheses
            done += len(batch)
            if progress is not None:
                progress(done)
    return results


def resolve_settings(
    model: PreTrainedModel, given: GenerationConfig | None, settings: dict[str, Any]
) -> GenerationConfig:
    """Return all settings of a generation: `settings` before `given` before the model's own.

    Args:
        model: The model, for its own settings and its number of positions.
        given: Settings, or `None`.
        settings: Fields of `GenerationConfig` and their values.

    Returns:
        A new object whose number of beams, of results and of new tokens are set.

    Raises:
        ValueError: If a field is unknown, or values are impossible or contradict each other.
    """
    config = copy.deepcopy(given or model.generation_config)
    config.update(**model.generation_config.to_dict(), defaults_only=True)
    if settings.get("max_length") is not None and settings.get("max_new_tokens") is None:
        config.max_new_tokens = None
    unknown = config.update(**settings)
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))}: GenerationConfig has no such field.")
    positions = max_positions(model)
    if config.max_new_tokens is None:
        most = positions or DEFAULT_NEW_TOKENS
        config.max_new_tokens = most if config.max_length is None else config.max_length - 1
    config.max_length = None
    if positions is not None:
        config.max_new_tokens = min(config.max_new_tokens, positions)
    config.num_beams = config.num_beams or 1
    config.num_return_sequences = config.num_return_sequences or 1
    if config.max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={config.max_new_tokens} must be at least 1.")
    return config


def can_search(model: PreTrainedModel, config: GenerationConfig) -> bool:
    """Whether the searches here do all that the settings ask for.

    Args:
        model: The model; one that is decoded in another way is left to its `generate`.
        config: Settings, as `resolve_settings` returns them.
    """
    values = model.config.get_text_config(decoder=True).to_dict()
    if config.do_sample or values.get("refinement_decoder"):
        return False
    is_ours = model.config.model_type in SHARE_SOURCES
    if not is_ours and type(model).generate is not GenerationMixin.generate:
        return False
    if values["vocab_size"] < (1 + len(_eos_ids(config))) * config.num_beams:
        return False
    for name, value in config.to_diff_dict().items():
        is_neutral = not value or (name in NEUTRAL_AT_ONE and value == 1)
        if not is_neutral and not name.startswith("_") and name not in FOLLOWED | OF_DRAWING:
            return False
    return True


def batches_by_tokens(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Sort sequences by length and cut them into batches.

    Args:
        lengths: Length of each sequence.
        batch_tokens: Most tokens of a batch, padding counted; a longer sequence stands alone.

    Yields:
        Numbers of sequences, the longest ones first.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def max_positions(model: PreTrainedModel) -> int | None:
    """Return how many positions a model has, or `None` if it takes sequences of any length."""
    positions: int | None = getattr(model.config, "max_position_embeddings", None)
    return positions


def pad_batch(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> torch.Tensor:
    """Return sequences as one tensor (B, longest), padded on the right."""
    tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=pad_id).to(device)


def _check_sources(
    model: PreTrainedModel, sources: Sequence[Sequence[int]], overlong: str
) -> list[list[int]]:
    """Return the sources as lists that the model can read."""
    if overlong not in OVERLONG:
        raise ValueError(f"overlong={overlong!r} is unknown. Choose from: {', '.join(OVERLONG)}.")
    limit = max_positions(model)
    prepared, cut = [], 0
    for index, source in enumerate(sources):
        ids = [int(token) for token in source]
        if not ids:
            raise ValueError(f"Source {index} has no tokens: there is nothing to decode from.")
        if limit is not None and len(ids) > limit:
            if overlong == "error":
                raise ValueError(
                    f"Source {index} has {len(ids)} tokens, and the model reads {limit}. Shorten "
                    'it, or cut it with overlong="truncate".'
                )
            ids = [*ids[: limit - 1], ids[-1]]
            cut += 1
        prepared.append(ids)
    if cut:
        warnings.warn(
            f"{cut} of {len(prepared)} sources have more than the {limit} tokens that the model "
            'reads and are cut. overlong="error" refuses them instead.',
            stacklevel=3,
        )
    return prepared


def _own_search(
    model: PreTrainedModel, sources: list[list[int]], config: GenerationConfig, with_scores: bool
) -> list[list[Hypothesis]]:
    """Decode a batch with the searches of this package."""
    input_ids, attention_mask = _source_tensors(model, sources)
    length_penalty = config.length_penalty
    settings = SearchSettings(
        start_id=start_id(model, config),
        eos_ids=_eos_ids(config),
        max_new_tokens=config.max_new_tokens,
        num_beams=config.num_beams,
        length_penalty=1.0 if length_penalty is None else length_penalty,
        early_stopping=config.early_stopping or False,
        with_scores=with_scores,
    )
    search = greedy_search if config.num_beams == 1 else beam_search
    found = search(DecoderSteps(model, input_ids, attention_mask), settings)
    return [
        [Hypothesis(result.ids, None if result.cost is None else -result.cost) for result in best]
        for best in (results[: config.num_return_sequences] for results in found)
    ]


def _generate(
    model: PreTrainedModel, sources: list[list[int]], config: GenerationConfig, with_scores: bool
) -> list[list[Hypothesis]]:
    """Decode a batch with the model's `generate`."""
    input_ids, attention_mask = _source_tensors(model, sources)
    config = copy.deepcopy(config)
    config.return_dict_in_generate = True
    config.output_scores, config.output_logits = config.num_beams > 1, with_scores
    output = model.generate(input_ids, attention_mask=attention_mask, generation_config=config)
    texts = [_strip(ids, _eos_ids(config)) for ids in output.sequences[:, 1:].tolist()]
    scores: list[float | None] = [None] * len(texts)
    if config.num_beams > 1:
        scores = output.sequences_scores.tolist()
    elif with_scores:
        scores = _drawn_scores(output, texts, config)
    count = config.num_return_sequences
    hypotheses = [Hypothesis(ids, score) for ids, score in zip(texts, scores, strict=True)]
    return [hypotheses[first : first + count] for first in range(0, len(hypotheses), count)]


def _drawn_scores(output: Any, texts: list[list[int]], config: GenerationConfig) -> list[float]:
    """Return the scores of sequences that were not found by beams."""
    drawn = output.sequences[:, 1:]
    # A sequence that did not end has the full length, its last token being none of the ends.
    lengths = [min(len(ids) + 1, drawn.shape[1]) for ids in texts]
    totals = torch.zeros(len(drawn), device=drawn.device)
    for step, logits in enumerate(output.logits):
        log_probs = logits.float().log_softmax(dim=-1).gather(1, drawn[:, step : step + 1])
        runs = torch.tensor([step < length for length in lengths], device=drawn.device)
        totals += log_probs.squeeze(1).where(runs, 0.0)
    penalty = 1.0 if config.length_penalty is None else config.length_penalty
    return [total / length**penalty for total, length in zip(totals.tolist(), lengths, strict=True)]


def _with_attention(
    model: PreTrainedModel,
    sources: list[list[int]],
    found: list[list[Hypothesis]],
    config: GenerationConfig,
) -> list[list[Hypothesis]]:
    """Add the attention, from one pass over each result, given its source."""
    implementation = model.config._attn_implementation
    if implementation != "eager":
        model.set_attn_implementation("eager")
    try:
        return [
            _read_attention(model, source, hypotheses, config)
            for source, hypotheses in zip(sources, found, strict=True)
        ]
    finally:
        if implementation != "eager":
            model.set_attn_implementation(implementation)


def _read_attention(
    model: PreTrainedModel,
    source: list[int],
    hypotheses: list[Hypothesis],
    config: GenerationConfig,
) -> list[Hypothesis]:
    """Return the hypotheses of one source with their attention."""
    input_ids, _ = _source_tensors(model, [source] * len(hypotheses))
    start = start_id(model, config)
    begun = [[start, *hypothesis.ids[:-1]] for hypothesis in hypotheses]
    output = model(
        input_ids,
        decoder_input_ids=pad_batch(begun, _pad_id(config), model.device),
        output_attentions=True,
        use_cache=False,
        return_dict=True,
    )
    if not output.cross_attentions:
        raise ValueError(
            f"return_attention=True: this {type(model).__name__} has no cross-attention to return."
        )
    weights = output.cross_attentions[-1].float().mean(dim=1).cpu()  # (N, T, S)
    return [
        dataclasses.replace(hypothesis, attention=rows[: len(hypothesis.ids)].clone())
        for hypothesis, rows in zip(hypotheses, weights, strict=True)
    ]


def _source_tensors(
    model: PreTrainedModel, sources: list[list[int]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask of a batch of sources, each (B, S).

    The mask hides the padding. Its id is 0, which every vocabulary has: the configuration knows the
    target's padding only, which may lie beyond the source's vocabulary.
    """
    input_ids = pad_batch(sources, 0, model.device)
    ones = [[1] * len(source) for source in sources]
    return input_ids, pad_batch(ones, 0, model.device)


def start_id(model: PreTrainedModel, config: GenerationConfig) -> int:
    """Return the token that the decoder starts from.

    Raises:
        ValueError: If neither the settings nor the model's configuration name one.
    """
    for start in (config.decoder_start_token_id, config.bos_token_id):
        if start is not None:
            return int(start)
    raise ValueError(
        f"{type(model).__name__} has no decoder_start_token_id: set it in its generation_config."
    )


def _eos_ids(config: GenerationConfig) -> tuple[int, ...]:
    ids = config.eos_token_id
    if ids is None:
        return ()
    return tuple(ids) if isinstance(ids, list | tuple) else (int(ids),)


def _pad_id(config: GenerationConfig) -> int:
    return 0 if config.pad_token_id is None else int(config.pad_token_id)


def _strip(ids: list[int], eos_ids: tuple[int, ...]) -> list[int]:
    """Return the tokens before the end."""
    ends = [ids.index(eos_id) for eos_id in eos_ids if eos_id in ids]
    return ids[: min(ends)] if ends else ids


__all__ = ["Hypothesis", "decode"]
