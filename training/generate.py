"""Continue prompts with a language model.

genmodels generate my-model "It was a dark" --num_return_sequences 3 --top_k 50 --temperature 0.8
genmodels generate my-model --file prompts.txt --output texts.jsonl
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from hf_genmodels.config.commands import parse_command
from hf_genmodels.errors import UserError
from hf_genmodels.hub.card_text import printable

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

# Flags that are passed to `generate` as they are.
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "num_beams")


@dataclass
class GenerateOptions:
    """Options of `genmodels generate`. What is left out comes from generation_config.json."""

    model: str
    """Folder or hub id of the model."""

    prompts: list[str] = field(default_factory=list)
    """Texts to continue; none, or an empty one, starts a new text."""

    file: str | None = None
    """Text file with a prompt on each line."""

    output: str | None = None
    """File to write as JSON lines, instead of printing."""

    num_return_sequences: int = 1
    """Texts for each prompt."""

    max_new_tokens: int | None = None
    """Longest continuation in tokens."""

    temperature: float | None = None
    """Divides the logits: below 1 is safer, above 1 is wilder."""

    top_k: int | None = None
    """Draw from so many most likely tokens; 0 for all."""

    top_p: float | None = None
    """Draw from the smallest set of tokens with this probability."""

    min_p: float | None = None
    """Draw from tokens with at least this share of the likeliest one's probability."""

    repetition_penalty: float | None = None
    """Above 1: makes tokens that have occurred less likely."""

    num_beams: int | None = None
    """Beam search with so many beams, without drawing."""

    greedy: bool = False
    """Always take the likeliest token, without drawing."""

    seed: int | None = None
    """Seed of the drawing; the same seed gives the same texts."""

    int8: bool = False
    """Round the weights to 8 bits: several times faster on a CPU, slightly different texts."""

    device: str | None = None
    """Where to compute: cpu, cuda, cuda:1, mps; by default a GPU if there is one."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            UserError: If a value cannot work, or options contradict each other.
        """
        for name in ("num_return_sequences", "max_new_tokens", "num_beams"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name} is {value}. It must be at least 1.")
        if self.top_k is not None and self.top_k < 0:
            raise UserError(f"--top_k is {self.top_k}. It must be 0 (all tokens) or more.")
        for name in ("temperature", "repetition_penalty"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                hint = " For the likeliest tokens use --greedy." if name == "temperature" else ""
                raise UserError(f"--{name} is {value}. It must be positive.{hint}")
        for name in ("top_p", "min_p"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise UserError(f"--{name} is {value}. It must lie in (0, 1].")
        self._check_search()
        if self.file is not None and self.prompts:
            raise UserError("Prompts come either from the command line or from --file, not both.")

    def _check_search(self) -> None:
        """Check the options that turn drawing off."""
        if not self.draws:
            given = "--greedy" if self.greedy else "--num_beams"
            for name in ("temperature", "top_k", "top_p", "min_p"):
                if getattr(self, name) is not None:
                    raise UserError(f"{given} draws nothing, so --{name} has no meaning with it.")
        most = (self.num_beams or 1) if not self.draws else self.num_return_sequences
        if self.num_return_sequences > most:
            raise UserError(
                f"--num_return_sequences is {self.num_return_sequences}, but without drawing there "
                f"are only {most} different texts. Raise --num_beams, or draw."
            )

    @property
    def draws(self) -> bool:
        """Whether tokens are drawn at random."""
        return not self.greedy and (self.num_beams or 1) == 1

    def to_kwargs(self) -> dict[str, Any]:
        """Return the arguments of `generate`."""
        given = {name: getattr(self, name) for name in SAMPLING if getattr(self, name) is not None}
        given["num_return_sequences"] = self.num_return_sequences
        if self.draws:
            return {"do_sample": True, **given}
        # Settings for drawing that stand in generation_config.json would only cause warnings.
        return {"do_sample": False, "temperature": 1.0, "top_p": 1.0, "top_k": 50, **given}


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
    prompts = _prompts(options)
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
        pad_token_id=_pad_token_id(tokenizer),
        **options.to_kwargs(),
    )
    texts = []
    for sequence in sequences[:, ids.shape[1] :]:
        count = int((sequence != _pad_token_id(tokenizer)).sum())
        texts.append(Text(prompt, tokenizer.decode(sequence, skip_special_tokens=True), count))
    return texts


def _pad_token_id(tokenizer: PreTrainedTokenizerFast) -> int | None:
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def _prompts(options: GenerateOptions) -> list[str]:
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


def _print_text(text: Text, number: int, options: GenerateOptions) -> None:
    many = options.num_return_sequences > 1 or len(options.prompts) > 1 or options.file
    if many:
        print(f"--- {number}" if number == 1 else f"\n--- {number}")
    shown = text.prompt + text.continuation
    # A terminal would obey control characters that the model may have learned.
    print(printable(shown) if sys.stdout.isatty() else shown, flush=True)


def _write_text(text: Text, file: TextIO) -> None:
    line = {
        "prompt": text.prompt,
        "text": text.prompt + text.continuation,
        "continuation": text.continuation,
        "num_tokens": text.num_tokens,
    }
    file.write(json.dumps(line, ensure_ascii=False) + "\n")
    file.flush()


def main(argv: Sequence[str] | None = None) -> None:
    """Run `genmodels generate`.

    Args:
        argv: Arguments after the command; `None`: those of the process.

    Raises:
        UserError: If what was asked for cannot work.
    """
    options = parse_command(
        GenerateOptions,
        argv,
        command="genmodels generate",
        description="Continue prompts with a language model.",
        positionals={
            "model": "Folder or hub id of the model.",
            "prompts": "Texts to continue; none, or an empty one, starts a new text.",
        },
    )
    output = Path(options.output).expanduser() if options.output else None
    if output is not None and not output.absolute().parent.is_dir():
        raise UserError(f"--output {output}: there is no folder {output.parent}.")
    texts = generate(options)
    first = next(texts)  # what cannot work shows before the file is touched
    with output.open("w", encoding="utf-8") if output else nullcontext() as file:
        for number, text in enumerate(itertools.chain([first], texts), start=1):
            if file is not None:
                _write_text(text, file)
            else:
                _print_text(text, number, options)
    if output is not None:
        print(f"wrote {number:,} texts to {output}")


if __name__ == "__main__":
    from hf_genmodels.cli import run_command

    run_command(main)
