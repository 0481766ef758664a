"""Score text with a causal language model: every token once, each with the same weight."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F

T = TypeVar("T")
IGNORED = -100


@dataclass(frozen=True)
class Score:
    """How well a model predicts a text.

    Attributes:
        nll: Sum of the negative log-likelihoods of the scored tokens, in nats.
        num_tokens: How many tokens were scored.
        num_bytes: UTF-8 bytes of the text that they stand for.
    """

    nll: float = 0.0
    num_tokens: int = 0
    num_bytes: int = 0

    def __add__(self, other: "Score") -> "Score":
        """Return the score of both texts together."""
        return Score(
            self.nll + other.nll,
            self.num_tokens + other.num_tokens,
            self.num_bytes + other.num_bytes,
        )

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nll / self.num_tokens if self.num_tokens else math.nan

    @property
    def perplexity(self) -> float:
        """exp(loss) (Jelinek et al. 1977); infinite where that overflows."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def bits_per_byte(self) -> float:
        """Bits per UTF-8 byte, comparable between tokenizers (Gao et al. 2020, arXiv:2101.00027)."""
        return self.nll / math.log(2) / self.num_bytes if self.num_bytes else math.nan

    def to_dict(self) -> dict[str, float]:
        """Return the figures under the names that every report uses."""
        return {
            "loss": self.loss,
            "perplexity": self.perplexity,
            "bits_per_byte": self.bits_per_byte,
            "num_tokens": self.num_tokens,
            "num_bytes": self.num_bytes,
        }


def windows(
    items: Iterable[T], block_size: int, stride: int | None = None
) -> Iterator[tuple[list[T], int]]:
    """Cut a document into windows in which each token but the first (bos) is scored once.

    Neighbouring windows overlap; what a window shares with the one before is context only. The last
    window is moved back to be full where the document is long enough.

    Args:
        items: The tokens of one document, read once.
        block_size: Longest window in tokens, at least 2.
        stride: New tokens in each window but the first, at most `block_size` - 1, which is the
            default and the fastest; smaller strides give every token more context.

    Yields:
        The tokens of a window, and how many of its last tokens it scores.

    Raises:
        ValueError: If block_size or stride cannot be used.
    """
    stride = block_size - 1 if stride is None else stride
    if block_size < 2:
        raise ValueError(f"block_size={block_size} must be at least 2.")
    if not 1 <= stride < block_size:
        raise ValueError(f"stride={stride} must lie between 1 and block_size - 1={block_size - 1}.")
    stream = iter(items)
    context = list(itertools.islice(stream, block_size))
    if len(context) > 1:
        yield context, len(context) - 1
    while len(context) == block_size and (fresh := list(itertools.islice(stream, stride))):
        context = (context + fresh)[-block_size:]
        yield context, len(fresh)


def document_tokens(tokenizer: Any, pieces: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Tokenise one document between two end-of-sequence tokens, as training reads it.

    Args:
        tokenizer: A fast tokenizer.
        pieces: The document's text, cut where tokens do not cross.

    Yields:
        Each token's id and the UTF-8 bytes it stands for; first and last the end-of-sequence token,
        for none. One that stands in the text right after another is left out, its bytes are added to
        the next token.
    """
    eos = last_id = tokenizer.eos_token_id
    yield eos, 0
    skipped = 0
    for token_id, size in _text_tokens(tokenizer, pieces):
        if token_id == last_id == eos:
            skipped += size
            continue
        yield token_id, size + skipped
        last_id, skipped = token_id, 0
    if last_id != eos:
        yield eos, 0


def _text_tokens(tokenizer: Any, pieces: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Yield the id of each token in a text and the UTF-8 bytes it stands for."""
    for text in pieces:
        encoded = tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        ends = [0, *itertools.accumulate(len(character.encode()) for character in text)]
        done = 0
        for token_id, (_, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            yield token_id, max(ends[end] - done, 0)
            done = max(ends[end], done)


def split_documents(
    tokens: Iterable[tuple[int, int]], eos_token_id: int
) -> Iterator[Iterator[tuple[int, int]]]:
    """Split the tokens of `document_tokens` where an end-of-sequence token stood in the text.

    Such a token ends one document and begins the next one, as in training.

    Args:
        tokens: Tokens as (id, bytes), the first one an end-of-sequence token.
        eos_token_id: The id of that token.

    Yields:
        The tokens of each document; they must be read to their end before the next document.
    """
    stream = iter(tokens)
    next(stream)
    for first in stream:
        yield _until_eos(first, stream, eos_token_id)


def _until_eos(
    token: tuple[int, int], stream: Iterator[tuple[int, int]], eos_token_id: int
) -> Iterator[tuple[int, int]]:
    yield eos_token_id, 0
    yield token
    while token[0] != eos_token_id:
        token = next(stream)
        yield token


@torch.no_grad()
def score_batch(model: Any, batch: Sequence[tuple[list[tuple[int, int]], int]]) -> Score:
    """Score some windows in one forward pass.

    Args:
        model: A causal language model in eval mode, on any device.
        batch: Windows: tokens as (id, bytes), and how many of the last ones to score.
    """
    length = max(len(tokens) for tokens, _ in batch)
    ids = torch.zeros(len(batch), length, dtype=torch.long)
    targets = torch.full((len(batch), length - 1), IGNORED)
    for row, (tokens, count) in enumerate(batch):
        values = torch.tensor([token_id for token_id, _ in tokens])
        ids[row, : len(tokens)] = values  # padded on the right, where no scored token looks
        targets[row, len(tokens) - 1 - count : len(tokens) - 1] = values[-count:]
    logits = model(input_ids=ids.to(model.device), use_cache=False).logits[:, :-1]  # (B, T-1, V)
    targets = targets.to(logits.device)
    nll = sum(
        F.cross_entropy(row.float(), wanted, ignore_index=IGNORED, reduction="sum").item()
        for row, wanted in zip(logits, targets, strict=True)
    )
    num_bytes = sum(size for tokens, count in batch for _, size in tokens[-count:])
    return Score(nll, sum(count for _, count in batch), num_bytes)


def score_documents(
    model: Any,
    tokenizer: Any,
    documents: Iterable[Iterable[str]],
    *,
    block_size: int | None = None,
    stride: int | None = None,
    batch_size: int = 8,
) -> Iterator[Score]:
    """Score documents; none sees another.

    The end-of-sequence token begins each document and ends it: all tokens of the text are scored, and
    the one that ends it. Where this token stands in the text itself, a new document begins.

    Args:
        model: A causal language model in eval mode.
        tokenizer: Its fast tokenizer, with an end-of-sequence token.
        documents: The documents, each in pieces that are read one after the other.
        block_size: Longest window in tokens. `None`: the model's context.
        stride: See `windows`.
        batch_size: Windows in one forward pass.

    Yields:
        The score of each batch; their sum is the score of all.
    """
    block_size = block_size or model.config.max_position_embeddings
    cut = (
        window
        for pieces in documents
        for tokens in split_documents(document_tokens(tokenizer, pieces), tokenizer.eos_token_id)
        for window in windows(tokens, block_size, stride)
    )
    while batch := list(itertools.islice(cut, batch_size)):
        yield score_batch(model, batch)


def score_texts(model: Any, tokenizer: Any, texts: Iterable[str], **options: Any) -> Score:
    """Return the score of whole texts; see `score_documents` for the options."""
    documents = ([text] for text in texts)
    return sum(score_documents(model, tokenizer, documents, **options), start=Score())
