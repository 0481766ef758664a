"""Cross-entropy over a large vocabulary without ever holding all logits.

The projection onto the vocabulary and the loss are computed together, a chunk of tokens at a time,
and so are their gradients, already in the forward pass: the logits of a chunk are used while they
are in the cache and then forgotten. Same idea as Wijmans et al. 2024 ("Cut Your Losses in
Large-Vocabulary Language Models", arXiv:2411.09009), without their sparsity.

Letters: N tokens, D hidden_size, V vocabulary.
"""

from typing import Any

import torch

from .linear import linear

IGNORE_INDEX = -100
# Bytes of fp32 logits held at once. Small enough for a CPU's cache; a GPU wants larger products.
CHUNK_BYTES = {"cpu": 8 << 20, "cuda": 256 << 20}
VOCABULARY_BLOCK = 8192
MIN_ROWS = 256  # below this a chunk spends its time on adding up the weight's gradient


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    softcap: float | None = None,
) -> torch.Tensor:
    """Return the sum over tokens of -log softmax(hidden @ weight.T)[target].

    Args:
        hidden: States before the head, (N, D).
        weight: Weight of the head, (V, D).
        targets: Token ids, (N,); `IGNORE_INDEX` marks tokens that do not count.
        softcap: Cap c of logits, c tanh(logits / c), or `None`.

    Returns:
        The summed loss, a scalar in fp32. Its gradient can be taken once.
    """
    if not torch.is_grad_enabled():
        hidden, weight = hidden.detach(), weight.detach()
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    return _LinearCrossEntropy.apply(hidden, weight, targets, softcap)


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
    ) -> torch.Tensor:
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        counted = targets.ne(IGNORE_INDEX)
        hidden = hidden * counted[:, None]  # tokens that do not count add nothing to the weight
        hidden_grad = torch.empty_like(hidden) if wants_hidden else None
        weight_grad = torch.zeros_like(weight, dtype=torch.float) if wants_weight else None
        loss = torch.zeros((), dtype=torch.float, device=hidden.device)

        rows = max(1, min(_rows_per_chunk(hidden, weight), len(targets)))
        for start in range(0, len(targets), rows):
            chunk = slice(start, min(start + rows, len(targets)))
            losses, logits_grad = _loss_and_logits_grad(
                linear(hidden[chunk], weight), targets[chunk], softcap
            )
            loss += (losses * counted[chunk]).sum()
            if wants_hidden:
                hidden_grad[chunk] = linear(logits_grad, weight.T)
            if wants_weight:
                _add_weight_grad(weight_grad, logits_grad, hidden[chunk])
        if wants_hidden:
            hidden_grad.mul_(counted[:, None])
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
        return hidden_grad, weight_grad, None, None


def _add_weight_grad(
    weight_grad: torch.Tensor, logits_grad: torch.Tensor, hidden: torch.Tensor
) -> None:
    """Add `logits_grad.T @ hidden`, a block of the vocabulary at a time: no second (V, D) tensor."""
    for start in range(0, len(weight_grad), VOCABULARY_BLOCK):
        block = slice(start, start + VOCABULARY_BLOCK)
        weight_grad[block] += linear(logits_grad[:, block].T, hidden.T)


def _loss_and_logits_grad(
    logits: torch.Tensor, targets: torch.Tensor, softcap: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each token's loss and its gradient with respect to the logits.

    Args:
        logits: (N, V), before the cap; fp32 logits are overwritten.
        targets: (N,), with `IGNORE_INDEX`.
        softcap: Cap of the logits, or `None`.

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
    picked = targets.clamp(min=0)[:, None]
    normalizer = logits.logsumexp(dim=-1, keepdim=True)
    losses = (normalizer - logits.gather(1, picked)).squeeze(1)

    grad = logits.sub_(normalizer).exp_()  # softmax
    grad.scatter_add_(1, picked, grad.new_full((1, 1), -1.0).expand_as(picked))
    if slope is not None:
        grad.mul_(slope)
    return losses, grad.to(dtype)
