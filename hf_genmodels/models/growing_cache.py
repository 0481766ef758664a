"""A key-value cache that does not copy itself for every new token."""

from typing import Any

import torch
from transformers import DynamicCache, EncoderDecoderCache
from transformers.cache_utils import DynamicLayer


class GrowingLayer(DynamicLayer):
    """A `DynamicLayer` that writes new states behind the old ones, into memory kept free for them.

    `keys` and `values` are views of larger buffers, in which the next states fit: appending costs
    the same however long the text is. All other operations are those of `DynamicLayer`; after one
    that replaces `keys` (reordering beams, say) the next update allocates new buffers.
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
        self.keys, self.values = (buffer[:, :, : length + added] for buffer in self._buffers)
        self._views = (self.keys, self.values)
        return self.keys, self.values

    def _buffers_are_current(self) -> bool:
        """Whether nothing replaced `keys` since the last update, and the buffers can be written."""
        if self._views is None or self._views[0] is not self.keys:
            return False
        return torch.is_inference_mode_enabled() or not self._buffers[0].is_inference()

    def _allocate(self, needed: int) -> None:
        """Move the states into new buffers with room for `needed` tokens and half as many more."""
        self._room = needed + max(64, needed // 2)
        length = self.keys.shape[-2]
        self._buffers = []
        for states in (self.keys, self.values):
            buffer = states.new_empty((*states.shape[:2], self._room, states.shape[-1]))
            buffer[:, :, :length] = states
            self._buffers.append(buffer)


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
