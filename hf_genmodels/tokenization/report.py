"""Look at a tokenizer: the tokens of a text, how well it compresses, and beside another one."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from hf_genmodels.data.sources import TextSource, cut
from hf_genmodels.errors import UserError

_BATCH = 64
_NAMES = {"\n": "⏎", "\t": "⇥", "\r": "␍", " ": "␣"}


@dataclass(frozen=True)
class Measurement:
    """How a tokenizer does on a text.

    Attributes:
        tokenizer: What the tokenizer is called.
        sample: What the text is called.
        num_bytes: Length of the text in UTF-8.
        num_characters: Length in Unicode characters.
        num_words: Number of stretches between white space.
        num_tokens: Number of tokens.
        num_used: Number of different tokens that occur.
        vocab_size: Number of tokens there are.
    """

    tokenizer: str
    sample: str
    num_bytes: int
    num_characters: int
    num_words: int
    num_tokens: int
    num_used: int
    vocab_size: int

    @property
    def bytes_per_token(self) -> float:
        """Bytes of text that a token stands for; more is better compression."""
        return self.num_bytes / max(self.num_tokens, 1)

    @property
    def fertility(self) -> float:
        """Tokens for a word between white space (Rust et al., https://arxiv.org/abs/2012.15613)."""
        return self.num_tokens / max(self.num_words, 1)

    @property
    def tokens_per_character(self) -> float:
        """Tokens for a character, for languages without white space between words."""
        return self.num_tokens / max(self.num_characters, 1)

    def to_dict(self) -> dict[str, str | int | float]:
        """Return all figures by name."""
        return {
            **self.__dict__,
            "bytes_per_token": self.bytes_per_token,
            "fertility": self.fertility,
            "tokens_per_character": self.tokens_per_character,
        }


def measure(
    tokenizers: Mapping[str, PreTrainedTokenizerFast], texts: Iterable[str], sample: str
) -> list[Measurement]:
    """Measure tokenizers on the same text, read once in constant memory.

    Args:
        tokenizers: Tokenizers by name.
        texts: The text in stretches that end between words, for example `TextSource.texts`.
        sample: What the text is called.

    Returns:
        One measurement for each tokenizer, in order.
    """
    num_bytes = num_characters = num_words = 0
    num_tokens = dict.fromkeys(tokenizers, 0)
    used: dict[str, set[int]] = {name: set() for name in tokenizers}
    for batch in _batches(texts):
        num_bytes += sum(len(text.encode()) for text in batch)
        num_characters += sum(map(len, batch))
        num_words += sum(len(text.split()) for text in batch)
        for name, tokenizer in tokenizers.items():
            backend = tokenizer.backend_tokenizer
            for encoding in backend.encode_batch_fast(batch, add_special_tokens=False):
                num_tokens[name] += len(encoding.ids)
                used[name].update(encoding.ids)
    return [
        Measurement(
            name,
            sample,
            num_bytes,
            num_characters,
            num_words,
            num_tokens[name],
            len(used[name]),
            len(tokenizer),
        )
        for name, tokenizer in tokenizers.items()
    ]


def _batches(texts: Iterable[str]) -> Iterable[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def compare(
    tokenizers: Mapping[str, PreTrainedTokenizerFast], sources: Mapping[str, TextSource]
) -> list[Measurement]:
    """Measure tokenizers on several texts.

    Args:
        tokenizers: Tokenizers by name.
        sources: Texts by name; all are checked before any is read.

    Raises:
        UserError: If a source cannot be read.
    """
    for source in sources.values():
        source.check()
    return [
        measurement
        for name, source in sources.items()
        for measurement in measure(tokenizers, source.texts(), name)
    ]


def parse_samples(samples: Sequence[str]) -> dict[str, str]:
    """Split language samples such as ``es=spanish.txt`` into names and files.

    Raises:
        UserError: If a name or a file is missing or a name comes twice.
    """
    files: dict[str, str] = {}
    for sample in samples:
        name, equals, file = sample.partition("=")
        if not (name and equals and file):
            raise UserError(
                f"The language sample {sample!r} is not understood. Give a name and a file, for "
                "example: --language_samples en=english.txt es=spanish.txt"
            )
        if name in files:
            raise UserError(f"The language sample {name!r} is given twice.")
        files[name] = file
    return files


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Lay out rows in columns, the first ``left`` of them flush left, the others flush right."""
    widths = [max(map(display_width, column)) for column in zip(header, *rows, strict=True)]
    lines = [_line(header, widths, left), "  ".join("-" * width for width in widths)]
    return "\n".join(lines + [_line(row, widths, left) for row in rows])


def _line(row: Sequence[str], widths: Sequence[int], left: int) -> str:
    cells = []
    for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
        space = " " * (width - display_width(cell))
        cells.append(cell + space if index < left else space + cell)
    return "  ".join(cells).rstrip()


def display_width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    width = 0
    for character in text:
        if not unicodedata.combining(character):
            width += 2 if unicodedata.east_asian_width(character) in "WF" else 1
    return width


def format_measurements(measurements: Sequence[Measurement]) -> str:
    """Lay out measurements as a table for people."""
    header = (
        "sample", "tokenizer", "bytes", "tokens", "bytes/token", "tokens/word", "tokens/char",
        "used",
    )  # fmt: skip
    rows = [
        (
            one.sample,
            one.tokenizer,
            f"{one.num_bytes:,}",
            f"{one.num_tokens:,}",
            f"{one.bytes_per_token:.3f}",
            f"{one.fertility:.3f}",
            f"{one.tokens_per_character:.3f}",
            f"{100 * one.num_used / max(one.vocab_size, 1):.0f} % of {one.vocab_size:,}",
        )
        for one in measurements
    ]
    return table(header, rows, left=2)


def inspect(tokenizer: PreTrainedTokenizerFast, text: str) -> list[tuple[int, str, str]]:
    """Take a text apart.

    Args:
        tokenizer: The tokenizer.
        text: Any text.

    Returns:
        For each token its id, a printable form (``␣`` is a blank, ``⏎`` a line end, ``<E2>`` a byte
        that is no character by itself), and ``"special"`` or an empty string.

    Raises:
        UserError: If the text holds half of a surrogate pair, which is not Unicode text.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"The text is not Unicode: it holds the surrogate U+{ord(text[error.start]):04X} at "
            f"position {error.start}. It was perhaps cut in the middle of a character, or is not "
            "UTF-8."
        ) from error
    specials = set(tokenizer.all_special_ids)
    backend = tokenizer.backend_tokenizer
    ids = [
        token_id
        for piece in cut([text])
        for token_id in backend.encode(piece.text, add_special_tokens=False).ids
    ]
    return [
        (token_id, token, "special" if token_id in specials else "")
        for token_id, token in zip(ids, _printable(tokenizer, ids), strict=True)
    ]


def _printable(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> list[str]:
    byte_of = {character: byte for byte, character in enumerate(byte_characters())}
    shown = []
    for token in tokenizer.convert_ids_to_tokens(list(ids)):
        if all(character in byte_of for character in token):
            raw = bytes(byte_of[character] for character in token)
            shown.append(printable(raw))
        else:
            shown.append(printable(token.encode()))
    return shown


def byte_characters() -> list[str]:
    """Return the character that stands for each byte in GPT-2's vocabulary."""
    kept = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in kept else chr(next(others)) for byte in range(256)]


def printable(raw: bytes) -> str:
    """Make bytes visible: blanks and controls as symbols, bytes outside UTF-8 as ``<E2>``."""
    parts = []
    for character in raw.decode("utf-8", "surrogateescape"):
        code = ord(character)
        if character in _NAMES:
            parts.append(_NAMES[character])
        elif 0xDC80 <= code <= 0xDCFF:
            parts.append(f"<{code - 0xDC00:02X}>")
        elif unicodedata.category(character)[0] in "CZ":
            parts.append(f"<U+{code:04X}>")
        elif unicodedata.combining(character):
            parts.append(f"◌{character}")
        else:
            parts.append(character)
    return "".join(parts)
