"""The text half of a text-conditional GAN: an encoder of words, and feature maps that look at them.

Shapes are written with these letters: B batch, T tokens, D hidden_size, C condition_dim, F channels of
a feature map, S its height and width, H heads, N masked tokens, V vocab_size.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModel, PreTrainedModel

from .configuration_gan import GenGANConfig
from .configuration_seq2seq import GenSeq2SeqConfig
from .frozen_text import make_encoder_config
from .gan_layers import ZeroLinear
from .layers import rms_norm
from .seq2seq_stacks import GenSeq2SeqEncoder

NORM_EPS = 1e-5


class Words(NamedTuple):
    """The words of a batch of texts.

    Attributes:
        states: (B, T, D).
        mask: Whether each is a word and not padding, (B, T); at least one of each text is.
    """

    states: torch.Tensor
    mask: torch.Tensor


def encoder_config(config: GenGANConfig) -> GenSeq2SeqConfig:
    """Return the configuration of the Transformer encoder that is trained with the GAN."""
    return GenSeq2SeqConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        encoder_layers=config.num_hidden_layers,
        decoder_layers=1,
        num_attention_heads=config.num_attention_heads,
        max_position_embeddings=config.max_position_embeddings,
        hidden_act="gelu",
        norm_position="pre",
        attention_dropout=config.text_dropout,
        residual_dropout=config.text_dropout,
        embedding_dropout=config.text_dropout,
        initializer_range=config.initializer_range,
        # Scaled by the root of the width, words begin as large as their positions.
        embedding_init_range=config.hidden_size**-0.5,
    )


def build_encoder(config: GenGANConfig) -> PreTrainedModel:
    """Return the encoder of the words: a frozen one if the configuration holds one."""
    if config.text_encoder is None:
        return GenSeq2SeqEncoder(encoder_config(config))
    encoder: PreTrainedModel = AutoModel.from_config(make_encoder_config(config.text_encoder))
    return encoder.eval().requires_grad_(False)


class TextEncoder(nn.Module):
    """Makes a vector and word states of a text.

    The vector is the mean of a text's words, projected and brought to unit mean square, so that it is
    as large as the noise beside it. A text without words is read as one token of padding.

    Args:
        config: Configuration of the model.
    """

    def __init__(self, config: GenGANConfig):
        super().__init__()
        self.pad_token_id = config.pad_token_id
        self.max_length = config.max_position_embeddings
        self.is_frozen = config.text_encoder is not None
        self.encoder = build_encoder(config)
        width = self.encoder.config.hidden_size
        self.words = nn.Linear(width, config.hidden_size) if self.is_frozen else nn.Identity()
        self.sentence = nn.Linear(config.hidden_size, config.condition_dim)

    def train(self, mode: bool = True) -> "TextEncoder":
        """Set the mode; a frozen encoder stays frozen and in eval mode."""
        super().train(mode)
        if self.is_frozen:  # from_pretrained, which unfreezes all weights, ends with this call
            self.encoder.eval().requires_grad_(False)
        return self

    def forward(
        self, input_ids: torch.LongTensor, attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Words]:
        """Read texts.

        Args:
            input_ids: Token ids, (B, T); padding may be on either side.
            attention_mask: 1 for words and 0 for padding, (B, T). `None`: all but `pad_token_id`.

        Returns:
            The texts' vectors (B, C), and their words, without gaps from the left.

        Raises:
            ValueError: If the shapes do not fit or a text is too long.
        """
        input_ids, mask = self.words_first(input_ids, attention_mask)
        states = self.words(self._encode(input_ids, mask))
        weights = mask.unsqueeze(-1).to(states.dtype)
        mean = (states * weights).sum(dim=1) / weights.sum(dim=1)
        return rms_norm(self.sentence(mean), NORM_EPS), Words(states, mask)

    def words_first(
        self, input_ids: torch.LongTensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids and mask (bool) of texts whose padding is on the right, (B, T) each.

        Positions then do not depend on the padding, with whatever encoder. See `forward`.
        """
        if input_ids.ndim != 2 or not input_ids.shape[1]:
            raise ValueError(f"input_ids must be (batch, tokens), not {tuple(input_ids.shape)}.")
        if input_ids.shape[1] > self.max_length:
            raise ValueError(
                f"A text of {input_ids.shape[1]} tokens is longer than "
                f"max_position_embeddings={self.max_length}. Shorten it."
            )
        if attention_mask is not None and attention_mask.shape != input_ids.shape:
            raise ValueError(
                f"attention_mask {tuple(attention_mask.shape)} must have the shape of input_ids "
                f"{tuple(input_ids.shape)}."
            )
        if attention_mask is None and self.pad_token_id is not None:
            attention_mask = input_ids != self.pad_token_id
        if attention_mask is None:
            return input_ids, torch.ones_like(input_ids, dtype=torch.bool)
        mask, order = attention_mask.bool().sort(dim=1, descending=True, stable=True)
        is_first = torch.arange(mask.shape[1], device=mask.device) == 0
        return input_ids.gather(1, order), mask | is_first

    def _encode(self, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):
            return self.encoder(input_ids=input_ids, attention_mask=mask.long()).last_hidden_state


