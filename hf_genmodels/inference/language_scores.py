"""Measure a language model on a text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from hf_genmodels.config.commands import refuse_options
from hf_genmodels.config.evaluate import OF_GANS, OF_PIXELS, OF_SEQ2SEQ, EvaluateOptions
from hf_genmodels.data.sources import Piece, TextSource
from hf_genmodels.errors import UserError
from hf_genmodels.hub.loading import load_model, load_tokenizer, place_model
from hf_genmodels.metrics.distinct_n.distinct_counts import distinct_n
from hf_genmodels.metrics.ngram_divergence.ngram_distributions import divergences

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from hf_genmodels.metrics.perplexity.scoring import Score

MAX_DISTINCT = 4
MAX_DIVERGENCE = 3
PROMPT_TOKENS = 8
GENERATED_TOKENS = 64
# What of the text is kept in memory to compare generated texts with.
REFERENCE_CHARACTERS = 1 << 20


def evaluate(options: EvaluateOptions) -> dict[str, Any]:
    """Measure a model on a text.

    Every token counts the same. No document sees another; each stands between two end-of-sequence
    tokens, of which the second one counts.

    Args:
        options: The model, the text and how to measure.

    Returns:
        `loss` (nats per token), `perplexity`, `bits_per_byte`, `num_tokens`, `num_bytes`; with
        generated texts also `distinct_1` ... and `kl_1`, `js_1`, `symmetric_1` ... in bits.

    Raises:
        UserError: If the model or the text cannot be read, or the options do not fit the model.
    """
    refuse_options(options, {**OF_SEQ2SEQ, **OF_GANS, **OF_PIXELS}, "a language model")
    source = text_source(options)
    source.check()
    model: Any = load_model(options.model)
    tokenizer = load_tokenizer(options.model)
    _check_fit(options, model, tokenizer)
    model = place_model(model, options.device, int8=options.int8)
    score = score_source(model, tokenizer, source, options)
    if not score.num_tokens:
        raise UserError("No token could be scored: the text is empty.")
    results: dict[str, Any] = score.to_dict()
    if options.generate:
        results |= compare_generated(model, tokenizer, source, options)
    return results


def text_source(options: EvaluateOptions) -> TextSource:
    """Return where the text comes from."""
    return TextSource(
        dataset_name=options.dataset_name,
        dataset_config_name=options.dataset_config_name,
        split=options.split,
        files=options.file,
        text_column=options.text_column,
        sample_by=options.sample_by,
    )


def score_source(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    source: TextSource,
    options: EvaluateOptions,
) -> Score:
    """Score all documents of a source, or so many tokens of them, in constant memory."""
    from tqdm import tqdm

    from hf_genmodels.metrics.perplexity.scoring import Score, score_documents

    batches = score_documents(
        model,
        tokenizer,
        _documents(source.pieces()),
        block_size=options.block_size,
        stride=options.stride,
        batch_size=options.batch_size,
    )
    total = Score()
    progress = tqdm(
        total=source.size_in_bytes(), unit="B", unit_scale=True, desc="scoring", disable=None
    )
    with progress:
        for score in batches:
            total += score
            progress.update(score.num_bytes)
            if options.max_tokens is not None and total.num_tokens >= options.max_tokens:
                break
    return total


def compare_generated(
    model: Any,
    tokenizer: Any,
    source: TextSource,
    options: EvaluateOptions,
) -> dict[str, Any]:
    """Let the model continue beginnings from the text, and compare with how the text goes on.

    Beginnings of 8 tokens are taken at even distances; generated and real continuations have up to 64
    tokens, so that both sides are about equally long.
    """
    import torch
    from transformers import set_seed

    prompts, references = real_continuations(tokenizer, source, options.generate)
    set_seed(options.seed)
    texts = []
    for prompt in prompts:
        ids = torch.tensor([prompt], device=model.device)
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=min(
                GENERATED_TOKENS, model.config.max_position_embeddings - len(prompt)
            ),
            pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
        )
        texts.append(tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True))
    results: dict[str, Any] = {"num_generated": len(texts)}
    for n in range(1, MAX_DISTINCT + 1):
        results[f"distinct_{n}"] = distinct_n(texts, n, options.unit)
        results[f"real_distinct_{n}"] = distinct_n(references, n, options.unit)
    for n in range(1, MAX_DIVERGENCE + 1):
        try:
            found = divergences(texts, references, n, options.unit)
        except ValueError as error:
            raise UserError(f"The generated texts cannot be compared: {error}") from error
        results |= {f"{name}_{n}": value for name, value in found.items()}
    return results


def real_continuations(
    tokenizer: Any, source: TextSource, count: int
) -> tuple[list[list[int]], list[str]]:
    """Cut beginnings and how they go on out of the first megabyte of a text.

    Returns:
        Token ids of each beginning, and the text that follows it.

    Raises:
        UserError: If the text is too short for so many.
    """
    length = PROMPT_TOKENS + GENERATED_TOKENS
    stretches: list[list[int]] = []
    read = 0
    for piece in source.pieces():
        ids = tokenizer(piece.text, add_special_tokens=False, verbose=False)["input_ids"]
        starts = range(0, max(len(ids) - PROMPT_TOKENS, 0), length)
        stretches += [ids[start : start + length] for start in starts]
        read += len(piece.text)
        if read >= REFERENCE_CHARACTERS:
            break
    if len(stretches) < count:
        raise UserError(
            f"--generate {count}: the text has only {len(stretches)} stretches of {length} tokens to "
            f"compare with. Ask for at most {len(stretches)}."
        )
    chosen = [stretches[i * len(stretches) // count] for i in range(count)]
    references = [tokenizer.decode(ids[PROMPT_TOKENS:]) for ids in chosen]
    return [ids[:PROMPT_TOKENS] for ids in chosen], references


def _documents(pieces: Iterable[Piece]) -> Iterator[Iterator[str]]:
    """Group pieces into documents; each must be read to its end before the next one."""
    stream = iter(pieces)
    for first in stream:
        yield _texts(first, stream)


def _texts(piece: Piece, stream: Iterator[Piece]) -> Iterator[str]:
    yield piece.text
    while not piece.last:
        piece = next(stream)
        yield piece.text


def _check_fit(
    options: EvaluateOptions, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    context = model.config.max_position_embeddings
    block_size = options.block_size or context
    if block_size > context:
        raise UserError(f"--block_size is {block_size}, but the model's context is {context}.")
    if options.stride is not None and options.stride >= block_size:
        raise UserError(
            f"--stride is {options.stride}. It must be less than the window of {block_size} tokens."
        )
    if tokenizer.eos_token_id is None:
        raise UserError("The tokenizer has no token that ends a text (eos_token).")
    if len(tokenizer) > model.config.vocab_size:
        raise UserError(
            f"The tokenizer has {len(tokenizer):,} tokens, the model only knows "
            f"{model.config.vocab_size:,}: they do not belong together."
        )


def table(results: dict[str, Any]) -> str:
    """Return the results of `evaluate` as lines for a terminal."""
    lines = [
        f"loss            {results['loss']:.4f} nats per token",
        f"perplexity      {results['perplexity']:.2f}",
        f"bits per byte   {results['bits_per_byte']:.4f}",
        f"scored          {results['num_tokens']:,} tokens, {results['num_bytes']:,} bytes",
    ]
    if "num_generated" in results:
        distinct = [f"{results[f'distinct_{n}']:.3f}" for n in range(1, MAX_DISTINCT + 1)]
        real = [f"{results[f'real_distinct_{n}']:.3f}" for n in range(1, MAX_DISTINCT + 1)]
        lines += [
            f"generated       {results['num_generated']} texts",
            f"distinct 1-{MAX_DISTINCT}    {' '.join(distinct)}   (the real text: {' '.join(real)})",
        ]
        for name, label in (("kl", "KL"), ("js", "Jensen-Shannon"), ("symmetric", "symmetric")):
            values = [f"{results[f'{name}_{n}']:.3f}" for n in range(1, MAX_DIVERGENCE + 1)]
            lines.append(f"{label:<15} {' '.join(values)}   bits, n-grams of 1-{MAX_DIVERGENCE}")
    return "\n".join(lines)
