"""A Transformer that tells texts of a language model from real ones.

The adversary of `gumbel` (Nie et al. 2019, "RelGAN") and of `reinforce` (Yu et al. 2017, SeqGAN,
arXiv:1609.05473). It gives every token a verdict; the verdict on a text is the mean over its tokens.
A text comes as token ids, or as distributions over the vocabulary, through which gradients flow to
the model that wrote it.

Shapes are written with these letters: B batch, P tokens that come as ids, L tokens that come as
distributions, T = P + L tokens, D hidden_size, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import ModelOutput
from transformers.utils import can_return_tuple

from .attention import SelfAttention
from .configuration_text_discriminator import GenTextDiscriminatorConfig
from .layers import (
    MLP,
    SinusoidalPositions,
    build_norm,
    build_positions,
    check_last_position,
)


@dataclass
class TextDiscriminatorOutput(ModelOutput):
    """What the discriminator thinks of texts.

    Attributes:
        loss: Binary cross-entropy of the verdicts on the texts, if there were labels.
        logits: How real each text looks, (B, 1), in fp32.
        token_logits: How real each token looks, (B, T), in fp32.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    token_logits: torch.FloatTensor | None = None


class GenTextDiscriminatorBlock(GradientCheckpointingLayer):
    """Attention and MLP, each behind a norm and added to the residual stream."""

    def __init__(self, config: GenTextDiscriminatorConfig, layer_idx: int):
        super().__init__()
        self.attn_norm = build_norm(config)
        self.attn = SelfAttention(config, layer_idx, is_causal=config.attention == "causal")
        self.mlp_norm = build_norm(config)
        self.mlp = MLP(config)
        self.dropout = config.dropout

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        rotary: tuple[torch.Tensor, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Transform (B, T, D) into (B, T, D); the arguments are those of the attention."""
        attended, _ = self.attn(self.attn_norm(hidden_states), attention_mask, rotary, **kwargs)
        hidden_states = hidden_states + F.dropout(attended, self.dropout, self.training)
        transformed = self.mlp(self.mlp_norm(hidden_states))
        return hidden_states + F.dropout(transformed, self.dropout, self.training)


class GenTextDiscriminator(PreTrainedModel):
    """Tells how real texts look.

    Args:
        config: Configuration of the model.
    """

    config: GenTextDiscriminatorConfig
    base_model_prefix = "discriminator"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = ["GenTextDiscriminatorBlock"]
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: GenTextDiscriminatorConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.embed_positions, self.rotary = build_positions(config)
        self.layers = nn.ModuleList(
            GenTextDiscriminatorBlock(config, index) for index in range(config.num_hidden_layers)
        )
        self.final_norm = build_norm(config)
        self.head = nn.Linear(config.hidden_size, 1)
        self.gradient_checkpointing = False
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, SinusoidalPositions):
            init.copy_(module.table, module.make_table())

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_probs: torch.FloatTensor | None = None,
        judged: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> TextDiscriminatorOutput:
        """Judge texts.

        Args:
            input_ids: Token ids, (B, P).
            attention_mask: 1 for tokens and 0 for padding on either side, (B, T).
            token_probs: Distributions over the vocabulary, (B, L, V), of the tokens behind
                `input_ids`, or of all if these are not given. One-hot ones are judged as ids are.
            judged: Tokens whose verdicts count for the text, bool (B, T). `None`: all but padding.
            labels: 1 for real and 0 for written texts, (B,).
            **kwargs: Options of transformers, such as `return_dict`.

        Returns:
            The verdicts, and the loss if there are labels.

        Raises:
            ValueError: If there is no text, or a text is longer than the table of positions.
        """
        embeds = self._embed(input_ids, token_probs)
        if judged is None:
            is_token = attention_mask if attention_mask is not None else embeds.new_ones(1, 1)
            judged = is_token.bool().expand(embeds.shape[:2])
        states = self._encode(embeds, attention_mask)
        # Outside autocast: bf16 has steps of 1/64 and more where losses compare verdicts beyond 2.
        with torch.autocast(states.device.type, enabled=False):
            token_logits = self.head(states.to(self.head.weight.dtype)).squeeze(-1).float()
        weights = judged.to(token_logits.dtype)
        logits = (token_logits * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
        loss = None
        if labels is not None:
            loss = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype).view(-1))
        return TextDiscriminatorOutput(loss, logits.unsqueeze(1), token_logits)

    def _embed(
        self, input_ids: torch.LongTensor | None, token_probs: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the embeddings (B, T, D) of ids, of distributions, or of the one behind the other."""
        parts = []
        if input_ids is not None:
            parts.append(self.embed_tokens(input_ids))
        if token_probs is not None:
            weight = self.embed_tokens.weight
            parts.append(token_probs.to(weight.dtype) @ weight)
        if not parts:
            raise ValueError("Give the discriminator input_ids, token_probs, or both.")
        return torch.cat([part.to(parts[-1].dtype) for part in parts], dim=1)

    def _encode(self, embeds: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """Return the states (B, T, D) after the last norm.

        A padding mask says where a row begins, so that its first token has position 0 also behind
        left padding.
        """
        if attention_mask is None:
            position_ids = torch.arange(embeds.shape[1], device=embeds.device).unsqueeze(0)
        else:
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
        states, rotary = embeds, None
        if self.rotary is not None:
            rotary = self.rotary(position_ids)
        else:
            check_last_position(position_ids, self.config.max_position_embeddings)
            states = states + self.embed_positions(position_ids).to(states.dtype)
        states = F.dropout(states, self.config.dropout, self.training)
        is_causal = self.config.attention == "causal"
        make_mask: Any = create_causal_mask if is_causal else create_bidirectional_mask
        causal = {"past_key_values": None} if is_causal else {}
        mask = make_mask(
            config=self.config, inputs_embeds=states, attention_mask=attention_mask, **causal
        )
        for layer in self.layers:
            states = layer(states, mask, rotary)
        return self.final_norm(states)


__all__ = ["GenTextDiscriminator", "TextDiscriminatorOutput"]
