"""Import GPT-2's tokenizer from its two files."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from hf_genmodels.errors import UserError
from hf_genmodels.tokenization.bpe import EOS_TOKEN, PAD_TOKEN, wrap
from hf_genmodels.tokenization.saving import save_tokenizer


def load_gpt2(
    vocab_file: str | Path, merges_file: str | Path, *, add_pad_token: bool = False
) -> PreTrainedTokenizerFast:
    """Make a tokenizer from files in GPT-2's format.

    GPT-2 has no padding token. Its end-of-text token pads here, so that there remain 50,257 ids and
    GPT-2's weights fit; the attention mask tells padding from the end of a text.

    Args:
        vocab_file: ``vocab.json`` (also known as ``encoder.json``): token to id.
        merges_file: ``merges.txt`` (also known as ``vocab.bpe``): one merge a line.
        add_pad_token: Add a padding token of its own as the last id (50,257); for models that are
            trained from scratch.

    Returns:
        The tokenizer; its ids are those of `transformers.GPT2Tokenizer` made from the same files.

    Raises:
        UserError: If a file is missing or not in this format, or the two do not belong together.
    """
    vocab = _read_vocab(Path(vocab_file), Path(merges_file))
    merges = _read_merges(Path(merges_file))
    _check_merges(vocab, merges, merges_file)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()
    return wrap(tokenizer, EOS_TOKEN, PAD_TOKEN if add_pad_token else EOS_TOKEN)


def import_gpt2(
    vocab_file: str | Path,
    merges_file: str | Path,
    output_dir: str | Path,
    *,
    add_pad_token: bool = False,
) -> PreTrainedTokenizerFast:
    """Save a tokenizer made by `load_gpt2` as a folder that `AutoTokenizer` loads.

    Args:
        vocab_file: ``vocab.json``, see `load_gpt2`.
        merges_file: ``merges.txt``, see `load_gpt2`.
        output_dir: Folder to write to; it is made if need be.
        add_pad_token: Add a padding token of its own, see `load_gpt2`.

    Returns:
        The tokenizer.

    Raises:
        UserError: As `load_gpt2` and `save_tokenizer`.
    """
    tokenizer = load_gpt2(vocab_file, merges_file, add_pad_token=add_pad_token)
    save_tokenizer(tokenizer, output_dir)
    return tokenizer


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"The file '{file}' cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"The file '{file}' is not UTF-8 text: byte at offset {error.start}."
        ) from error


def _read_vocab(file: Path, merges_file: Path) -> dict[str, int]:
    text = _read(file)
    try:
        vocab = json.loads(text)
    except json.JSONDecodeError as error:
        swapped = merges_file.is_file() and _read(merges_file).lstrip().startswith("{")
        hint = (
            "The two files seem to be swapped: vocab.json comes first." if swapped else str(error)
        )
        raise UserError(f"The file '{file}' is not a vocabulary in JSON. {hint}") from error
    if not isinstance(vocab, dict) or sorted(map(str, vocab.values())) != sorted(
        map(str, range(len(vocab)))
    ):
        raise UserError(
            f"The file '{file}' is not a vocabulary: it must be a JSON object that maps tokens to "
            "the ids 0, 1, 2, and so on."
        )
    missing = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - vocab.keys())
    if missing:
        raise UserError(
            f"The vocabulary '{file}' is not byte-level: {len(missing)} of the 256 bytes are "
            f"missing, such as {missing[0]!r}."
        )
    return vocab


def _read_merges(file: Path) -> list[tuple[str, str]]:
    merges = []
    for number, line in enumerate(_read(file).split("\n"), start=1):
        line = line.removesuffix("\r")
        if not line or (number == 1 and line.startswith("#version")):
            continue
        parts = line.split(" ")
        if len(parts) != 2 or not all(parts):
            raise UserError(
                f"Line {number} of '{file}' is not a merge: two tokens with a blank between are "
                f"expected, not {line[:60]!r}."
            )
        merges.append((parts[0], parts[1]))
    return merges


def _check_merges(
    vocab: dict[str, int], merges: list[tuple[str, str]], merges_file: str | Path
) -> None:
    for left, right in merges:
        for token in (left, right, left + right):
            if token not in vocab:
                raise UserError(
                    f"The vocabulary has no token {token!r}, which the merge {left!r} {right!r} in "
                    f"'{merges_file}' needs. Do the two files belong together?"
                )
