import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from hf_genmodels.losses.divergences import (
    js_divergence,
    kl_divergence,
    symmetric_relative_entropy,
)

DIVERGENCES = [kl_divergence, js_divergence, symmetric_relative_entropy]
LN2 = math.log(2)
P, Q = torch.tensor([0.75, 0.25]).log(), torch.tensor([0.5, 0.5]).log()


def log_probs(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(*shape, generator=generator, dtype=torch.float64)).log_softmax(-1)


def test_two_coins_are_the_closed_forms():
    forwards = 0.75 * math.log(1.5) - 0.25 * LN2
    backwards = 0.5 * math.log(2 / 3) + 0.5 * LN2
    middle = (0.75 * math.log(6 / 5) + 0.25 * math.log(2 / 3)) / 2
    middle += (0.5 * math.log(4 / 5) + 0.5 * math.log(4 / 3)) / 2

    assert kl_divergence(P, Q).item() == pytest.approx(forwards)
    assert kl_divergence(Q, P).item() == pytest.approx(backwards)
    assert symmetric_relative_entropy(P, Q).item() == pytest.approx(forwards + backwards)
    assert js_divergence(P, Q).item() == pytest.approx(middle)


def test_what_cannot_occur_on_one_side():
    sure, coin = torch.tensor([0.0, -math.inf]), torch.tensor([0.5, 0.5]).log()

    assert kl_divergence(sure, coin).item() == pytest.approx(LN2)
    assert kl_divergence(coin, sure).item() == math.inf
    assert symmetric_relative_entropy(sure, coin).item() == math.inf
    assert js_divergence(sure, sure.flip(0)).item() == pytest.approx(LN2)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_tokens_ruled_out_on_both_sides_change_nothing(divergence):
    logits = torch.stack([P, Q]).double()
    masked = torch.cat([logits, torch.full((2, 1), -math.inf)], dim=1).requires_grad_()

    value = divergence(*masked.log_softmax(-1))
    value.backward()

    assert value.item() == pytest.approx(divergence(P, Q).item())
    assert masked.grad.isfinite().all()
    assert masked.grad[:, :2].any()


@given(st.integers(0, 10_000), st.integers(2, 40), st.floats(0.1, 30))
@settings(max_examples=60, deadline=None)
def test_properties_of_divergences(seed, size, scale):
    p = (scale * log_probs(seed, 4, size)).log_softmax(-1)
    q = (scale * log_probs(seed + 1, 4, size)).log_softmax(-1)
    js = js_divergence(p, q, reduction="none")
    symmetric = symmetric_relative_entropy(p, q, reduction="none")

    assert (kl_divergence(p, q, reduction="none") >= -1e-9).all()
    assert ((js >= -1e-9) & (js <= LN2 + 1e-9)).all()
    torch.testing.assert_close(js, js_divergence(q, p, reduction="none"))
    torch.testing.assert_close(symmetric, symmetric_relative_entropy(q, p, reduction="none"))
    # Lin 1991: the Jensen-Shannon divergence is at most a quarter of Jeffreys'.
    assert (js <= symmetric / 4 + 1e-9).all()
    for divergence in DIVERGENCES:
        assert divergence(p, p).abs() < 1e-9


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_gradients_agree_with_finite_differences(divergence):
    logits = [log_probs(seed, 3, 4).requires_grad_() for seed in (0, 1)]

    assert gradcheck(lambda p, q: divergence(p.log_softmax(-1), q.log_softmax(-1)), logits)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_rows_that_do_not_count_reach_neither_value_nor_gradient(divergence):
    p, q = log_probs(0, 2, 3, 5), log_probs(1, 2, 3, 5)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    rows = divergence(p, q, reduction="none")
    spoilt = p.masked_fill(~mask[..., None], math.nan).requires_grad_()

    value = divergence(spoilt, q, mask=mask)
    value.backward()

    assert value.item() == pytest.approx(rows[mask].mean().item())
    assert spoilt.grad.isfinite().all()
    kept = divergence(spoilt, q, mask=mask, reduction="none")
    torch.testing.assert_close(kept, rows.masked_fill(~mask, 0))
    total = divergence(p, q, mask=mask, reduction="sum")
    torch.testing.assert_close(total, rows[mask].sum())
    torch.testing.assert_close(divergence(p, q, mask=mask, num_items=6), total / 6)
    assert divergence(p, q, mask=torch.zeros_like(mask)).item() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((2, 3), (2, 4), (2,), "mean"), "log_p .* and log_q"),
        (((2, 3), (2, 3), (3,), "mean"), "mask .* and rows"),
        (((2, 3), (2, 3), (2,), "max"), "reduction='max' is unknown"),
    ],
)
def test_what_cannot_be_computed_is_refused(arguments, message):
    p, q, mask, reduction = arguments

    with pytest.raises(ValueError, match=message):
        kl_divergence(
            torch.zeros(p), torch.zeros(q), mask=torch.ones(mask).bool(), reduction=reduction
        )
