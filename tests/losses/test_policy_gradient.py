import math

import pytest
import torch

from hf_genmodels.losses.policy_gradient import (
    advantages_of,
    entropy,
    policy_gradient,
    returns_of,
    rewards_of,
)

ALL = torch.ones(2, 3, dtype=torch.bool)


def test_rewards_are_bounded_and_nothing_where_the_verdict_is_open():
    rewards = rewards_of(torch.tensor([-50.0, 0.0, 2.0, 50.0]))
    assert rewards.tolist() == pytest.approx([-1, 0, 2 / (1 + math.exp(-2)) - 1, 1])


def test_returns_sum_what_follows_and_stop_at_the_end_of_a_text():
    rewards = torch.tensor([[1.0, 2.0, 4.0], [1.0, 2.0, 4.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    found = returns_of(rewards, mask, 0.5)
    assert found.tolist() == [[1 + 1 + 1, 2 + 2, 4], [2, 2, 0]]
    assert returns_of(rewards, ALL, 0.0).tolist() == rewards.tolist()
    with pytest.raises(ValueError, match="discount"):
        returns_of(rewards, mask, 1.5)


def test_the_baseline_of_a_token_is_the_mean_of_the_other_texts():
    returns = torch.tensor([[1.0, 5.0], [3.0, 0.0], [8.0, 7.0]])
    mask = torch.tensor([[True, True], [True, False], [True, True]])
    found = advantages_of(returns, mask)
    assert found.tolist() == [[1 - 5.5, 5 - 7], [3 - 4.5, 0], [8 - 2, 7 - 5]]
    alone = torch.tensor([[True, True], [True, False], [True, False]])
    assert advantages_of(returns, alone)[0, 1] == 0


def test_the_gradient_is_that_of_the_expected_return():
    """Over all tokens, weighted by their probability, it is the exact gradient."""
    logits = torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64, requires_grad=True)
    brings_in = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    (exact,) = torch.autograd.grad(-(logits.softmax(0) * brings_in).sum(), logits)
    tokens, log_probs = torch.arange(3)[:, None], logits.log_softmax(0).expand(3, 1, 3)
    weights = logits.softmax(0).detach()[:, None] * 3  # the loss is a mean over three rows
    loss = policy_gradient(
        log_probs, tokens, brings_in[:, None] * weights, torch.ones(3, 1, dtype=torch.bool)
    )
    (found,) = torch.autograd.grad(loss, logits)
    assert torch.allclose(found, exact)


def test_tokens_that_do_not_count_change_nothing():
    log_probs = torch.randn(2, 3, 5).log_softmax(-1).requires_grad_()
    mask = torch.tensor([[True, False, True], [False, False, True]])
    tokens, advantages = torch.randint(5, (2, 3)), torch.randn(2, 3)
    loss = policy_gradient(log_probs, tokens, advantages, mask)
    loss.backward()
    assert log_probs.grad is not None
    assert log_probs.grad[~mask].abs().sum() == 0
    assert policy_gradient(log_probs, tokens, advantages, ~ALL) == 0


def test_entropy_is_that_of_the_counted_places():
    log_probs = torch.log(torch.tensor([[[0.5, 0.5], [1.0 - 1e-7, 1e-7]]]))
    assert entropy(log_probs, torch.tensor([[True, False]])).item() == pytest.approx(0.693147, 1e-5)
    assert entropy(log_probs, torch.tensor([[True, True]])).item() == pytest.approx(0.34657, 1e-4)
