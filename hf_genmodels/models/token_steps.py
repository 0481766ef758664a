"""One token of every row after the other through the blocks of the language model.

A step computes what `GenGPTModel.forward` computes for one more token. Around the same layers there is
less to do: no masks and caches are built anew, the projections of a token are one product, and query
and key are normalised and rotated together. In a small model that is most of the time.

Shapes are written with these letters: R rows, T tokens of a prompt, L tokens that there is room for,
D hidden_size, H query heads, K key and value heads, C channels of a head.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from .attention import SelfAttention
from .layers import check_last_position, rms_norm
from .linear import linear
from .modeling_gpt import GenGPTBlock, GenGPTModel

Projection = Callable[[torch.Tensor], torch.Tensor]


class TokenSteps:
    """Rows of tokens that grow by one token at a time. To be used without gradients, in eval mode.

    Args:
        model: The model without its head.
        input_ids: Prompts, padded on the left, (R, T).
        attention_mask: 1 for their tokens and 0 for padding, (R, T).
        room: Most tokens that are added.
        pixel_positions: Which pixel of a picture each token is, (R, T), for a model of pictures.

    Attributes:
        last_hidden: The last hidden states of the last tokens, (R, D).

    Raises:
        ValueError: If the model has no positions for so many tokens.
    """

    def __init__(
        self,
        model: GenGPTModel,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        room: int,
        pixel_positions: torch.Tensor | None = None,
    ):
        self.model, self.config = model, model.config
        positions = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
        self.positions = positions[:, -1]
        is_padded = not bool(attention_mask.all())
        if model.rotary is None:
            check_last_position(self.positions + room, self.config.max_position_embeddings)
        output = model(
            input_ids=input_ids,
            attention_mask=attention_mask if is_padded else None,
            position_ids=positions,
            pixel_positions=pixel_positions,
            use_cache=True,
        )
        self.length = input_ids.shape[1]
        states = output.past_key_values.layers
        self.keys = [self._keys_with_room(layer.keys, room) for layer in states]
        self.values = [self._values_with_room(layer.values, room) for layer in states]
        self.projections = [_projection(layer.attn) for layer in model.layers]
        self.pixels = None if model.embed_pixels is None else model.embed_pixels.table()
        self.mask = self._mask(attention_mask, room) if is_padded else None
        self.last_hidden: torch.Tensor = output.last_hidden_state[:, -1]

    def step(self, token_ids: torch.Tensor, pixel_position: int = -1) -> torch.Tensor:
        """Give every row its next token.

        Args:
            token_ids: The tokens, (R,).
            pixel_position: Which pixel of a picture they are, or -1.

        Returns:
            Their last hidden states, (R, D).
        """
        model = self.model
        self.positions = self.positions + 1
        hidden = model.embed_tokens(token_ids)
        if self.pixels is not None:
            hidden = hidden + self.pixels[pixel_position + 1]
        rotary = None
        if model.rotary is not None:
            cos, sin = model.rotary(self.positions[:, None])
            rotary = cos[:, 0].to(hidden.dtype), sin[:, 0].to(hidden.dtype)  # (R, 1, C)
        else:
            hidden = hidden + model.embed_positions(self.positions).to(hidden.dtype)
        self.length += 1
        first_with_value = len(model.layers) - len(model.value_embeddings)
        for index, layer in enumerate(model.layers):
            extra = None
            if index >= first_with_value:
                extra = model.value_embeddings[index - first_with_value](token_ids)
            hidden = self._block(layer, index, hidden, rotary, extra)
        self.last_hidden = model.final_norm(hidden)
        return self.last_hidden

    def _block(
        self,
        layer: GenGPTBlock,
        index: int,
        hidden: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor] | None,
        extra: torch.Tensor | None,
    ) -> torch.Tensor:
        """Take one token of every row, (R, D), through a block."""
        attn = layer.attn
        rows, channels = len(hidden), attn.head_dim
        num_keys = self.config.num_key_value_heads
        heads = self.projections[index](layer.attn_norm(hidden)).view(rows, -1, channels)
        looking, value = heads[:, :-num_keys], heads[:, -num_keys:]  # (R, H + K, C), (R, K, C)
        if extra is not None:
            mix = attn.value_mix
            value = mix[0] * value + mix[1] * extra.view(value.shape).to(value.dtype)
        if attn.qk_norm:
            looking = rms_norm(looking, attn.norm_eps)
        if rotary is not None:
            first, second = looking.chunk(2, dim=-1)
            turned = torch.cat((-second, first), dim=-1)
            looking = torch.addcmul(looking * rotary[0], turned, rotary[1])
        self.keys[index].view(rows, num_keys, channels, -1)[..., self.length - 1] = looking[
            :, -num_keys:
        ]
        self.values[index].view(rows, num_keys, -1, channels)[:, :, self.length - 1] = value
        # Query heads of one group are queries of one key head: nothing is repeated.
        query = looking[:, :-num_keys].reshape(rows * num_keys, -1, channels)
        attended = self._attend(query, index, attn.scaling)
        hidden = hidden + attn.o_proj(attended.view(rows, -1))
        return hidden + layer.mlp(layer.mlp_norm(hidden))

    def _attend(self, query: torch.Tensor, index: int, scaling: float) -> torch.Tensor:
        """Attend from queries (R * K, H / K, C) to all keys so far; returns what has their shape.

        One token's attention is two products that read keys and values once. Keys that stand
        channel by channel are read in half the time that torch's fused attention needs.
        """
        keys = self.keys[index][..., : self.length]
        if self.mask is None:
            scores = torch.baddbmm(query.new_zeros(1), query, keys, beta=0, alpha=scaling)
        else:
            scores = torch.baddbmm(self.mask[..., : self.length], query, keys, alpha=scaling)
        return torch.bmm(scores.softmax(dim=-1), self.values[index][:, : self.length])

    def _keys_with_room(self, keys: torch.Tensor, room: int) -> torch.Tensor:
        """Return keys (R, K, T, C) as the first ones of a buffer (R * K, C, L)."""
        rows, heads, length, channels = keys.shape
        buffer = keys.new_empty(rows * heads, channels, length + room)
        buffer[..., :length] = keys.flatten(0, 1).transpose(1, 2)
        return buffer

    def _values_with_room(self, values: torch.Tensor, room: int) -> torch.Tensor:
        """Return values (R, K, T, C) as the first ones of a buffer (R * K, L, C)."""
        rows, heads, length, channels = values.shape
        buffer = values.new_empty(rows * heads, length + room, channels)
        buffer[:, :length] = values.flatten(0, 1)
        return buffer

    def _mask(self, attention_mask: torch.Tensor, room: int) -> torch.Tensor:
        """Return what is added to the scores so that padding is not seen, (R * K, 1, L)."""
        hidden = F.pad(attention_mask, (0, room), value=1) == 0
        mask = torch.zeros(hidden.shape, dtype=self.keys[0].dtype, device=hidden.device)
        mask.masked_fill_(hidden, float("-inf"))
        return mask.repeat_interleave(self.config.num_key_value_heads, dim=0)[:, None]


def _projection(attn: SelfAttention) -> Projection:
    """Return one function for the queries, keys and values of a token, side by side."""
    if attn.fused_proj is not None:
        return attn.fused_proj
    layers = [getattr(attn, name) for name in attn.fusable]
    if not all(isinstance(layer, nn.Linear) for layer in layers):  # an adapter wraps one
        return lambda states: torch.cat([layer(states) for layer in layers], dim=-1)
    weight = torch.cat([layer.weight for layer in layers])
    bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
    return lambda states: linear(states, weight, bias)


__all__ = ["TokenSteps"]
