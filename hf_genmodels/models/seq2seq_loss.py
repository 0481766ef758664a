"""The loss that the sequence-to-sequence models share.

A token with target y costs -(1 - e) log p(y) - e / V sum_v log p(v), where e is the label smoothing
(Szegedy et al. 2016, arXiv:1512.00567).

Letters: B batch, T tokens of the target, D hidden_size, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig

from .linear_cross_entropy import IGNORE_INDEX, head_is_plain, linear_cross_entropy


def decoder_inputs_from_labels(labels: torch.LongTensor, config: PreTrainedConfig) -> torch.Tensor:
    """Shift labels to the right, behind the token from which the decoder starts.

    Args:
        labels: Target token ids, (B, T), with -100 where nothing counts.
        config: Configuration with `decoder_start_token_id`, and `pad_token_id` for -100.

    Returns:
        The decoder's input, (B, T).
    """
    start, pad = config.decoder_start_token_id, config.pad_token_id
    shifted = F.pad(labels[:, :-1], (1, 0), value=start)
    return shifted.masked_fill(shifted.eq(IGNORE_INDEX), start if pad is None else pad)


def apply_head(states: torch.Tensor, head: nn.Module, softcap: float | None = None) -> torch.Tensor:
    """Return logits (..., V) of states (..., D), capped to c tanh(logits / c) by `softcap` c."""
    logits: torch.Tensor = head(states)
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def loss_from_states(
    states: torch.Tensor,
    head: nn.Module,
    labels: torch.LongTensor,
    label_smoothing: float = 0.0,
    num_items_in_batch: int | torch.Tensor | None = None,
    softcap: float | None = None,
) -> torch.Tensor:
    """Return the loss without ever holding all logits at once, where the head allows it.

    Args:
        states: The decoder's last states, (B, T, D).
        head: Linear layer from D to V.
        labels: Target token ids, (B, T), aligned with the states; -100 does not count.
        label_smoothing: Share of the probability that is spread over the vocabulary.
        num_items_in_batch: What the sum is divided by. `None`: the number of tokens that count.
        softcap: Cap of the logits, or `None`.

    Returns:
        The loss, a scalar in fp32.
    """
    if not head_is_plain(head):
        logits = apply_head(states, head, softcap)
        return loss_from_logits(logits, labels, label_smoothing, num_items_in_batch)
    targets = labels.reshape(-1).to(states.device)
    loss_sum = linear_cross_entropy(
        states.flatten(0, -2), head.weight, targets, softcap, label_smoothing
    )
    return _divide(loss_sum, targets, num_items_in_batch)


def loss_from_logits(
    logits: torch.Tensor,
    labels: torch.LongTensor,
    label_smoothing: float = 0.0,
    num_items_in_batch: int | torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the loss of logits (B, T, V); the other arguments are those of [`loss_from_states`]."""
    targets = labels.reshape(-1).to(logits.device)
    loss_sum = F.cross_entropy(
        logits.flatten(0, -2).float(),
        targets,
        ignore_index=IGNORE_INDEX,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    return _divide(loss_sum, targets, num_items_in_batch)


def _divide(
    loss_sum: torch.Tensor,
    targets: torch.LongTensor,
    num_items_in_batch: int | torch.Tensor | None,
) -> torch.Tensor:
    if num_items_in_batch is None:
        num_items_in_batch = targets.ne(IGNORE_INDEX).sum().clamp(min=1)
    elif torch.is_tensor(num_items_in_batch):
        num_items_in_batch = num_items_in_batch.to(loss_sum.device)
    return loss_sum / num_items_in_batch


__all__ = ["apply_head", "decoder_inputs_from_labels", "loss_from_logits", "loss_from_states"]
