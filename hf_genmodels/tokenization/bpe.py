"""Byte-level BPE: train one from text, import GPT-2's, save either for `AutoTokenizer`.

Byte-level BPE is described in "Language Models are Unsupervised Multitask Learners" (Radford et al.,
2019), BPE itself in https://arxiv.org/abs/1508.07909.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, get_args

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from hf_genmodels.errors import UserError, suggest
from hf_genmodels.tokenization.progress import Ticker, show_reading

Pretokenization = Literal["gpt2", "whitespace"]
EOS_TOKEN = "<|endoftext|>"
PAD_TOKEN = "<|pad|>"
NUM_BYTES = 256
_WORDS = r" ?\S+|\s+(?!\S)|\s+"


def train_bpe(
    texts: Iterable[str],
    *,
    vocab_size: int = 8192,
    min_frequency: int = 2,
    eos_token: str = EOS_TOKEN,
    pad_token: str = PAD_TOKEN,
    special_tokens: Sequence[str] = (),
    pretokenization: Pretokenization = "gpt2",
    split_digits: bool = False,
    max_token_length: int | None = None,
    model_max_length: int = 1024,
    show_progress: bool = False,
    total_bytes: int | None = None,
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer.

    Memory grows with the number of different words, not with the length of the text. The same text
    and options give the same tokenizer to the last byte. Every string that UTF-8 can encode
    round-trips exactly, and no unknown token exists, since all 256 bytes are in the vocabulary.

    Args:
        texts: The text in stretches of any length, for example `TextSource.texts`.
        vocab_size: Number of tokens, special tokens and the 256 bytes included. Text with too few
            frequent pairs gives fewer.
        min_frequency: How often a pair must occur to become a token.
        eos_token: Token that ends a document; it serves as beginning-of-text token too.
        pad_token: Token that fills up batches.
        special_tokens: Further tokens that are never split, for example ``["<|user|>"]``.
        pretokenization: Between which characters no token may reach: ``gpt2`` keeps letters, digits
            and punctuation apart, ``whitespace`` only words.
        split_digits: Make every digit a token of its own.
        max_token_length: Greatest length of a token in bytes; None for no limit.
        model_max_length: Number of tokens from which on the tokenizer warns.
        show_progress: Show on standard error how far the training is.
        total_bytes: About how many bytes of text there are, for the progress bar.

    Returns:
        The tokenizer, with left padding.

    Raises:
        UserError: If an option is out of its range or there is no text.
    """
    specials = [eos_token, pad_token, *special_tokens]
    check_options(
        specials, vocab_size, min_frequency, pretokenization, max_token_length, model_max_length
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer(pretokenization, split_digits)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    # The trainer stops one byte short of the length it is given.
    limit = None if max_token_length is None else max_token_length + 1
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=limit,
        show_progress=False,
    )
    shown = show_reading(texts, total_bytes) if show_progress else texts
    with Ticker(f"Learning {vocab_size:,} tokens", show_progress) as ticker:
        tokenizer.train_from_iterator(_then(_training_text(shown, specials), ticker), trainer)
    return wrap(tokenizer, eos_token, pad_token, special_tokens, model_max_length)


def _then(texts: Iterable[str], ticker: Ticker) -> Iterator[str]:
    yield from texts
    ticker.start()


def _training_text(texts: Iterable[str], specials: Sequence[str]) -> Iterator[str]:
    """Leave out special tokens, so that no merges are spent on their letters."""
    pattern = re.compile("|".join(map(re.escape, sorted(specials, key=len, reverse=True))))
    empty = True
    for text in texts:
        for part in pattern.split(text):
            if part:
                empty = False
                yield part
    if empty:
        raise UserError("There is no text to train a tokenizer on.")


def pre_tokenizer(
    pretokenization: Pretokenization, split_digits: bool
) -> pre_tokenizers.PreTokenizer:
    """Return what cuts text into the stretches within which merges happen."""
    steps: list[pre_tokenizers.PreTokenizer] = []
    if split_digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if pretokenization == "whitespace":
        steps.append(pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"))
    steps.append(
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pretokenization == "gpt2")
    )
    return steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(steps)


def wrap(
    tokenizer: Tokenizer,
    eos_token: str,
    pad_token: str,
    special_tokens: Sequence[str] = (),
    model_max_length: int = 1024,
) -> PreTrainedTokenizerFast:
    """Make a transformers tokenizer with the settings of a causal language model."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=eos_token,
        eos_token=eos_token,
        pad_token=pad_token,
        additional_special_tokens=list(special_tokens),
        model_max_length=model_max_length,
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def check_options(
    specials: Sequence[str],
    vocab_size: int,
    min_frequency: int,
    pretokenization: str,
    max_token_length: int | None,
    model_max_length: int,
) -> None:
    """Raise a UserError for options of `train_bpe` that cannot work.

    Args:
        specials: The end-of-text token, the padding token, and all further special tokens.
        vocab_size: As in `train_bpe`.
        min_frequency: As in `train_bpe`.
        pretokenization: As in `train_bpe`.
        max_token_length: As in `train_bpe`.
        model_max_length: As in `train_bpe`.
    """
    _check_specials(specials)
    least = NUM_BYTES + len(specials)
    if vocab_size < least:
        raise UserError(
            f"vocab_size={vocab_size} is too small: the 256 bytes and {len(specials)} special "
            f"tokens need {least}. Give at least that; a few thousand is usual."
        )
    if min_frequency < 1:
        raise UserError(f"min_frequency={min_frequency} must be at least 1.")
    if pretokenization not in get_args(Pretokenization):
        raise UserError(
            f"pretokenization={pretokenization!r} is not known. "
            f"{suggest(pretokenization, get_args(Pretokenization))}"
            f"Allowed: {', '.join(get_args(Pretokenization))}."
        )
    if max_token_length is not None and max_token_length < 2:
        raise UserError(
            f"max_token_length={max_token_length} allows no merge. Give at least 2, or leave it out."
        )
    if model_max_length < 1:
        raise UserError(f"model_max_length={model_max_length} must be at least 1.")


def _check_specials(specials: Sequence[str]) -> None:
    if specials[0] == specials[1]:
        raise UserError(
            f"eos_token and pad_token are both {specials[0]!r}. They must differ, since a model "
            "learns to end a text from the one and never sees the other."
        )
    for token in specials:
        if not re.fullmatch(r"[!-~]{2,}", token):
            raise UserError(
                f"The special token {token!r} is not allowed: it must be two or more printable "
                "ASCII characters without white space, for example '<|user|>'."
            )
        if specials.count(token) > 1:
            raise UserError(f"The special token {token!r} is given more than once.")
