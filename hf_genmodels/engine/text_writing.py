"""Texts that a language model writes while it is trained, differentiably if asked to.

Letters: B texts, P tokens of a beginning, L tokens behind it, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Beginnings:
    """Windows of real text, each parted into a beginning and how it goes on.

    A document that ends in the beginning is left out of it, and what follows an end of text does
    not count: no document sees another.

    Attributes:
        ids: (B, P).
        mask: Tokens of the beginning's last document, bool (B, P).
        real_ids: How it goes on, (B, L).
        real_kept: Tokens up to the first end of text, bool (B, L).
    """

    ids: torch.Tensor
    mask: torch.Tensor
    real_ids: torch.Tensor
    real_kept: torch.Tensor


@dataclass(frozen=True)
class Written:
    """What a model wrote behind beginnings.

    Attributes:
        ids: (B, L).
        kept: Tokens up to the first end of text, bool (B, L).
        logits: What each token was drawn from, (B, L, V), at temperature 1 and in fp32; `None` if no
            gradients were asked for.
        probs: One-hot distributions of the tokens, (B, L, V), with the gradients of relaxed ones.
    """

    ids: torch.Tensor
    kept: torch.Tensor
    logits: torch.Tensor | None = None
    probs: torch.Tensor | None = None


def beginnings_of(
    batch: Mapping[str, torch.Tensor], prompt_tokens: int, sample_tokens: int, eos_token_id: int
) -> Beginnings:
    """Part windows.

    Args:
        batch: `input_ids` (B, T), and `position_ids` where a window holds several documents.
        prompt_tokens: P.
        sample_tokens: L, with P + L at most T.
        eos_token_id: Token between two documents.
    """
    ids = batch["input_ids"]
    prompt, real = ids[:, :prompt_tokens], ids[:, prompt_tokens : prompt_tokens + sample_tokens]
    mask = torch.ones_like(prompt, dtype=torch.bool)
    if "position_ids" in batch:
        # Positions begin at 0 with each document.
        last = batch["position_ids"][:, prompt_tokens - 1 : prompt_tokens]
        places = torch.arange(prompt_tokens, device=ids.device)
        mask = places >= prompt_tokens - 1 - last
    return Beginnings(prompt, mask, real, kept_until(real, eos_token_id))


def kept_until(ids: torch.Tensor, eos_token_id: int) -> torch.Tensor:
    """Return which tokens of (B, L) stand before the first end of text, or are it."""
    ended = ids.eq(eos_token_id).long().cumsum(dim=1) - ids.eq(eos_token_id).long()
    return ended.eq(0)


def write(
    model: PreTrainedModel,
    start: Beginnings,
    length: int,
    random: torch.Generator | Sequence[torch.Generator],
    *,
    temperature: float = 1.0,
    relaxation: float | None = None,
) -> Written:
    """Let a model go on from beginnings, drawing every token by the Gumbel-max trick.

    With a relaxation, a token is one-hot, but its gradient is that of the softmax of the same noisy
    logits (Jang et al. 2017, arXiv:1611.01144, straight-through). It flows on through everything that
    is written behind the token.

    Args:
        model: A gen_gpt language model, in eval mode.
        start: The beginnings.
        length: L.
        random: Source of the noise, on the CPU; or one for each text.
        temperature: Divides the logits.
        relaxation: Temperature of the softmax that gradients go through. `None`: no gradients.
    """
    base: Any = model.base_model
    with torch.set_grad_enabled(relaxation is not None):
        inputs: dict[str, Any] = {"input_ids": start.ids}
        mask, cache = start.mask.long(), None
        ids: list[torch.Tensor] = []
        logits: list[torch.Tensor] = []
        probs: list[torch.Tensor] = []
        for _ in range(length):
            seen = 1 if ids else mask.shape[1]
            places = (mask.cumsum(-1) - 1).clamp(min=0)[:, -seen:]
            output: Any = model(
                **inputs,
                attention_mask=mask,
                position_ids=places,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            own = output.logits[:, -1].float()
            noisy = own / temperature + _gumbel(own, random)
            ids.append(noisy.argmax(dim=-1))
            inputs = {"input_ids": ids[-1].unsqueeze(1)}
            if relaxation is not None:
                logits.append(own)
                probs.append(_straight_through(ids[-1], noisy, relaxation))
                embeds = probs[-1].to(base.embed_tokens.weight.dtype) @ base.embed_tokens.weight
                given = inputs if len(base.value_embeddings) else {}  # which are looked up by token
                inputs = {**given, "inputs_embeds": embeds.unsqueeze(1)}
            mask = F.pad(mask, (0, 1), value=1)
    written = torch.stack(ids, dim=1)
    kept = kept_until(written, end_of_text(model))
    if relaxation is None:
        return Written(written, kept)
    return Written(written, kept, torch.stack(logits, dim=1), torch.stack(probs, dim=1))


def logits_behind(model: PreTrainedModel, start: Beginnings, written: Written) -> torch.Tensor:
    """Return the logits (B, L, V), in fp32, that a model has for each token behind beginnings.

    Args:
        model: A gen_gpt language model.
        start: The beginnings.
        written: What stands behind them.
    """
    mask = torch.cat((start.mask, torch.ones_like(written.kept)), dim=1).long()
    length = written.ids.shape[1]
    output: Any = model(
        torch.cat((start.ids, written.ids), dim=1),
        attention_mask=mask,
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
        use_cache=False,
        logits_to_keep=length + 1,
    )
    return output.logits[:, :-1].float()


def end_of_text(model: PreTrainedModel) -> int:
    """Return the token that ends a text, -1 if there is none."""
    ends: Any = model.config.eos_token_id
    if isinstance(ends, list):
        return int(ends[0])
    return -1 if ends is None else int(ends)


def _gumbel(logits: torch.Tensor, random: Any) -> torch.Tensor:
    """Return Gumbel noise of the shape (B, V) of logits: minus the logarithm of exponential noise."""
    if isinstance(random, torch.Generator):
        noise = torch.empty(logits.shape).exponential_(generator=random)
    else:
        rows = (torch.empty(logits.shape[1]).exponential_(generator=one) for one in random)
        noise = torch.stack(list(rows))
    return -noise.log_().to(logits.device)


def _straight_through(ids: torch.Tensor, noisy: torch.Tensor, relaxation: float) -> torch.Tensor:
    """Return one-hot rows (B, V) with the gradient of softmax(noisy / relaxation)."""
    soft = (noisy / relaxation).softmax(dim=-1)
    hard = F.one_hot(ids, soft.shape[-1]).to(soft.dtype)
    return hard + (soft - soft.detach())
