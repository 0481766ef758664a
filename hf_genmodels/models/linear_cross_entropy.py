"""Cross-entropy over a large vocabulary without ever holding all logits.

The projection onto the vocabulary and the loss are computed together, a chunk of tokens at a time,
and so are their gradients, already in the forward pass: the logits of a chunk are used while they
are in the cache and then forgotten. Same idea as Wijmans et al. 2024 ("Cut Your Losses in
Large-Vocabulary Language Models", arXiv:2411.09009), without their sparsity.

Letters: N tokens, D hidden_size, V vocabulary.
"""

from typing import Any

import torch
from torch import nn

from .linear import Linear, linear

IGNORE_INDEX = -100
# Bytes of fp32 logits held at once. Small enough for a CPU's cache; a GPU wants larger products.
CHUNK_BYTES = {"cpu": 1 << 20, "cuda": 256 << 20}
VOCABULARY_BLOCK = 8192
MIN_ROWS = 256  # below this a chunk spends its time on adding up the weight's gradient


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    softcap: float | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Return the sum over tokens of -log softmax(hidden @ weight.T)[target].

    Tokens that do not count are left out before the projection, and cost nothing.

    Args:
        hidden: States before the head, (N, D).
        weight: Weight of the head, (V, D).
        targets: Token ids, (N,); `IGNORE_INDEX` marks tokens that do not count.
        softcap: Cap c of logits, c tanh(logits / c), or `None`.
        label_smoothing: Share e of the target's probability that is spread over all V tokens
            (Szegedy et al. 2016, arXiv:1512.00567), as in `torch.nn.functional.cross_entropy`.

    Returns:
        The summed loss, a scalar in fp32. Its gradient can be taken once.
    """
    if not torch.is_grad_enabled():
        hidden, weight = hidden.detach(), weight.detach()
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    counted = targets.ne(IGNORE_INDEX).nonzero().squeeze(1)
    if len(counted) < len(targets):
        hidden, targets = hidden.index_select(0, counted), targets[counted]
    return _LinearCrossEntropy.apply(hidden, weight, targets, softcap, label_smoothing)


def head_is_plain(head: nn.Module) -> bool:
    """Whether a head is its weight alone: no bias, not sharded, adapted, hooked or being compiled."""
    return (
        type(head) in (nn.Linear, Linear)
        and head._parameters["bias"] is None
        and "forward" not in vars(head)
        and type(head.weight) is nn.Parameter
        and not head._forward_hooks
        and not head._forward_pre_hooks
        and not torch.compiler.is_compiling()
    )


def _rows_per_chunk(hidden: torch.Tensor, weight: torch.Tensor) -> int:
    budget = CHUNK_BYTES.get(hidden.device.type, CHUNK_BYTES["cuda"])
    return max(MIN_ROWS, budget // (4 * weight.shape[0]))


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        softcap: float | None,
        label_smoothing: float,
    ) -> torch.Tensor:
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        hidden_grad = torch.empty_like(hidden) if wants_hidden else None
        weight_grad = torch.zeros_like(weight, dtype=torch.float) if wants_weight else None
        loss = torch.zeros((), dtype=torch.float, device=hidden.device)

        rows = _rows_per_chunk(hidden, weight)
        for start in range(0, len(targets), rows):
            chunk = slice(start, min(start + rows, len(targets)))
            losses, logits_grad = _loss_and_logits_grad(
                linear(hidden[chunk], weight), targets[chunk], softcap, label_smoothing
            )
            loss += losses.sum()
            if wants_hidden:
                hidden_grad[chunk] = linear(logits_grad, weight.T)
            if wants_weight:
                _add_weight_grad(weight_grad, logits_grad, hidden[chunk])
        ctx.gradients = (hidden_grad, weight_grad)
        ctx.weight_dtype = weight.dtype
        return loss

    @staticmethod
    def backward(ctx: Any, loss_grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError(
                "The gradient of linear_cross_entropy was taken twice. Run the forward pass again."
            )
        hidden_grad, weight_grad = ctx.gradients
        ctx.gradients = None
        if hidden_grad is not None:
            hidden_grad.mul_(loss_grad)
        if weight_grad is not None:
            weight_grad = weight_grad.mul_(loss_grad).to(ctx.weight_dtype)
        return hidden_grad, weight_grad, None, None, None


def _add_weight_grad(
    weight_grad: torch.Tensor, logits_grad: torch.Tensor, hidden: torch.Tensor
) -> None:
    """Add `logits_grad.T @ hidden`, a block of the vocabulary at a time: no second (V, D) tensor."""
    for start in range(0, len(weight_grad), VOCABULARY_BLOCK):
        block = slice(start, start + VOCABULARY_BLOCK)
        weight_grad[block] += linear(logits_grad[:, block].T, hidden.T)


def _loss_and_logits_grad(
    logits: torch.Tensor, targets: torch.Tensor, softcap: float | None, label_smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each token's loss and its gradient with respect to the logits.

    Args:
        logits: (N, V), before the cap; fp32 logits are overwritten.
        targets: (N,), token ids.
        softcap: Cap of the logits, or `None`.
        label_smoothing: Share of the probability that is spread over all tokens.

    Returns:
        Losses (N,) in fp32 and gradients (N, V) in the type of the logits.
    """
    dtype = logits.dtype
    logits = logits.float()
    slope = None
    if softcap is not None:
        capped = logits.div_(softcap).tanh_()
        slope = 1 - capped.square()  # d(c tanh(x / c)) / dx
        logits = capped.mul_(softcap)
    picked = targets[:, None]
    share = 1.0 - label_smoothing
    likely = share * logits.gather(1, picked)
    if label_smoothing:
        likely += label_smoothing * logits.mean(dim=-1, keepdim=True)
    largest = logits.amax(dim=-1, keepdim=True)
    powers = logits.sub_(largest).exp_()  # once, for the loss and its gradient
    sums = powers.sum(dim=-1, keepdim=True)
    losses = (sums.log() + largest - likely).squeeze(1)

    grad = powers.div_(sums)  # softmax
    if label_smoothing:
        grad.sub_(label_smoothing / logits.shape[-1])
    grad.scatter_add_(1, picked, grad.new_full((1, 1), -share).expand_as(picked))
    if slope is not None:
        grad.mul_(slope)
    return losses, grad.to(dtype)
