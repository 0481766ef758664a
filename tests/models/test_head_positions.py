"""Norm and rotation of queries and keys in one step: the same as one after the other."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from hf_genmodels.models import attention
from hf_genmodels.models.head_positions import norm_and_rotate
from hf_genmodels.models.layers import RotaryPositions, apply_rotary, rms_norm
from hf_genmodels.models.modeling_gpt import GenGPTForCausalLM

EPS = 1e-5


def heads(dtype: torch.dtype = torch.float) -> torch.Tensor:
    """States (B, H, T, C) whose memory is that of (B, T, H, C), as projections are."""
    drawn = torch.randn(2, 7, 3, 16, generator=torch.Generator().manual_seed(0)) * 3
    return drawn.to(dtype).transpose(1, 2).requires_grad_()


@pytest.mark.parametrize("positions", [torch.arange(7)[None], torch.arange(14).view(2, 7)])
def test_outputs_and_gradients_are_those_of_norm_and_rotation(positions: torch.Tensor):
    rotary = RotaryPositions(16, 10000.0)(positions)
    ours, theirs = heads(), heads()
    weight = torch.randn(2, 3, 7, 16, generator=torch.Generator().manual_seed(1))
    found = norm_and_rotate(ours, rotary, EPS)
    expected = apply_rotary(rms_norm(theirs, EPS), rotary)
    assert_close(found, expected)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    assert_close(ours.grad, theirs.grad)


def test_bf16_is_rounded_once():
    rotary = RotaryPositions(16, 10000.0)(torch.arange(7)[None])
    exact = apply_rotary(rms_norm(heads(torch.bfloat16).float(), EPS), rotary)
    found = norm_and_rotate(heads(torch.bfloat16), rotary, EPS)
    assert found.dtype == torch.bfloat16
    assert_close(found.float(), exact, rtol=2**-8, atol=1e-4)


def test_training_uses_it_and_inference_gives_the_same(
    make_model, input_ids: torch.Tensor, monkeypatch: pytest.MonkeyPatch
):
    used: list[torch.Size] = []

    def counted(states: torch.Tensor, *arguments: object) -> torch.Tensor:
        used.append(states.shape)
        return norm_and_rotate(states, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(attention, "norm_and_rotate", counted)
    model: GenGPTForCausalLM = make_model(qk_norm=True, position_embedding="rotary").eval()
    trained = model(input_ids).logits
    number = len(used)
    assert number == 2 * model.config.num_hidden_layers
    with torch.no_grad():
        assert_close(model(input_ids).logits, trained, rtol=1e-4, atol=1e-5)
    assert len(used) == number
