"""Train, import, inspect and compare tokenizers.

genmodels tokenizer train --train_file novels.txt --vocab_size 8192 --output_dir my-tokenizer
genmodels tokenizer import-gpt2 vocab.json merges.txt gpt2-tokenizer
genmodels tokenizer inspect my-tokenizer "Some text"
genmodels tokenizer report my-tokenizer --files held-out.txt
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from jsonargparse import ArgumentParser, Namespace
from transformers import PreTrainedTokenizerFast

from hf_genmodels.config.flags import explain, spell_out
from hf_genmodels.data.sources import SampleBy, TextSource
from hf_genmodels.errors import UserError
from hf_genmodels.tokenization import report as reports
from hf_genmodels.tokenization.bpe import (
    EOS_TOKEN,
    PAD_TOKEN,
    Pretokenization,
    check_options,
    train_bpe,
)
from hf_genmodels.tokenization.gpt2 import load_gpt2
from hf_genmodels.tokenization.saving import check_output_folder, load_tokenizer, save_tokenizer


@dataclass(frozen=True)
class TrainOptions:
    """The text to learn from, the kind of tokenizer, and where it goes.

    Attributes:
        output_dir: Folder for the tokenizer.
        train_file: Text files (.txt .text .md .jsonl .json .csv .tsv .parquet); patterns such as
            'data/*.txt' are allowed.
        dataset_name: Hub dataset to read instead of files.
        dataset_config_name: Configuration of the dataset.
        split: Split of the dataset.
        text_column: Column with the text, or a path such as translation.en. Default: 'text', or
            the only one.
        streaming: Read the dataset over the network instead of downloading it.
        sample_by: What a document is in a text file. Paragraphs and lines lose their line ends.
        vocab_size: Number of tokens, the special ones and 256 bytes included.
        min_frequency: How often a pair must occur to become a token.
        eos_token: Token that ends a document.
        pad_token: Token that fills up batches.
        special_tokens: Further tokens that are never split.
        pretokenization: 'gpt2' keeps letters, digits and punctuation apart; 'whitespace' lets tokens
            span them within a word.
        split_digits: Make every digit a token of its own.
        max_token_length: Greatest length of a token in bytes. Default: no limit.
        model_max_length: Number of tokens from which on the tokenizer warns.
        overwrite: Replace a tokenizer in output_dir.
    """

    output_dir: str
    train_file: list[str] = field(default_factory=list)
    dataset_name: str | None = None
    dataset_config_name: str | None = None
    split: str = "train"
    text_column: str | None = None
    streaming: bool = False
    sample_by: SampleBy = "document"
    vocab_size: int = 8192
    min_frequency: int = 2
    eos_token: str = EOS_TOKEN
    pad_token: str = PAD_TOKEN
    special_tokens: list[str] = field(default_factory=list)
    pretokenization: Pretokenization = "gpt2"
    split_digits: bool = False
    max_token_length: int | None = None
    model_max_length: int = 1024
    overwrite: bool = False

    def source(self) -> TextSource:
        """Return where the text comes from."""
        return TextSource(
            dataset_name=self.dataset_name,
            dataset_config_name=self.dataset_config_name,
            split=self.split,
            files=self.train_file,
            text_column=self.text_column,
            sample_by=self.sample_by,
            streaming=self.streaming,
        )


def train(options: TrainOptions) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer and save it.

    Args:
        options: What to train on, how, and where to save.

    Returns:
        The tokenizer.

    Raises:
        UserError: If an option cannot work or the text cannot be read; nothing is written then.
    """
    folder, source = Path(options.output_dir).expanduser(), options.source()
    specials = [options.eos_token, options.pad_token, *options.special_tokens]
    check_options(
        specials,
        options.vocab_size,
        options.min_frequency,
        options.pretokenization,
        options.max_token_length,
        options.model_max_length,
    )
    check_output_folder(folder, options.overwrite)
    source.check()
    tokenizer = train_bpe(
        source.texts(),
        vocab_size=options.vocab_size,
        min_frequency=options.min_frequency,
        eos_token=options.eos_token,
        pad_token=options.pad_token,
        special_tokens=options.special_tokens,
        pretokenization=options.pretokenization,
        split_digits=options.split_digits,
        max_token_length=options.max_token_length,
        model_max_length=options.model_max_length,
        show_progress=True,
        total_bytes=source.size_in_bytes(),
    )
    save_tokenizer(tokenizer, folder)
    print(f"Saved a tokenizer with {len(tokenizer):,} tokens in {folder}")
    if len(tokenizer) < options.vocab_size:
        print(
            f"The text has no more pairs that occur {options.min_frequency} times, so there are "
            f"fewer tokens than the {options.vocab_size:,} asked for."
        )
    print(f'Try it: genmodels tokenizer inspect {folder} "Some text"')
    return tokenizer


