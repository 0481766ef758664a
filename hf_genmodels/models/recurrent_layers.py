"""Layers of the recurrent sequence-to-sequence model: recurrent stacks, attention, bridge.

Shapes are written with these letters: B sentences, R rows of the decoder (B, or B times the beams of
a sentence), S source tokens, T target tokens, E embedding_size, D hidden_size, L layers.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import PreTrainedConfig

from .linear import Linear

CELL_CLASSES = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
NUM_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1}


class Memory(NamedTuple):
    """The source as the decoder sees it.

    Attributes:
        keys: (B, S, D), what a state is compared with.
        values: (B, S, D), the encoder's states.
        mask: (B, 1, S), true at tokens, or `None` without padding.
    """

    keys: torch.Tensor
    values: torch.Tensor
    mask: torch.Tensor | None


class DecoderState(NamedTuple):
    """What the decoder carries from one token to the next.

    Attributes:
        hidden: (L, R, D).
        cell: (L, R, D) of an LSTM, else `None`.
        feed: (R, 1, D), what was attended to in the step before, with input feeding, else `None`.
    """

    hidden: torch.Tensor
    cell: torch.Tensor | None
    feed: torch.Tensor | None


def build_recurrent_layers(
    config: PreTrainedConfig, input_size: int, num_layers: int, directions: int = 1
) -> nn.RNNBase:
    """Return a stack of recurrent layers whose output is `hidden_size` wide."""
    return CELL_CLASSES[config.cell](
        input_size,
        config.hidden_size // directions,
        num_layers,
        batch_first=True,
        bidirectional=directions == 2,
        dropout=config.dropout if num_layers > 1 else 0.0,
    )


class GlobalAttention(nn.Module):
    """Attention of states to all tokens of the source, Luong et al. 2015, section 3.1.

    The score of a state q and an encoder's state h is q.h (dot), q.W h (general) or, as in Bahdanau
    et al. 2015, v.tanh(W q + U h) (additive); the encoder computes U h.

    Args:
        config: Configuration of the model.
    """

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        size = config.hidden_size
        self.query_proj = self.score = None
        if config.attention != "dot":
            self.query_proj = Linear(size, size, bias=False)
        if config.attention == "additive":
            self.score = Linear(size, 1, bias=False)

    def forward(self, states: torch.Tensor, memory: Memory) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend from states (R, T, D); beams of one sentence stand side by side in R.

        Returns:
            The context (R, T, D) and the weights (R, T, S).
        """
        rows, length, size = states.shape
        queries = states.reshape(len(memory.keys), -1, size)  # (B, R / B * T, D)
        if self.query_proj is not None:
            queries = self.query_proj(queries)
        if self.score is None:
            scores = torch.bmm(queries, memory.keys.transpose(1, 2))
        else:
            scores = self.score(torch.tanh(queries[:, :, None] + memory.keys[:, None])).squeeze(-1)
        if memory.mask is not None:
            scores = scores.masked_fill(~memory.mask, torch.finfo(scores.dtype).min)
        weights = F.softmax(scores, dim=-1)
        context = torch.bmm(weights, memory.values)
        return context.view(rows, length, size), weights.view(rows, length, -1)


