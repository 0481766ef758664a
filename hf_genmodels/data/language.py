"""The training and validation text of a language model, from files or a hub dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hf_genmodels.config.run import TextDataConfig, file_names
from hf_genmodels.data.cache import TokenCache, build_token_cache
from hf_genmodels.data.hub_datasets import validation_split
from hf_genmodels.data.packing import IGNORED, PackedWindows
from hf_genmodels.data.sampling import PositionSampler, train_loader
from hf_genmodels.data.sources import TextSource
from hf_genmodels.data.streaming import StreamingWindows, stream_loader
from hf_genmodels.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hf_genmodels.data.pixels import PixelData


@dataclass(frozen=True)
class TokenSlice(TokenCache):
    """A stretch of a token cache.

    Attributes:
        start: Index of its first token in the whole cache.
        stop: Index after its last token.
    """

    start: int = 0
    stop: int = 0

    @classmethod
    def of(cls, cache: TokenCache, start: int, stop: int) -> TokenSlice:
        """Return the tokens from `start` to `stop`.

        A cut document begins anew at `start`, and its first token there is not scored. At `stop - 1`
        no document begins. The bytes are estimated by the share of the tokens that are scored.
        """
        starts = np.asarray(cache.document_starts)
        inside = starts[(starts > start) & (starts < stop - 1)] - start
        share = (stop - start - 1) / (len(cache.tokens) - 1)
        return cls(
            tokens=cache.tokens[start:stop],
            document_starts=np.concatenate(([0], inside)),
            fingerprint=f"{cache.fingerprint}[{start}:{stop}]",
            num_bytes=round(cache.num_bytes * share),
            path=cache.path,
            max_token_id=cache.max_token_id,
            start=start,
            stop=stop,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a worker process map the files again rather than receive their content."""
        return _open_slice, (self.path, self.start, self.stop)


def _open_slice(path: Any, start: int, stop: int) -> TokenSlice:
    return TokenSlice.of(TokenCache.open(path), start, stop)


@dataclass
class TextData:
    """What a language model is trained and validated on.

    Attributes:
        windows: Training windows; `None` when the data are streamed.
        stream: Source of a stream; `None` when the data are stored.
        validation: Validation windows, if there is any validation text.
        validation_name: Where they are from, in words.
        bytes_per_token: UTF-8 bytes of validation text per scored token, for bits per byte.
        fingerprint: Digest of all of it.
        processor: There is none.
    """

    windows: PackedWindows | None
    stream: TextSource | None
    validation: PackedWindows | None
    validation_name: str
    bytes_per_token: float
    fingerprint: str
    processor: None = None


def text_sources(config: TextDataConfig) -> tuple[TextSource, TextSource | None]:
    """Return the sources of training and validation text, checked.

    Raises:
        UserError: If a file, column or dataset cannot be used.
    """
    shared: dict[str, Any] = {"text_column": config.text_column, "sample_by": config.sample_by}
    if config.dataset_name:
        train = TextSource(
            dataset_name=config.dataset_name,
            dataset_config_name=config.dataset_config_name,
            streaming=config.streaming,
            **shared,
        )
        train.check()
        split = validation_split(config.dataset_name, config.dataset_config_name)
        validation = None
        if split is not None:
            validation = TextSource(
                dataset_name=config.dataset_name,
                dataset_config_name=config.dataset_config_name,
                split=split,
                **shared,
            )
        return train, validation
    train = TextSource(files=config.train_file, streaming=config.streaming, **shared)
    train.check()
    if not config.validation_file:
        return train, None
    validation = TextSource(files=config.validation_file, **shared)
    validation.check()
    return train, validation


def load_text_data(
    config: TextDataConfig,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    show_progress: bool = True,
) -> TextData:
    """Tokenise the text, or find it tokenised, and cut it into windows.

    Args:
        config: Where the text comes from and how long a window is.
        tokenizer: The model's tokenizer.
        seed: Seed of the order of the windows.
        show_progress: Whether this process shows a bar.

    Raises:
        UserError: If the text cannot be used or is shorter than one window.
    """
    train_source, validation_source = text_sources(config)

    def tokens_of(source: TextSource) -> TokenCache:
        return build_token_cache(source, tokenizer, config.cache_dir, show_progress=show_progress)

    validation_cache = tokens_of(validation_source) if validation_source else None
    windows = stream = None
    fingerprint = train_source.fingerprint()
    if config.streaming:
        stream = train_source
    else:
        train_cache = tokens_of(train_source)
        if validation_cache is None:
            train_cache, validation_cache = _hold_out(
                train_cache, config.validation_split_percentage / 100, config.block_size
            )
        windows = PackedWindows(train_cache, config.block_size, shift=True, seed=seed)
        fingerprint = train_cache.fingerprint
    validation = bytes_per_token = None
    if validation_cache is not None:
        bytes_per_token = validation_cache.num_bytes / (len(validation_cache.tokens) - 1)
        fingerprint += validation_cache.fingerprint
        validation = _first_windows(validation_cache, config.block_size, config.max_eval_windows)
    name = _name_of(validation_source or train_source)
    if validation_source is None:
        name = f"last {config.validation_split_percentage:g} % of {name}"
    return TextData(windows, stream, validation, name, bytes_per_token or 0.0, fingerprint)