class WordAttention(nn.Module):
    """Lets every pixel of a feature map look at the words (Xu et al. 2018, AttnGAN, arXiv:1711.10485).

    Multi-head attention of Vaswani et al. 2017 (arXiv:1706.03762) whose queries and keys have unit mean
    square. What it finds is added to the map, and starts at zero.

    Args:
        config: Configuration of the model.
        num_channels: Channels F of the map.
    """

    def __init__(self, config: GenGANConfig, num_channels: int):
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.q_proj = nn.Linear(num_channels, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.o_proj = ZeroLinear(config.hidden_size, num_channels)

    def forward(self, states: torch.Tensor, words: Words) -> torch.Tensor:
        """Transform a map (B, F, S, S), given the words of its texts.

        Of clips the maps of all frames (B * frames, F, S, S) look at the words of B texts.
        """
        pixels = states.flatten(2).transpose(1, 2)  # (B, S * S, F)
        pixels = pixels.reshape(len(words.mask), -1, pixels.shape[2])
        queries = rms_norm(self._heads(self.q_proj(pixels)), NORM_EPS)
        keys = rms_norm(self._heads(self.k_proj(words.states)), NORM_EPS)
        # Many pixels and few words: on a CPU a fused kernel is several times slower backwards.
        scores = queries @ keys.transpose(2, 3) * queries.shape[3] ** -0.5
        scores = scores.masked_fill(~words.mask[:, None, None, :], float("-inf"))
        values = self._heads(self.v_proj(words.states))
        found = scores.softmax(dim=3).to(values.dtype) @ values
        found = self.o_proj(found.transpose(1, 2).flatten(2))
        found = found.reshape(len(states), -1, found.shape[2])
        return states + found.transpose(1, 2).reshape(states.shape)

    def _heads(self, states: torch.Tensor) -> torch.Tensor:
        """Return (B, T, D) as (B, H, T, D / H)."""
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class TokenHead(nn.Module):
    """Predicts masked words of a text that a [`TextEncoder`] reads.

    Masked words are replaced by one learned vector (Devlin et al. 2019, arXiv:1810.04805), and the
    scores are products with the encoder's own embedding of words.

    Args:
        config: Configuration of the model.
    """

    def __init__(self, config: GenGANConfig):
        super().__init__()
        self.mask = nn.Embedding(1, config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        text: TextEncoder,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None,
        masked: torch.Tensor,
    ) -> torch.Tensor:
        """Return the scores (N, V) of the masked words, row by row.

        Args:
            text: The encoder, which must be trained with the GAN.
            input_ids: Token ids, (B, T).
            attention_mask: 1 for words and 0 for padding, (B, T).
            masked: Which words are masked, bool (B, T).
        """
        encoder: Any = text.encoder
        # As an embedding is scaled: by the root of the width.
        embeds = encoder.embed_tokens(input_ids)
        hidden = self.mask.weight[0] * self.mask.embedding_dim**-0.5
        embeds = torch.where(masked.unsqueeze(-1), hidden.to(embeds.dtype), embeds)
        states = encoder(inputs_embeds=embeds, attention_mask=attention_mask).last_hidden_state
        return F.linear(F.gelu(self.dense(states[masked])), encoder.embed_tokens.weight)


__all__ = ["TextEncoder", "TokenHead", "WordAttention", "Words", "encoder_config"]
