"""The chunked loss equals the plain one, and never holds all logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hf_genmodels.models import linear_cross_entropy as module
from hf_genmodels.models.linear_cross_entropy import linear_cross_entropy

ROWS, WIDTH, VOCABULARY = 203, 24, 301


class LargestTensor(TorchDispatchMode):
    """Records the largest number of elements that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if torch.is_tensor(leaf):
                self.elements = max(self.elements, leaf.numel())
        return result


@pytest.fixture
def problem():
    """States, head and targets, one in five of which does not count."""
    hidden = torch.randn(ROWS, WIDTH)
    weight = torch.randn(VOCABULARY, WIDTH) / WIDTH**0.5
    targets = torch.randint(VOCABULARY, (ROWS,))
    targets[::5] = -100
    return hidden, weight, targets


@pytest.fixture(params=[64, 100, 10_000], ids=["chunks of 64", "chunks of 100", "one chunk"])
def _chunk(request, monkeypatch):
    monkeypatch.setattr(module, "_rows_per_chunk", lambda *_: request.param)


def plain_loss(hidden, weight, targets, softcap=None, label_smoothing=0.0):
    logits = (hidden @ weight.T).float()
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return F.cross_entropy(logits, targets, label_smoothing=label_smoothing, reduction="sum")


def loss_and_gradients(function, hidden, weight, targets, scale=1.0, **options):
    hidden, weight = (t.clone().requires_grad_() for t in (hidden, weight))
    loss = function(hidden, weight, targets, **options)
    (loss * scale).backward()
    return loss.detach(), hidden.grad, weight.grad


@pytest.mark.usefixtures("_chunk")
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("scale", [1.0, 1 / 7])
def test_loss_and_gradients_equal_the_plain_ones(problem, softcap, label_smoothing, scale):
    options = {
        "scale": scale / ROWS,
        "softcap": softcap,
        "label_smoothing": label_smoothing,
    }
    chunked = loss_and_gradients(linear_cross_entropy, *problem, **options)
    plain = loss_and_gradients(plain_loss, *problem, **options)
    assert_close(chunked[0] / ROWS, plain[0] / ROWS, rtol=1e-6, atol=1e-6)
    for ours, theirs in zip(chunked[1:], plain[1:], strict=True):
        assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_a_smoothed_loss_is_a_mixture_with_the_mean_over_the_vocabulary(problem):
    hidden, weight, targets = problem
    log_probs = torch.log_softmax(hidden @ weight.T, -1)[targets != -100]
    correct = log_probs.gather(1, targets[targets != -100][:, None]).sum()
    expected = -(0.7 * correct + 0.3 * log_probs.mean(-1).sum())
    assert_close(linear_cross_entropy(*problem, label_smoothing=0.3), expected)


class Selections(TorchDispatchMode):
    """Counts how often rows of states are selected."""

    selections = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        if func is torch.ops.aten.index_select.default and args[0].ndim == 2:
            self.selections += 1
        return func(*args, **(kwargs or {}))


def test_tokens_that_do_not_count_are_not_projected_and_nothing_is_copied_without_them(
    problem, monkeypatch
):
    hidden, weight, targets = problem
    projected = []
    plain = module._loss_and_logits_grad
    monkeypatch.setattr(
        module,
        "_loss_and_logits_grad",
        lambda logits, *rest: projected.append(len(logits)) or plain(logits, *rest),
    )
    for kept, selections in ((targets, 1), (targets.clamp(min=0), 0)):
        projected.clear()
        with Selections() as seen:
            linear_cross_entropy(hidden, weight, kept)
        assert sum(projected) == (kept != -100).sum()
        assert seen.selections == selections


def test_nothing_counted_is_a_loss_of_zero_with_zero_gradients(problem):
    hidden, weight, targets = problem
    ignored = torch.full_like(targets, -100)
    loss, hidden_grad, weight_grad = loss_and_gradients(
        linear_cross_entropy, hidden, weight, ignored
    )
    assert loss == 0
    assert hidden_grad.count_nonzero() == weight_grad.count_nonzero() == 0


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_a_frozen_side_gets_no_gradient_and_the_other_the_same(problem, frozen):
    hidden, weight, targets = (t.clone() for t in problem)
    _, hidden_grad, weight_grad = loss_and_gradients(plain_loss, *problem)
    (weight if frozen == "hidden" else hidden).requires_grad_()
    linear_cross_entropy(hidden, weight, targets).backward()
    if frozen == "hidden":
        assert hidden.grad is None
        assert_close(weight.grad, weight_grad, rtol=1e-5, atol=1e-5)
    else:
        assert weight.grad is None
        assert_close(hidden.grad, hidden_grad, rtol=1e-5, atol=1e-5)


def test_without_gradients_only_the_loss_is_computed(problem, monkeypatch):
    hidden, weight, targets = problem
    weight.requires_grad_()
    asked = []
    monkeypatch.setattr(torch, "zeros_like", lambda *given, **_: asked.append(given))
    with torch.no_grad():
        loss = linear_cross_entropy(hidden, weight, targets)
    assert not loss.requires_grad
    assert asked == []
    assert_close(loss, plain_loss(hidden, weight, targets).detach(), rtol=1e-6, atol=1e-6)


def test_autocast_computes_in_bf16_and_sums_in_fp32(problem):
    plain = loss_and_gradients(plain_loss, *problem)
    with torch.autocast("cpu", torch.bfloat16):
        loss, hidden_grad, weight_grad = loss_and_gradients(linear_cross_entropy, *problem)
    assert loss.dtype == hidden_grad.dtype == weight_grad.dtype == torch.float
    assert_close(loss, plain[0], rtol=1e-3, atol=0)
    assert_close(hidden_grad, plain[1], rtol=0.02, atol=0.02)
    assert_close(weight_grad, plain[2], rtol=0.02, atol=0.05)


def test_bf16_states_and_head(problem):
    hidden, weight, targets = problem
    hidden, weight = hidden.bfloat16(), weight.bfloat16()
    loss, hidden_grad, weight_grad = loss_and_gradients(
        linear_cross_entropy, hidden, weight, targets
    )
    expected = plain_loss(hidden.float(), weight.float(), targets)
    assert loss.dtype == torch.float
    assert hidden_grad.dtype == weight_grad.dtype == torch.bfloat16
    assert_close(loss, expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("softcap", [None, 3.0])
def test_never_holds_all_logits(softcap):
    rows, vocabulary = 512, 1_000
    hidden = torch.randn(rows, 8, requires_grad=True)
    weight = torch.randn(vocabulary, 8, requires_grad=True)
    targets = torch.randint(vocabulary, (rows,))
    with LargestTensor() as largest:
        linear_cross_entropy(hidden, weight, targets, softcap).backward()
    assert largest.elements <= module.CHUNK_BYTES["cpu"] // 4
    assert largest.elements < rows * vocabulary
    with LargestTensor() as largest:
        plain_loss(hidden, weight, targets, softcap).backward()
    assert largest.elements == rows * vocabulary


def test_a_second_backward_says_what_to_do(problem):
    hidden, weight, targets = problem
    loss = linear_cross_entropy(hidden.requires_grad_(), weight, targets)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="Run the forward pass again"):
        loss.backward()
