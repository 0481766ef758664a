"""Continue prompts with a language model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_genmodels.config.commands import refuse_options
from hf_genmodels.config.generate import OF_GANS, OF_PIXELS, OF_SEQ2SEQ, GenerateOptions
from hf_genmodels.errors import UserError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


@dataclass(frozen=True)
class Text:
    """A prompt and what the model wrote after it."""

    prompt: str
    continuation: str
    num_tokens: int


def generate(options: GenerateOptions) -> Iterator[Text]:
    """Continue prompts.

    Args:
        options: The model, the prompts and how to draw.

    Yields:
        The texts, those of a prompt next to each other.

    Raises:
        UserError: If the model or the file cannot be read, or a prompt is too long.
    """
    refuse_options(options, OF_SEQ2SEQ | OF_GANS | OF_PIXELS, "a language model")
    prompts = prompts_of(options)
    model, tokenizer = load(options)
    encoded = [encode_prompt(model, tokenizer, prompt) for prompt in prompts]
    if options.seed is not None:
        from transformers import set_seed

        set_seed(options.seed)
    for prompt, ids in zip(prompts, encoded, strict=True):
        yield from continue_prompt(model, tokenizer, prompt, ids, options)


def load(options: GenerateOptions) -> tuple[Any, Any]:
    """Load the model where it shall compute, and its tokenizer.

    Returns:
        The model in eval mode, and the tokenizer.

    Raises:
        UserError: If one of them cannot be loaded, or the device cannot be used.
    """
    from hf_genmodels.hub.loading import load_model, load_tokenizer, place_model

    model: Any = load_model(options.model)
    tokenizer = load_tokenizer(options.model)
    return place_model(model, options.device, int8=options.int8), tokenizer


def encode_prompt(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, prompt: str
) -> torch.Tensor:
    """Return a prompt's token ids, shape (1, T); an empty prompt is the token that starts a text.

    Raises:
        UserError: If the prompt leaves no room in the model's context.
    """
    import torch

    ids = tokenizer(prompt, verbose=False)["input_ids"]
    if not ids:
        start = tokenizer.bos_token_id
        start = tokenizer.eos_token_id if start is None else start
        if start is None:
            raise UserError("This tokenizer has no token that starts a text: give a prompt.")
        ids = [start]
    context = model.config.max_position_embeddings
    if len(ids) >= context:
        raise UserError(
            f"The prompt {prompt[:40]!r}... has {len(ids):,} tokens, and the model's context holds "
            f"{context:,} with what it writes. Shorten the prompt."
        )
    return torch.tensor([ids], device=model.device)


def continue_prompt(
    model: Any,
    tokenizer: Any,
    prompt: str,
    ids: torch.Tensor,
    options: GenerateOptions,
) -> list[Text]:
    """Write all texts for one prompt, no longer than the model's context."""
    import torch

    room = model.config.max_position_embeddings - ids.shape[1]
    wanted = options.max_new_tokens or model.generation_config.max_new_tokens or room
    if options.max_new_tokens is not None and wanted > room:
        sys.stderr.write(f"note: the model's context has room for {room:,} new tokens.\n")
    sequences = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=min(wanted, room),
        pad_token_id=pad_token_id(tokenizer),
        **options.to_kwargs(),
    )
    texts = []
    for sequence in sequences[:, ids.shape[1] :]:
        count = int((sequence != pad_token_id(tokenizer)).sum())
        texts.append(Text(prompt, tokenizer.decode(sequence, skip_special_tokens=True), count))
    return texts


def pad_token_id(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """Return the token that fills rows up: the one that ends a text, if there is none for that."""
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def prompts_of(options: GenerateOptions) -> list[str]:
    """Return the prompts of the command line or of a file; an empty one if there are none.

    Raises:
        UserError: If the file cannot be read or holds none.
    """
    if options.file is None:
        return options.prompts or [""]
    path = Path(options.file).expanduser()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--file {path} cannot be read: {error}") from error
    prompts = [line for line in lines if line.strip()]
    if not prompts:
        raise UserError(f"--file {path} holds no prompt. Write one on each line.")
    return prompts
