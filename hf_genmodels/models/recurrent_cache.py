"""The cache of a recurrent decoder: its states instead of keys and values.

Letters: R rows of the decoder (sentences times beams).
"""

from typing import Any

import torch
from transformers import Cache


class RecurrentCache(Cache):
    """What a recurrent decoder carries from one token to the next.

    Every tensor has the batch as its first dimension, so that `generate` can reorder beams.

    Attributes:
        states: Tensors (R, ...) by name.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.states: dict[str, torch.Tensor] = {}
        self._seen_tokens = 0

    def write(self, states: dict[str, torch.Tensor], new_tokens: int) -> None:
        """Replace the states by those after `new_tokens` more tokens."""
        self.states = states
        self._seen_tokens += new_tokens

    @property
    def batch_size(self) -> int:
        """Rows in the cache, or -1 while it is empty."""
        return len(next(iter(self.states.values()))) if self.states else -1

    @property
    def is_compileable(self) -> bool:
        """Never: the states are replaced, not written in place."""
        return False

    @property
    def is_croppable(self) -> bool:
        """Never: a recurrent state cannot forget its last token."""
        return False

    @property
    def is_initialized(self) -> bool:
        """Whether a token was seen."""
        return bool(self.states)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of tokens seen."""
        return self._seen_tokens

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """Return -1: there is no longest text."""
        return -1

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Return the number of tokens that a mask would cover, and where it begins."""
        return self._seen_tokens + query_length, 0

    def update(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Refuse keys and values."""
        raise ValueError("A RecurrentCache holds states, not keys and values.")

    def crop(self, tokens_to_remove: int) -> None:
        """Refuse to forget tokens; removing none is allowed."""
        if tokens_to_remove:
            raise ValueError("A recurrent state cannot be rolled back to an earlier token.")

    def reset(self) -> None:
        """Forget everything."""
        self.states, self._seen_tokens = {}, 0

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Let row i go on from what was row `beam_idx[i]`; there may be fewer or more rows then."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep the rows `indices`, in their order."""
        self.states = {name: state[indices] for name, state in self.states.items()}

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row `repeats` times, the copies side by side."""
        self.states = {
            name: state.repeat_interleave(repeats, dim=0) for name, state in self.states.items()
        }


__all__ = ["RecurrentCache"]
