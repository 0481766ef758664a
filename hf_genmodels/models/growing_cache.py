"""A key-value cache that does not copy itself for every new token."""

from typing import Any

import torch
from transformers import DynamicCache, EncoderDecoderCache
from transformers.cache_utils import DynamicLayer


class GrowingLayer(DynamicLayer):
    """A `DynamicLayer` that writes new states behind the old ones, into memory kept free for them.

    `keys` and `values` are views of larger buffers, in which the next states fit: appending costs
    the same however long the text is. Selecting rows, as beam search does before every update,
    leaves room for one more token. All other operations are those of `DynamicLayer`; after one that
    replaces `keys` the next update allocates new buffers.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self._buffers: list[torch.Tensor] = []
        self._views: tuple[torch.Tensor, torch.Tensor] | None = None
        self._room = 0  # tokens that fit into the buffers

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append states of shape (B, K, T, C) and return all states, each (B, K, S, C)."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return super().update(key_states, value_states, *args, **kwargs)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.get_seq_length() == 0:
            self.keys, self.values = key_states, value_states
            self._buffers, self._views = [], None
            return self.keys, self.values

        length, added = self.keys.shape[-2], key_states.shape[-2]
        if length + added > self._room or not self._buffers_are_current():
            self._allocate(length + added)
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, length : length + added] = states
        return self._show(length + added)

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Go on with the rows of these numbers, in this order; a row may be taken several times."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or self.get_seq_length() == 0:
            super().reorder_cache(beam_idx)
            return
        self._allocate(self.keys.shape[-2] + 1, beam_idx.to(self.keys.device))
        self._show(self.keys.shape[-2])

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep the rows of these numbers, or those where a mask is true."""
        is_mask = indices.dtype == torch.bool
        self.reorder_cache(indices.nonzero().squeeze(1) if is_mask else indices)

    def _buffers_are_current(self) -> bool:
        """Whether nothing replaced `keys` since the last update, and the buffers can be written."""
        if self._views is None or self._views[0] is not self.keys:
            return False
        return torch.is_inference_mode_enabled() or not self._buffers[0].is_inference()

    def _show(self, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Let keys and values be the first `length` tokens of the buffers, and return them."""
        keys, values = (buffer[:, :, :length] for buffer in self._buffers)
        self.keys, self.values = self._views = (keys, values)
        return keys, values

    def _allocate(self, needed: int, rows: torch.Tensor | None = None) -> None:
        """Move the states into new buffers with room for `needed` tokens and half as many more.

        Args:
            needed: Number of tokens that must fit.
            rows: The rows that are moved, (R,), probably not for the last time: no more than
                `needed` tokens then fit. `None`: all.
        """
        self._room = needed + (max(64, needed // 2) if rows is None else 0)
        buffers = []
        for states in (self.keys, self.values):
            _, heads, length, channels = states.shape
            count = len(states if rows is None else rows)
            buffer = states.new_empty((count, heads, self._room, channels))
            if rows is None:
                buffer[:, :, :length] = states
            else:
                torch.index_select(states, 0, rows, out=buffer[:, :, :length])
            buffers.append(buffer)
        self._buffers = buffers


def make_growing(cache: Any) -> None:
    """Let the empty layers of a plain `DynamicCache` grow in place; leave other caches alone.

    Of an `EncoderDecoderCache` that is the self-attention's cache: the other one does not grow.
    """
    if isinstance(cache, EncoderDecoderCache):
        cache = cache.self_attention_cache
    if type(cache) is not DynamicCache or cache.offloading:
        return
    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer and not layer.is_initialized:
            cache.layers[index] = GrowingLayer()
    if cache.layer_class_to_replicate is DynamicLayer:
        cache.layer_class_to_replicate = GrowingLayer


__all__ = ["GrowingLayer", "make_growing"]