def import_gpt2(
    vocab_file: str,
    merges_file: str,
    output_dir: str,
    add_pad_token: bool = False,
    overwrite: bool = False,
) -> PreTrainedTokenizerFast:
    """Make GPT-2's tokenizer from its two files and save it.

    Args:
        vocab_file: GPT-2's vocab.json (or encoder.json).
        merges_file: GPT-2's merges.txt (or vocab.bpe).
        output_dir: Folder for the tokenizer.
        add_pad_token: Add a padding token as id 50257. Without it <|endoftext|> pads, and GPT-2's
            weights with their 50257 tokens fit.
        overwrite: Replace a tokenizer in output_dir.

    Returns:
        The tokenizer.

    Raises:
        UserError: If the files are not GPT-2's format or the folder holds something.
    """
    folder = Path(output_dir).expanduser()
    check_output_folder(folder, overwrite)
    tokenizer = load_gpt2(vocab_file, merges_file, add_pad_token=add_pad_token)
    save_tokenizer(tokenizer, folder)
    print(f"Saved a tokenizer with {len(tokenizer):,} tokens in {folder}")
    return tokenizer


def inspect(tokenizer_dir: str, text: str) -> None:
    """Show the tokens and ids of a text.

    Args:
        tokenizer_dir: Folder with a tokenizer.
        text: The text; - reads standard input.

    Raises:
        UserError: If there is no tokenizer in the folder.
    """
    tokenizer = load_tokenizer(tokenizer_dir)
    if text == "-":
        text = sys.stdin.buffer.read().decode("utf-8", "replace")
    tokens = reports.inspect(tokenizer, text)
    rows = [
        (str(position), str(token_id), token, kind)
        for position, (token_id, token, kind) in enumerate(tokens)
    ]
    if rows:
        print(reports.table(("position", "id", "token", ""), rows, left=4))
    words = f"{len(tokens):,} token{'' if len(tokens) == 1 else 's'}"
    ratio = f", {len(text.encode()) / len(tokens):.2f} bytes per token" if tokens else ""
    print(f"{words} for {len(text.encode()):,} bytes{ratio}")


def report(
    tokenizer_dir: str,
    files: Sequence[str] = (),
    language_samples: Sequence[str] = (),
    gpt2: Sequence[str] = (),
    text_column: str | None = None,
    output_file: str | None = None,
) -> list[reports.Measurement]:
    """Measure how well a tokenizer compresses held-out text.

    Args:
        tokenizer_dir: Folder with a tokenizer.
        files: Held-out text, measured together.
        language_samples: Samples that are measured one by one, as name=file.
        gpt2: GPT-2's vocab.json and merges.txt, to measure its tokenizer beside.
        text_column: Column with the text, for tables.
        output_file: Also write the figures to this file as JSON.

    Returns:
        The measurements, those of a sample next to each other.

    Raises:
        UserError: If a file or the tokenizer cannot be read.
    """
    sources = {"held-out text": TextSource(files=files, text_column=text_column)} if files else {}
    for name, file in reports.parse_samples(language_samples).items():
        sources[name] = TextSource(files=[file], text_column=text_column)
    if not sources:
        raise UserError("There is nothing to measure. Give --files or --language_samples.")
    if len(gpt2) not in (0, 2):
        raise UserError(f"--gpt2 needs two files, vocab.json and merges.txt; {len(gpt2)} given.")
    tokenizers = {Path(tokenizer_dir).name or tokenizer_dir: load_tokenizer(tokenizer_dir)}
    if gpt2:
        tokenizers["GPT-2"] = load_gpt2(*gpt2)
    measurements = reports.compare(tokenizers, sources)
    print(reports.format_measurements(measurements))
    if output_file:
        text = json.dumps([one.to_dict() for one in measurements], ensure_ascii=False, indent=2)
        Path(output_file).write_text(text + "\n", encoding="utf-8")
    return measurements


