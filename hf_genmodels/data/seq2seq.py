"""The training and validation pairs of a sequence-to-sequence model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from hf_genmodels.config.pairs import PairDataConfig
from hf_genmodels.data.buckets import TokenBudgetSampler, pair_loader
from hf_genmodels.data.hub_datasets import validation_split
from hf_genmodels.data.packing import IGNORED
from hf_genmodels.data.pair_cache import PairCache, build_pair_cache
from hf_genmodels.data.pairs import PairSource
from hf_genmodels.data.poems import PoemWindows, poem_loader
from hf_genmodels.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Tokenizers:
    """How texts become tokens.

    Attributes:
        source: Tokenizer of what the model reads.
        target: Tokenizer of what it writes; the same object where both sides share one.
    """

    source: PreTrainedTokenizerFast
    target: PreTrainedTokenizerFast

    @property
    def separate(self) -> PreTrainedTokenizerFast | None:
        """The target's tokenizer, if it is another one than the source's."""
        return None if self.target is self.source else self.target


@dataclass(frozen=True)
class PairData:
    """What a sequence-to-sequence model is trained and validated on.

    Attributes:
        train: Training pairs.
        validation: Validation pairs, no more than were asked for.
        validation_name: Where they are from, in words.
    """

    train: PairCache
    validation: PairCache
    validation_name: str

    @property
    def fingerprint(self) -> str:
        """Digest of all of it."""
        return self.train.fingerprint + self.validation.fingerprint


def pair_sources(config: PairDataConfig) -> tuple[PairSource, PairSource | None]:
    """Return the sources of training and validation pairs, checked.

    Raises:
        UserError: If a file, column, language or dataset cannot be used.
    """
    columns: dict[str, Any] = {
        name: getattr(config, name)
        for name in (
            "source_column",
            "target_column",
            "source_lang",
            "target_lang",
            "text_column",
            "split_at",
            "group_column",
        )
    }
    if config.dataset_name:
        dataset: dict[str, Any] = {
            "dataset_name": config.dataset_name,
            "dataset_config_name": config.dataset_config_name,
        }
        train = PairSource(**dataset, **columns)
        train.check()
        split = validation_split(config.dataset_name, config.dataset_config_name)
        return train, PairSource(**dataset, split=split, **columns) if split else None
    train = PairSource(
        files=config.train_file,
        source_files=config.train_source_file,
        target_files=config.train_target_file,
        **columns,
    )
    train.check()
    if not config.has_validation_files:
        return train, None
    validation = PairSource(
        files=config.validation_file,
        source_files=config.validation_source_file,
        target_files=config.validation_target_file,
        **columns,
    )
    validation.check()
    return train, validation


def load_pair_data(
    config: PairDataConfig, tokenizers: Tokenizers, *, show_progress: bool = True
) -> PairData:
    """Tokenise the pairs, or find them tokenised.

    Args:
        config: Where the pairs come from and how long they may be.
        tokenizers: The model's tokenizers.
        show_progress: Whether this process shows a bar.

    Raises:
        UserError: If the pairs cannot be used or are too few.
    """

    def tokens_of(source: PairSource) -> PairCache:
        return build_pair_cache(
            source,
            tokenizers.source,
            tokenizers.target,
            config.cache_dir,
            max_source_tokens=config.max_source_length,
            max_target_tokens=config.max_target_length,
            overlong=config.overlong,
            show_progress=show_progress,
        )

    train_source, validation_source = pair_sources(config)
    train = tokens_of(train_source)
    name = config.train_names
    if validation_source is not None:
        validation = tokens_of(validation_source)
        name = config.validation_names
    else:
        share = config.validation_split_percentage / 100
        held_out = max(1, round(len(train) * share))
        if held_out >= len(train):
            raise UserError(
                f"There are {len(train)} pairs, too few to train and validate on. Give more pairs."
            )
        validation = train.part(len(train) - held_out, len(train))
        train = train.part(0, len(train) - held_out)
        name = f"last {config.validation_split_percentage:g} % of {name}"
    limit = config.max_eval_pairs
    return PairData(train, validation if limit is None else validation.part(0, limit), name)


class Counts(NamedTuple):
    """What stands in some batches.

    Attributes:
        tokens: Target tokens.
        pairs: Pairs.
        negatives: Tokens of negative targets that are not in the own ones.
        source_tokens: Source tokens.
        positions: Positions of both sides, padding included.
    """

    tokens: int
    pairs: int
    negatives: int
    source_tokens: int
    positions: int

    @property
    def padding(self) -> float:
        """Which part of the positions is padding, 0 .. 1."""
        return 1 - (self.tokens + self.source_tokens) / max(self.positions, 1)


def count_items(batch: dict[str, torch.Tensor]) -> Counts:
    """Return what stands in a batch, as `collate_pairs` or `collate_poems` makes it."""
    negatives = batch.get("negative_labels")
    return Counts(
        tokens=int((batch["labels"] != IGNORED).sum()),
        pairs=len(batch["labels"]),
        negatives=0 if negatives is None else int((negatives != IGNORED).sum()),
        source_tokens=int(batch["attention_mask"].sum()),
        positions=batch["attention_mask"].numel() + batch["labels"].numel(),
    )


class PairBatches:
    """An endless iterator over one rank's training batches.

    Args:
        config: Budget of a batch.
        train: Training pairs.
        pad_token_id: Id that fills up sources.
        seed: Seed of the order.
        with_groups: Whether each pair comes with one that belongs to it and one that does not.
        rank: Number of this process.
        world_size: Number of processes.
        accumulation: Batches of one process in an optimizer step.
        start: What `position` was when the batches before had been used.
        num_workers: Processes that prepare batches.
    """

    def __init__(
        self,
        config: PairDataConfig,
        train: PairCache,
        *,
        pad_token_id: int,
        seed: int,
        with_groups: bool = False,
        rank: int = 0,
        world_size: int = 1,
        accumulation: int = 1,
        start: dict[str, int] | None = None,
        num_workers: int = 0,
    ):
        self._sampler = TokenBudgetSampler(
            train.source_lengths,
            train.target_lengths,
            max_tokens=config.batch_tokens,
            seed=seed,
            rank=rank,
            world_size=world_size,
            accumulation=accumulation,
            start=start,
        )
        options: dict[str, Any] = {"pad_token_id": pad_token_id, "num_workers": num_workers}
        if with_groups:
            loader = poem_loader(PoemWindows(train, seed=seed), self._sampler, **options)
        else:
            loader = pair_loader(train, self._sampler, **options)
        self._batches = iter(loader)
        self._used = 0

    def __next__(self) -> dict[str, torch.Tensor]:
        """Return the next batch, as `collate_pairs` or `collate_poems` makes it."""
        batch: dict[str, torch.Tensor] = next(self._batches)
        self._used += 1
        return batch

    @property
    def position(self) -> dict[str, int]:
        """Where the batches stand after the last one, JSON-able."""
        return self._sampler.state_after(self._used)