def count_targets(batch: dict[str, torch.Tensor]) -> int:
    """Return how many tokens of a batch are predicted."""
    return int((batch["labels"] != IGNORED).sum())


class TrainingBatches:
    """An endless iterator over one rank's training batches.

    Args:
        config: Windows and stream options.
        data: The training data.
        tokenizer: Tokenizer of a stream.
        batch_size: Windows in a batch of one rank.
        seed: Seed of the order.
        rank: Number of this process.
        world_size: Number of processes.
        start: Windows consumed before, over all ranks.
        num_workers: Processes that prepare batches.
        stream_state: What `stream_state` returned on this rank, for a stream that goes on.
    """

    def __init__(
        self,
        config: TextDataConfig,
        data: TextData | PixelData,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
        num_workers: int = 0,
        stream_state: dict[str, Any] | None = None,
    ):
        self._stream: StreamingWindows | None = None
        if data.windows is not None:
            sampler = PositionSampler(
                len(data.windows),
                batch_size=batch_size,
                seed=seed,
                rank=rank,
                world_size=world_size,
                start=start,
            )
            self._batches = iter(train_loader(data.windows, sampler, num_workers))
            return
        assert data.stream is not None
        self._stream = StreamingWindows(
            data.stream,
            tokenizer,
            config.block_size,
            rank=rank,
            world_size=world_size,
            seed=seed,
            shuffle_buffer=config.shuffle_buffer,
        )
        if stream_state is not None:
            self._stream.load_state_dict(stream_state)
        self._batches = iter(stream_loader(self._stream, batch_size, num_workers))

    def __next__(self) -> dict[str, torch.Tensor]:
        """Return the next batch: input_ids, labels and, if needed, position_ids, each (B, T)."""
        return next(self._batches)

    @property
    def stream_state(self) -> dict[str, Any] | None:
        """Position of a stream right after the last batch, JSON-able; `None` without a stream."""
        return None if self._stream is None else self._stream.state_dict()


def _name_of(source: TextSource) -> str:
    if not source.dataset_name:
        return file_names([str(name) for name in source.files])
    return f"{source.dataset_name} ({source.split})"


def _hold_out(cache: TokenCache, fraction: float, block_size: int) -> tuple[TokenCache, TokenCache]:
    """Keep the end of the tokens for validation, cut at a document if one ends near there.

    The token between two documents then stands in both parts: it ends one and begins the other.
    """
    total = len(cache.tokens)
    if total < 3 * block_size:
        raise UserError(
            f"The text has {total:,} tokens, too few to train and validate with windows of "
            f"{block_size:,}: at least {3 * block_size:,} are needed. Lower --block_size to "
            f"{total // 3:,} or less, or give more text."
        )
    wanted = min(max(round(total * fraction), block_size), total - block_size)
    cut = total - wanted
    starts = np.asarray(cache.document_starts)
    nearest = int(starts[np.abs(starts - cut).argmin()])
    if abs(nearest - cut) <= wanted // 4 and block_size <= total - nearest <= total - block_size:
        return TokenSlice.of(cache, 0, nearest + 1), TokenSlice.of(cache, nearest, total)
    return TokenSlice.of(cache, 0, cut), TokenSlice.of(cache, cut, total)


def _bytes_per_token(cache: TokenCache, tokenizer: PreTrainedTokenizerBase) -> float:
    """Return UTF-8 bytes per predicted token; all but the first token are predicted."""
    num_bytes = cache.num_bytes
    if isinstance(cache, TokenSlice):  # which knows only the average of the whole
        text = tokenizer.decode(
            cache.tokens.tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        num_bytes = len(str(text).encode())
    return num_bytes / max(len(cache.tokens) - 1, 1)


def _first_windows(cache: TokenCache, block_size: int, limit: int | None) -> PackedWindows:
    """Return the validation windows, no more than a limit."""
    windows = PackedWindows(cache, block_size)
    if limit is None or len(windows) <= limit:
        return windows
    stop = limit * (block_size - 1) + 1
    return PackedWindows(TokenSlice.of(cache, 0, stop), block_size)