class EncoderStack(nn.Module):
    """The encoder's recurrent layers."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.directions = config.num_encoder_directions
        self.rnn = build_recurrent_layers(
            config, config.embedding_size, config.encoder_layers, self.directions
        )

    def forward(
        self, embeds: torch.Tensor, lengths: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Read embeddings (B, S, E) of which the first `lengths` (B,) of a row are tokens.

        Returns:
            States (B, S, D), and final hidden and cell states (B, L, D).
        """
        if lengths is None:
            states, final = self.rnn(embeds)
        else:
            packed = pack_padded_sequence(
                embeds, lengths.cpu(), batch_first=True, enforce_sorted=False
            )
            packed, final = self.rnn(packed)
            states, _ = pad_packed_sequence(packed, batch_first=True, total_length=embeds.shape[1])
        hidden, cell = final if isinstance(final, tuple) else (final, None)
        return states, self._join(hidden), None if cell is None else self._join(cell)

    def _join(self, final: torch.Tensor) -> torch.Tensor:
        """Put the directions of (L * directions, B, D / directions) side by side: (B, L, D)."""
        layers, batch, size = final.shape
        final = final.view(layers // self.directions, self.directions, batch, size)
        return final.permute(2, 0, 1, 3).reshape(batch, -1, self.directions * size)


class DecoderStack(nn.Module):
    """The decoder's recurrent layers, and the attention behind them."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.input_feeding = config.input_feeding
        self.dropout = config.dropout
        fed = config.hidden_size if config.input_feeding else 0
        self.rnn = build_recurrent_layers(
            config, config.embedding_size + fed, config.decoder_layers
        )
        self.attention = self.combine = None
        if config.attention != "none":
            self.attention = GlobalAttention(config)
            self.combine = Linear(2 * config.hidden_size, config.hidden_size, bias=False)

    def forward(
        self, embeds: torch.Tensor, state: DecoderState, memory: Memory
    ) -> tuple[torch.Tensor, torch.Tensor | None, DecoderState]:
        """Decode embeddings (R, T, E).

        Returns:
            The attentional states (R, T, D), the attention weights (R, 1, T, S) if there is
            attention, and the state after the last token.
        """
        pieces = embeds.split(1, dim=1) if self.input_feeding else (embeds,)
        outputs, weights = [], []
        for piece in pieces:
            output, weight, state = self._advance(piece, state, memory)
            outputs.append(output)
            weights.append(weight)
        all_weights = None if self.attention is None else torch.cat(weights, dim=1).unsqueeze(1)
        return torch.cat(outputs, dim=1), all_weights, state

    def _advance(
        self, embeds: torch.Tensor, state: DecoderState, memory: Memory
    ) -> tuple[torch.Tensor, torch.Tensor | None, DecoderState]:
        hidden, cell, feed = state
        if feed is not None:
            embeds = torch.cat((embeds, feed), dim=-1)
        states, carried = self.rnn(embeds, hidden if cell is None else (hidden, cell))
        hidden, cell = carried if isinstance(carried, tuple) else (carried, None)
        weights = None
        if self.attention is not None:
            context, weights = self.attention(states, memory)
            states = torch.tanh(self.combine(torch.cat((context, states), dim=-1)))
        states = F.dropout(states, self.dropout, self.training)
        return states, weights, DecoderState(hidden, cell, states if self.input_feeding else None)


class Bridge(nn.Module):
    """Makes the decoder's first state from the encoder's last: s = tanh(W h), Bahdanau et al. 2015.

    The topmost layers stand side by side; if the decoder has more, they begin as the encoder's
    lowest.
    """

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        lowest = config.encoder_layers - config.decoder_layers
        self.sources = [max(0, lowest + layer) for layer in range(config.decoder_layers)]
        self.hidden_proj = self._projections(config)
        self.cell_proj = self._projections(config) if config.cell == "lstm" else None

    @staticmethod
    def _projections(config: PreTrainedConfig) -> nn.ModuleList:
        size = config.hidden_size
        return nn.ModuleList(Linear(size, size) for _ in range(config.decoder_layers))

    def forward(
        self, hidden: torch.Tensor, cell: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Turn final states (B, L, D) of the encoder into first ones (L, B, D) of the decoder."""
        first = torch.tanh(self._project(self.hidden_proj, hidden))
        return first, None if cell is None else self._project(self.cell_proj, cell)

    def _project(self, projections: nn.ModuleList, states: torch.Tensor) -> torch.Tensor:
        pairs = zip(projections, self.sources, strict=True)
        return torch.stack([project(states[:, source]) for project, source in pairs])


def initial_recurrent_weight(mode: str, name: str, like: torch.Tensor) -> torch.Tensor:
    """Return the initial value of the parameter `name` of a recurrent layer.

    Args:
        mode: What torch calls the cell: `LSTM`, `GRU` or `RNN_TANH`.
        name: Such as `weight_hh_l0`, of `gates * hidden` rows.
        like: A tensor of its shape, type and device.
    """
    value = torch.zeros_like(like, dtype=torch.float)
    gates = value.chunk(NUM_GATES[mode])
    if name.startswith("weight_ih"):
        for gate in gates:
            nn.init.xavier_uniform_(gate)
    elif name.startswith("weight_hh"):
        for gate in gates:
            nn.init.orthogonal_(gate)
    elif mode == "LSTM" and name.startswith("bias_ih"):
        gates[1].fill_(1.0)  # torch's order: input, forget, cell, output
    return value.to(like.dtype)


def real_lengths(attention_mask: torch.Tensor | None) -> torch.Tensor | None:
    """Return the number of tokens of each row of a mask (B, S), or `None` if all are full.

    Raises:
        ValueError: If padding stands before a token, or a row has no token.
    """
    if attention_mask is None:
        return None
    mask = attention_mask.bool()
    if mask.all():
        return None
    if (mask[:, 1:] & ~mask[:, :-1]).any():
        raise ValueError(
            "A recurrent encoder reads padding on the left as if it were text, and refuses it. Pad "
            'sources on the right: tokenizer.padding_side = "right".'
        )
    lengths = mask.sum(dim=1)
    if not lengths.all():
        row = int(lengths.argmin())
        raise ValueError(f"Row {row} of attention_mask has no token: a source cannot be empty.")
    return lengths
