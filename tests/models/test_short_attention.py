"""Attention of short texts in bf16: the same as torch's, where it is used."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from hf_genmodels.models import attention, short_attention
from hf_genmodels.models.modeling_gpt import GenGPTForCausalLM


def states(dtype: torch.dtype, length: int = 37, heads: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (2, length, heads, 8)
    drawn = [torch.randn(shape, generator=generator).bfloat16().to(dtype) for _ in range(3)]
    return [one.transpose(1, 2).requires_grad_() for one in drawn]


@pytest.mark.parametrize("at_once", [1, 3 * 37 * 37, 1 << 20])
@pytest.mark.parametrize("largest_score", [20.0, math.inf])
def test_outputs_and_gradients_are_those_of_the_formula(
    monkeypatch: pytest.MonkeyPatch, at_once: int, largest_score: float
):
    monkeypatch.setattr(short_attention, "WEIGHTS_AT_A_TIME", at_once)
    ours, exact = states(torch.bfloat16), states(torch.float64)
    output = short_attention.short_attention(*ours, 0.5, largest_score)
    expected = functional.scaled_dot_product_attention(*exact, is_causal=True, scale=0.5)
    expected = expected.transpose(1, 2)
    assert_close(output.double(), expected, atol=2e-2, rtol=2e-2)
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (output * weight.bfloat16()).sum().backward()
    (expected * weight.bfloat16().double()).sum().backward()
    for found, true in zip(ours, exact, strict=True):
        assert_close(found.grad.double(), true.grad, atol=4e-2, rtol=4e-2)


def test_scores_beyond_all_exponentials_are_harmless():
    query, key, value = states(torch.bfloat16)
    output = short_attention.short_attention(query * 100, key * 100, value, 1.0)
    output.sum().backward()
    assert output.isfinite().all()
    assert all(one.grad.isfinite().all() for one in (query, key, value))


def test_no_token_sees_a_later_one():
    ours = states(torch.bfloat16)
    before = short_attention.short_attention(*ours, 1.0)
    with torch.no_grad():
        for one in ours:
            one[:, :, 20:] += 1
    assert torch.equal(short_attention.short_attention(*ours, 1.0)[:, :20], before[:, :20])


def uses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows with each use."""
    used: list[int] = []

    def counted(*arguments: torch.Tensor) -> torch.Tensor:
        used.append(arguments[0].shape[-2])
        return short_attention.short_attention(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(attention, "short_attention", counted)
    return used


def loss_of(model: GenGPTForCausalLM, ids: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return model(ids, labels=ids, use_cache=False, **inputs).loss


@pytest.mark.parametrize("fields", [{}, {"num_key_value_heads": 2, "position_embedding": "rotary"}])
def test_a_model_that_is_trained_in_bf16_uses_it_and_learns_the_same(
    make_model, input_ids, monkeypatch, fields
):
    model = make_model(use_bias=False, **fields).train()  # those of keys have no gradient
    used = uses(monkeypatch)
    loss_of(model, input_ids).backward()
    assert used == [12] * 3
    ours = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    model(input_ids, labels=input_ids).loss.backward()
    assert used == [12] * 3  # fp32 goes the usual way
    for name, parameter in model.named_parameters():
        difference = (ours[name] - parameter.grad).norm()
        assert difference < 0.1 * parameter.grad.norm() + 1e-4, name


def test_it_is_used_nowhere_else(make_model, input_ids, monkeypatch):
    model = make_model().train()
    used = uses(monkeypatch)
    with torch.no_grad():
        loss_of(model, input_ids)
    positions = torch.tensor([[*range(5), *range(7)]])
    loss_of(model, input_ids, position_ids=positions)  # packed: with a mask
    monkeypatch.setattr(short_attention, "LONGEST", 11)
    loss_of(model, input_ids)
    assert used == []
