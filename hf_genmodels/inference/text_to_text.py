"""A sequence-to-sequence model with its tokenizers: texts in, texts out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from hf_genmodels.data.seq2seq import Tokenizers
from hf_genmodels.errors import UserError
from hf_genmodels.hub.folder import TARGET_TOKENIZER
from hf_genmodels.hub.loading import (
    load_model,
    load_target_tokenizer,
    load_tokenizer,
    place_model,
)
from hf_genmodels.models.decoding import Hypothesis, batches_by_tokens, decode, max_positions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BATCH_TOKENS = 8192


@dataclass(frozen=True)
class Encoded:
    """The tokens of some texts.

    Attributes:
        ids: Token ids of each text, the end of a sequence included, within the model's positions.
        cut: How many texts were cut to that length.
    """

    ids: list[list[int]]
    cut: int


@dataclass(frozen=True)
class TextToText:
    """A model that makes one text of another.

    Attributes:
        model: The model, in eval mode, where it computes.
        tokenizers: Its tokenizers.
    """

    model: Any
    tokenizers: Tokenizers

    @property
    def limit(self) -> int | None:
        """Most tokens of a source or a target; `None` if there is no limit."""
        return max_positions(self.model)

    def placed(self, device: str | None = None, *, int8: bool = False) -> TextToText:
        """Return it where it shall compute; see `place_model`.

        Raises:
            UserError: If the device cannot be used, or 8-bit weights do not go with it.
        """
        return replace(self, model=place_model(self.model, device, int8=int8))

    def fingerprint(self) -> str:
        """Return a SHA-256 of the weights, the configuration and the tokenizers."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy())
        for settings in (self.model.config, self.model.generation_config):
            values = settings.to_dict()
            for name in ("_name_or_path", "transformers_version"):
                values.pop(name, None)
            digest.update(json.dumps(values, sort_keys=True, default=str).encode())
        for tokenizer in (self.tokenizers.source, self.tokenizers.target):
            digest.update(tokenizer.backend_tokenizer.to_str().encode())
        return digest.hexdigest()

    def encode_sources(
        self, texts: Sequence[str], overlong: str = "truncate", numbers: Sequence[int] = ()
    ) -> Encoded:
        """Return the tokens of sources.

        Args:
            texts: The sources.
            overlong: What happens to one that is longer than the limit: truncate or error.
            numbers: Number of each text, for messages. By default they are counted from 1.

        Raises:
            UserError: If one is too long and must not be cut.
        """
        return self._encode(self.tokenizers.source, texts, overlong, "source", numbers)

    def encode_targets(
        self, texts: Sequence[str], overlong: str = "truncate", numbers: Sequence[int] = ()
    ) -> Encoded:
        """Return the tokens of targets; see `encode_sources`."""
        return self._encode(self.tokenizers.target, texts, overlong, "target", numbers)

    def decode_target(self, ids: Sequence[int]) -> str:
        """Return the text of target tokens."""
        return str(self.tokenizers.target.decode(list(ids), skip_special_tokens=True)).strip()

    def search(
        self,
        sources: list[list[int]],
        settings: dict[str, Any],
        *,
        return_scores: bool = False,
        return_attention: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> list[list[Hypothesis]]:
        """Decode from the tokens of each source; see `decode`.

        Raises:
            UserError: If settings are impossible or contradict each other.
        """
        try:
            return decode(
                self.model,
                sources,
                batch_tokens=BATCH_TOKENS,
                return_scores=return_scores,
                return_attention=return_attention,
                progress=progress,
                **settings,
            )
        except ValueError as error:
            raise UserError(f"The model cannot generate like this: {error}") from error

    def drafts(self, sources: list[list[int]], settings: dict[str, Any]) -> list[str]:
        """Return the first pass of a model that refines its draft, for each source."""
        drafts = [""] * len(sources)
        for batch in batches_by_tokens(list(map(len, sources)), BATCH_TOKENS):
            inputs = self.tokenizers.source.pad(
                {"input_ids": [sources[index] for index in batch]}, return_tensors="pt"
            ).to(self.model.device)
            with torch.inference_mode():
                found = self.model.generate(
                    inputs["input_ids"],
                    attention_mask=inputs["attention_mask"],
                    return_draft=True,
                    **settings,
                )
            for index, ids in zip(batch, found["draft_sequences"].tolist(), strict=True):
                drafts[index] = self.decode_target(ids)
        return drafts

    def _encode(
        self,
        tokenizer: PreTrainedTokenizerFast,
        texts: Sequence[str],
        overlong: str,
        side: str,
        numbers: Sequence[int],
    ) -> Encoded:
        encoded, cut = [], 0
        limit = self.limit
        ids_of_texts = tokenizer(list(texts), verbose=False)["input_ids"] if texts else []
        numbers = numbers or range(1, len(texts) + 1)
        for number, ids in zip(numbers, ids_of_texts, strict=True):
            if not ids or ids[-1] != tokenizer.eos_token_id:
                ids.append(tokenizer.eos_token_id)
            if limit is not None and len(ids) > limit:
                if overlong == "error":
                    raise UserError(
                        f"The {side} {number:,} has {len(ids):,} tokens, and the model has {limit:,} "
                        "positions. Shorten it, or let it be cut with --overlong truncate."
                    )
                ids = [*ids[: limit - 1], ids[-1]]
                cut += 1
            encoded.append(ids)
        return Encoded(encoded, cut)


def load_text_to_text(name: str) -> TextToText:
    """Load a sequence-to-sequence model and its tokenizers.

    Args:
        name: A folder, a checkpoint of a run, or the name of a repository on the hub.

    Raises:
        UserError: If something cannot be loaded, or does not belong together.
    """
    source = load_tokenizer(name)
    tokenizers = Tokenizers(source, load_target_tokenizer(name) or source)
    model: Any = load_model(name)
    check_tokenizers(name, model, tokenizers)
    return TextToText(model, tokenizers)


def check_tokenizers(name: str, model: Any, tokenizers: Tokenizers) -> None:
    """Check that tokenizers are those that a model was trained with, as far as can be seen.

    Args:
        name: Where both come from.
        model: The model.
        tokenizers: The tokenizers.

    Raises:
        UserError: If one has tokens that the model has not, or other special tokens.
    """
    config = model.config
    sizes = (getattr(config, "source_vocab_size", None) or config.vocab_size, config.vocab_size)
    if len(set(sizes)) > 1 and tokenizers.separate is None:
        raise UserError(
            f"The model in '{name}' has a vocabulary of {sizes[0]:,} tokens for sources and one of "
            f"{sizes[1]:,} for targets, but there is only one tokenizer: the folder "
            f"{TARGET_TOKENIZER}/ is missing."
        )
    sides = (("sources", tokenizers.source), ("targets", tokenizers.target))
    for (side, tokenizer), size in zip(sides, sizes, strict=True):
        if tokenizer.eos_token_id is None:
            raise UserError(
                f"The tokenizer of the {side} has no token that ends a text (eos_token)."
            )
        number = max(tokenizer.get_vocab().values()) + 1
        if number > size:
            raise UserError(
                f"The tokenizer of the {side} in '{name}' has {number:,} tokens, the model only knows "
                f"{size:,}: they do not belong together."
            )
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    if ends != [None] and tokenizers.target.eos_token_id not in ends:
        raise UserError(
            f"The tokenizer of the targets in '{name}' ends a text with token "
            f"{tokenizers.target.eos_token_id}, the model with {', '.join(map(str, ends))}: they do "
            "not belong together."
        )


def moving(bar: Any) -> Callable[[int], None]:
    """Return what moves a progress bar on by so many items from where it stands, not by the last step."""
    begun = bar.n

    def move(done: int) -> None:
        bar.update(begun + done - bar.n)

    return move


def chunks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Yield lists of so many items, the last one shorter."""
    chunk: list[Any] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