class _Parser(ArgumentParser):
    """A parser that says what is wrong as all commands do."""

    flags: Mapping[str, Any] = {}

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:
            super().error(message, ex)
        command = self.prog.replace(" [options]", "")
        self.exit(2, f"error: {explain(message, self.flags, command)}\n")


def _train_parser() -> _Parser:
    parser = _new_parser("Train a byte-level BPE tokenizer on files or a hub dataset.")
    parser.add_class_arguments(TrainOptions)
    parser.flags = get_type_hints(TrainOptions)
    return parser


def _import_parser() -> _Parser:
    parser = _new_parser("Make GPT-2's tokenizer from its two files.")
    positionals = ("vocab_file", "merges_file", "output_dir")
    parser.add_argument("vocab_file", type=str, help="GPT-2's vocab.json (or encoder.json).")
    parser.add_argument("merges_file", type=str, help="GPT-2's merges.txt (or vocab.bpe).")
    parser.add_argument("output_dir", type=str, help="Folder for the tokenizer.")
    parser.add_function_arguments(import_gpt2, skip=set(positionals))
    parser.flags = _flags_of(import_gpt2, positionals)
    return parser


def _inspect_parser() -> _Parser:
    parser = _new_parser("Show the tokens and ids of a text.")
    parser.add_argument("tokenizer_dir", type=str, help="Folder with a tokenizer.")
    parser.add_argument("text", type=str, help="The text; - reads standard input.")
    return parser


def _report_parser() -> _Parser:
    parser = _new_parser("Measure how well a tokenizer compresses held-out text.")
    parser.add_argument("tokenizer_dir", type=str, help="Folder with a tokenizer.")
    parser.add_function_arguments(report, skip={"tokenizer_dir"})
    parser.flags = _flags_of(report, ("tokenizer_dir",))
    return parser


def _flags_of(function: Callable[..., object], positionals: Sequence[str]) -> dict[str, Any]:
    hints = get_type_hints(function)
    return {name: hint for name, hint in hints.items() if name not in (*positionals, "return")}


def _new_parser(description: str) -> _Parser:
    parser = _Parser(description=description, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file with values for the flags.")
    return parser


_VERBS: dict[str, tuple[Callable[[], _Parser], str]] = {
    "train": (_train_parser, "train a tokenizer on text"),
    "import-gpt2": (_import_parser, "make GPT-2's tokenizer from vocab.json and merges.txt"),
    "inspect": (_inspect_parser, "show the tokens and ids of a text"),
    "report": (_report_parser, "measure a tokenizer on held-out text"),
}


def main(argv: list[str] | None = None) -> None:
    """Run the command that ``argv`` names.

    Args:
        argv: Arguments after ``genmodels tokenizer``; None takes those of the process.

    Raises:
        UserError: If what was asked for cannot work.
    """
    parser = _Parser(
        prog="genmodels tokenizer",
        description="Make and examine tokenizers.",
        allow_abbrev=False,
    )
    commands = parser.add_subcommands(metavar="COMMAND")
    arguments = list(sys.argv[1:] if argv is None else argv)
    for name, (build, text) in _VERBS.items():
        command = build()
        commands.add_subcommand(name, command, help=text)
        if arguments[:1] == [name]:
            arguments = [name, *spell_out(arguments[1:], command.flags)]
            parser.flags = command.flags
    parsed = parser.parse_args(arguments)
    values: Namespace = parsed[parsed.subcommand]
    options = {name: value for name, value in values.as_dict().items() if name != "config"}
    functions: dict[str, Callable[..., object]] = {
        "train": lambda **fields: train(TrainOptions(**fields)),
        "import-gpt2": import_gpt2,
        "inspect": inspect,
        "report": report,
    }
    try:
        functions[parsed.subcommand](**options)
    except OSError as error:
        place = f" '{error.filename}'" if error.filename else ""
        raise UserError(f"Reading or writing{place} failed: {error.strerror}.") from error


if __name__ == "__main__":
    try:
        main()
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        sys.exit(2)
