import math

import pytest
import torch
from torch.autograd import gradcheck

from hf_genmodels.losses.sequence import (
    IGNORE_INDEX,
    cross_entropy,
    label_smoothed_cross_entropy,
    nll,
    sequence_unlikelihood,
)

# Probabilities 1/2, 1/4, 1/4.
COIN = [math.log(2.0), 0.0, 0.0]
LOSSES = [
    cross_entropy,
    lambda logits, targets, **options: label_smoothed_cross_entropy(
        logits, targets, 0.3, **options
    ),
    lambda logits, targets, **options: nll(logits.log_softmax(-1), targets, **options),
    sequence_unlikelihood,
]


def random_batch(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, generator=generator, dtype=dtype)
    targets = torch.tensor([[0, 4, IGNORE_INDEX], [2, IGNORE_INDEX, 1]])
    return logits.requires_grad_(), targets


def test_cross_entropy_is_the_closed_form():
    logits = torch.tensor([COIN, COIN, COIN])

    # -(log 1/2 + log 1/4) / 2
    loss = cross_entropy(logits, torch.tensor([0, 2, IGNORE_INDEX]))
    assert loss.item() == pytest.approx(1.5 * math.log(2))


def test_nll_takes_probabilities_as_they_are():
    log_probs = torch.tensor([[-math.inf, -0.25, -3.0], [-1.0, -2.0, -math.inf]])

    assert nll(log_probs, torch.tensor([1, 0])).item() == pytest.approx(0.625)
    assert nll(log_probs, torch.tensor([0, 0])).item() == math.inf


def test_smoothing_gives_every_token_its_share():
    # 0.7 * log 2 + 0.1 * (log 2 + log 4 + log 4)
    loss = label_smoothed_cross_entropy(torch.tensor([COIN]), torch.tensor([0]), 0.3)
    assert loss.item() == pytest.approx((0.7 + 0.5) * math.log(2))


def test_smoothing_is_least_at_the_smoothed_distribution():
    smoothed = torch.tensor([[0.8, 0.1, 0.1]], dtype=torch.float64).log().requires_grad_()

    label_smoothed_cross_entropy(smoothed, torch.tensor([0]), 0.3).backward()

    torch.testing.assert_close(smoothed.grad, torch.zeros(1, 3, dtype=torch.float64))


def test_unlikelihood_is_the_closed_form():
    logits = torch.tensor([COIN, COIN, COIN])

    # 1 - p is 1/2 and 3/4
    loss = sequence_unlikelihood(logits, torch.tensor([0, IGNORE_INDEX, 1]))
    assert loss.item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)


def test_unlikelihood_is_exact_where_the_probability_rounds_to_one():
    logits = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    assert logits.softmax(-1)[0, 0] == 1

    loss = sequence_unlikelihood(logits, torch.tensor([0]))
    loss.backward()

    assert loss.item() == pytest.approx(200 - math.log(2))
    torch.testing.assert_close(logits.grad, torch.tensor([[1.0, -0.5, -0.5]]))


def test_unlikelihood_of_a_certain_token_is_finite():
    logits = torch.tensor([[3.0, -math.inf], [0.0, 0.0]], requires_grad=True)

    loss = sequence_unlikelihood(logits, torch.tensor([0, 0]))
    loss.backward()

    largest = -math.log(torch.finfo(torch.float).tiny)
    assert loss.item() == pytest.approx((largest + math.log(2)) / 2)
    torch.testing.assert_close(logits.grad, torch.tensor([[0.0, 0.0], [0.25, -0.25]]))


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_agree_with_finite_differences(loss):
    logits, targets = random_batch()

    assert gradcheck(lambda x: loss(x, targets), logits)


@pytest.mark.parametrize("loss", LOSSES)
def test_parts_divided_by_all_items_add_up_to_the_whole(loss):
    logits, targets = random_batch()
    items = targets.ne(IGNORE_INDEX).sum()

    parts = [loss(logits[i], targets[i], num_items=items) for i in range(2)]

    torch.testing.assert_close(sum(parts), loss(logits, targets))
    torch.testing.assert_close(loss(logits, targets, num_items=8), loss(logits, targets) / 2)


@pytest.mark.parametrize("loss", [cross_entropy, nll, sequence_unlikelihood])
def test_what_is_ignored_reaches_neither_loss_nor_gradient(loss):
    logits, targets = random_batch()
    expected = loss(logits, targets)
    spoilt = logits.detach().clone()
    spoilt[targets == IGNORE_INDEX] = math.nan
    spoilt.requires_grad_()

    value = loss(spoilt, targets)
    value.backward()

    assert value.item() == expected.item()
    assert spoilt.grad.isfinite().all()
    assert not spoilt.grad[targets == IGNORE_INDEX].any()


@pytest.mark.parametrize("loss", LOSSES)
def test_nothing_to_count_is_a_loss_of_zero(loss):
    logits, targets = random_batch()

    value = loss(logits, torch.full_like(targets, IGNORE_INDEX))
    value.backward()

    assert value.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_is_computed_in_single(loss):
    logits, targets = random_batch(torch.bfloat16)

    value = loss(logits, targets)

    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(logits.float(), targets), rtol=2e-2, atol=0)


@pytest.mark.parametrize("loss", LOSSES)
def test_shapes_that_do_not_fit_are_refused(loss):
    with pytest.raises(ValueError, match=r"targets \(1,\).* \(2,\)"):
        loss(torch.zeros(2, 3), torch.tensor([0]))


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_smoothing_out_of_range_is_refused(smoothing):
    with pytest.raises(ValueError, match="must be at least 0"):
        label_smoothed_cross_entropy(torch.zeros(1, 3), torch.tensor([0]), smoothing)
