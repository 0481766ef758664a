"""What the formats of `genmodels export` share: their report, and texts to compare models on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_genmodels.errors import UserError
from hf_genmodels.hub import verify

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

# Logits of the same network in another order of operations, relative to their largest value.
TOLERANCE = 1e-4
NUM_SOURCES = 8
MAX_SOURCE_TOKENS = 24
MAX_NEW_TOKENS = 24


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote and how it was checked.

    Attributes:
        folder: The folder.
        format: Its format.
        largest_difference: Largest absolute difference of the logits to those of the source; of
            log-probabilities where the format gives no logits.
        text: What was checked, in words.
    """

    folder: Path
    format: str
    largest_difference: float
    text: str


def check_difference(
    out: Path,
    found: torch.Tensor,
    expected: torch.Tensor,
    tolerance: float | None = None,
    what: str = "logits",
) -> float:
    """Return the largest difference of what a written model and its source compute.

    Args:
        out: The folder that was written.
        found: What the written model computes.
        expected: What its source computes.
        tolerance: Largest difference that may be, relative to the largest number. `None`: what
            another order of operations explains.
        what: What was compared, in words.

    Raises:
        UserError: If it is more.
    """
    tolerance = TOLERANCE if tolerance is None else tolerance
    difference: float = (found - expected).abs().max().item()
    if not difference <= tolerance * expected.abs().max().item():
        raise UserError(
            f"'{out}' computes other {what} than its source: largest difference {difference:.3g}."
        )
    return difference


def check_tokenizer(out: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Check that AutoTokenizer finds a tokenizer in a folder that gives the same tokens.

    Raises:
        UserError: If it gives others.
    """
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(out)(verify.TEXT, verbose=False)
    if found != tokenizer(verify.TEXT, verbose=False):
        raise UserError(f"The tokenizer in '{out}' gives other tokens than that of the source.")


def check_loading(out: Path, info: Mapping[str, Any], name: str) -> None:
    """Check that every weight was there and none was left over.

    Args:
        out: The folder that was loaded.
        info: What `from_pretrained(..., output_loading_info=True)` returned beside the model.
        name: What the folder should be, such as "GPT-2".

    Raises:
        UserError: If not.
    """
    if info["missing_keys"] or info["unexpected_keys"] or info["mismatched_keys"]:
        raise UserError(f"'{out}' is not a complete {name}: {dict(info)}.")


def fixed_sources(model: PreTrainedModel) -> list[list[int]]:
    """Return sources of several lengths that depend on the model's sizes only, each with its end."""
    import torch

    config = model.config
    ends = config.eos_token_id
    end = ends[0] if isinstance(ends, list) else ends
    special = {end, config.bos_token_id, config.pad_token_id, config.decoder_start_token_id}
    size = config.source_vocab_size or config.vocab_size
    usable = torch.tensor([token for token in range(size) if token not in special])
    longest = min(MAX_SOURCE_TOKENS, config.max_position_embeddings)
    generator = torch.Generator().manual_seed(0)
    sources = []
    for row in range(NUM_SOURCES):
        length = max(1, longest * (row + 1) // NUM_SOURCES - 1)
        picked = torch.randint(len(usable), (length,), generator=generator)
        sources.append([*usable[picked].tolist(), end])
    return sources


def padded(sources: Sequence[Sequence[int]], pad_id: int) -> dict[str, torch.Tensor]:
    """Return token ids (B, S) of sources, padded on the right, and their mask."""
    import torch

    rows = [torch.tensor(source) for source in sources]
    masks = [torch.ones_like(row) for row in rows]
    return {
        "input_ids": torch.nn.utils.rnn.pad_sequence(rows, True, pad_id),
        "attention_mask": torch.nn.utils.rnn.pad_sequence(masks, True),
    }


def translate(
    model: PreTrainedModel, sources: Sequence[Sequence[int]], num_beams: int
) -> list[list[int]]:
    """Return what a model makes of sources, without start, end and padding.

    Args:
        model: An encoder-decoder in eval mode.
        sources: Token ids.
        num_beams: 1 is greedy search.
    """
    from transformers import GenerationConfig

    config = model.config
    settings = GenerationConfig(
        num_beams=num_beams,
        do_sample=False,
        max_new_tokens=min(MAX_NEW_TOKENS, config.max_position_embeddings - 1),
        eos_token_id=config.eos_token_id,
        bos_token_id=config.bos_token_id,
        pad_token_id=config.pad_token_id,
        decoder_start_token_id=config.decoder_start_token_id,
    )
    generator: Any = model
    batch = padded(sources, config.pad_token_id)
    own_settings = generator.generation_config  # would fill what is not set here
    generator.generation_config = settings
    try:
        output = generator.generate(**batch)[:, 1:]
    finally:
        generator.generation_config = own_settings
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    results = []
    for row in output.tolist():
        end = next((place for place, token in enumerate(row) if token in ends), len(row))
        results.append(row[:end])
    return results
