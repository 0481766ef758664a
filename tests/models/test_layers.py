"""Each layer does what its paper says."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close
from transformers.activations import ACT2FN

from hf_genmodels.models.attention import (
    SelfAttention,
    eager_attention_forward,
    repeat_key_value_heads,
)
from hf_genmodels.models.layers import (
    MLP,
    RMSNorm,
    RotaryPositions,
    SinusoidalPositions,
    activation_function,
    apply_rotary,
    build_norm,
    rms_norm,
)


def attend(layer, hidden, **options):
    layer.config._attn_implementation = "eager"
    causal = torch.full((hidden.shape[1],) * 2, -torch.inf).triu(1)
    return layer(hidden, attention_mask=causal, **options)[0]


def test_rms_norm_is_the_formula_of_the_paper():
    states = torch.randn(3, 5, 16)
    expected = states / (states.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    assert_close(rms_norm(states, 1e-5), expected)
    assert_close(rms_norm(states, 1e-5), F.rms_norm(states, (16,), eps=1e-5))


def test_rms_norm_has_exact_gradients():
    weight = torch.randn(3, 2, 5, 16)
    ours, theirs = (torch.randn(3, 5, 2, 16).transpose(1, 2) for _ in range(2))
    theirs.copy_(ours)
    (rms_norm(ours.requires_grad_(), 1e-5) * weight).sum().backward()
    (F.rms_norm(theirs.requires_grad_(), (16,), eps=1e-5) * weight).sum().backward()
    assert_close(ours.grad, theirs.grad)


def test_rms_norm_of_bf16_is_computed_in_fp32():
    states = torch.randn(4, 64).bfloat16()
    exact = F.rms_norm(states.float(), (64,), eps=1e-5)
    assert rms_norm(states, 1e-5).dtype == torch.bfloat16
    assert torch.equal(rms_norm(states, 1e-5), exact.bfloat16())


@pytest.mark.parametrize("affine", [True, False])
def test_rms_norm_layer_is_interchangeable_with_that_of_torch(affine):
    ours = RMSNorm(16, eps=1e-6, elementwise_affine=affine)
    theirs = nn.RMSNorm(16, eps=1e-6, elementwise_affine=affine)
    if affine:
        nn.init.normal_(ours.weight)
    theirs.load_state_dict(ours.state_dict())
    states = torch.randn(2, 16)
    assert_close(ours(states), theirs(states))


def test_norms_have_the_parameters_the_config_asks_for(make_config):
    def names(**fields):
        return sorted(name for name, _ in build_norm(make_config(**fields)).named_parameters())

    assert names() == ["bias", "weight"]
    assert names(use_bias=False) == ["weight"]
    assert names(norm="rmsnorm") == ["weight"]
    assert names(norm_affine=False) == names(norm="rmsnorm", norm_affine=False) == []


def test_rms_norm_without_weights_is_in_the_type_of_the_next_product_under_autocast():
    states = torch.randn(3, 16, requires_grad=True)
    norm = RMSNorm(16, eps=1e-5, elementwise_affine=False)
    assert norm(states).dtype == torch.float
    weight = torch.randn(3, 16).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        normed = norm(states)
    assert torch.equal(normed, rms_norm(states, 1e-5).bfloat16())
    (normed * weight).sum().backward()
    exact = states.detach().clone().requires_grad_()
    (rms_norm(exact, 1e-5) * weight).sum().backward()
    assert states.grad.dtype == torch.float
    assert_close(states.grad, exact.grad, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
def test_norms_are_unit_sized_and_only_layernorm_is_centred(make_config, norm):
    states = torch.randn(4, 32) * 7 + 3
    normed = build_norm(make_config(norm=norm))(states)
    assert_close(normed.square().mean(-1), torch.ones(4), rtol=1e-4, atol=1e-4)
    centred = normed.mean(-1).abs().max() < 1e-4
    assert centred == (norm == "layernorm")


@pytest.mark.parametrize("name", ["gelu_new", "gelu_pytorch_tanh", "gelu", "silu", "relu2"])
def test_activations_are_those_of_transformers(name):
    values = torch.linspace(-4, 4, 101)
    assert_close(activation_function(name)(values), ACT2FN[name](values), rtol=1e-6, atol=1e-6)


def test_squared_relu_is_squared():
    assert_close(activation_function("relu2")(torch.tensor([-2.0, 3.0])), torch.tensor([0.0, 9.0]))


def test_squared_relu_has_the_gradients_of_transformers():
    ours = torch.linspace(-4, 4, 101).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    weight = torch.randn(101)
    (activation_function("relu2")(ours) * weight).sum().backward()
    (ACT2FN["relu2"](theirs) * weight).sum().backward()
    assert_close(ours.grad, theirs.grad)


def test_sinusoidal_positions_are_the_formula_of_the_paper():
    table = SinusoidalPositions(50, 8)(torch.arange(50)[None])[0]
    for position in (0, 1, 49):
        for pair in range(4):
            angle = position / 10000 ** (2 * pair / 8)
            assert table[position, pair].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[position, pair + 4].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_rotary_scores_depend_on_the_distance_only():
    rotary = RotaryPositions(16, 10000.0)
    query, key = torch.randn(2, 1, 1, 1, 16)

    def score(query_at, key_at):
        turned_query = apply_rotary(query, rotary(torch.tensor([[query_at]])))
        turned_key = apply_rotary(key, rotary(torch.tensor([[key_at]])))
        return (turned_query * turned_key).sum()

    assert_close(score(7, 3), score(107, 103), rtol=1e-4, atol=1e-4)
    assert_close(score(0, 0), (query * key).sum())
    assert abs(score(7, 3) - score(7, 5)) > 1e-3


def test_rotary_turns_without_changing_lengths():
    states = torch.randn(2, 3, 5, 16)
    turned = apply_rotary(states, RotaryPositions(16, 10000.0)(torch.arange(5)[None]))
    assert_close(turned.norm(dim=-1), states.norm(dim=-1))
    assert torch.equal(turned[:, :, 0], states[:, :, 0])


def test_rotary_angles_stay_exact_in_a_bf16_model():
    positions = torch.tensor([[0, 999, 4095]])
    exact = RotaryPositions(16, 10000.0)(positions)
    cast = RotaryPositions(16, 10000.0).bfloat16()(positions)
    assert all(torch.equal(*pair) for pair in zip(cast, exact, strict=True))


def test_a_larger_theta_turns_more_slowly():
    slow, fast = RotaryPositions(16, 1e6), RotaryPositions(16, 1e2)
    assert torch.all(slow.make_frequencies()[1:] < fast.make_frequencies()[1:])
    assert slow.make_frequencies()[0] == fast.make_frequencies()[0] == 1


def test_key_value_heads_are_repeated_group_by_group():
    states = torch.arange(2.0).view(1, 2, 1, 1)
    assert repeat_key_value_heads(states, 3).flatten().tolist() == [0, 0, 0, 1, 1, 1]


def test_eager_attention_is_the_formula_of_the_paper():
    query, key, value = torch.randn(3, 2, 4, 6, 8)
    mask = torch.full((6, 6), -torch.inf).triu(1)
    module = SimpleNamespace(num_key_value_groups=1, training=False)
    output, weights = eager_attention_forward(module, query, key, value, mask, 8**-0.5)
    assert_close(weights.sum(-1), torch.ones(2, 4, 6))
    assert weights.triu(1).count_nonzero() == 0
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    assert_close(output, expected.transpose(1, 2))


def test_grouped_query_attention_is_attention_with_shared_heads(make_config):
    grouped = SelfAttention(make_config(num_key_value_heads=2), 0)
    full = SelfAttention(make_config(), 0)
    state = grouped.state_dict()
    for name in ("k_proj", "v_proj"):
        for kind in ("weight", "bias"):
            heads = state[f"{name}.{kind}"].unflatten(0, (2, 8))
            state[f"{name}.{kind}"] = heads.repeat_interleave(2, dim=0).flatten(0, 1)
    full.load_state_dict(state)
    hidden = torch.randn(2, 5, 32)
    assert_close(attend(grouped, hidden), attend(full, hidden))


def test_qk_norm_makes_scores_independent_of_the_size_of_queries_and_keys(make_config):
    layer = SelfAttention(make_config(qk_norm=True, use_bias=False), 0)
    hidden = torch.randn(2, 5, 32)
    before = attend(layer, hidden)
    with torch.no_grad():
        layer.q_proj.weight *= 100
        layer.k_proj.weight *= 100
    assert_close(attend(layer, hidden), before, rtol=1e-3, atol=1e-4)


def test_attention_scale_multiplies_the_scores(make_config):
    scaled = SelfAttention(make_config(attention_scale=3.0, use_bias=False), 0)
    plain = SelfAttention(make_config(use_bias=False), 0)
    plain.load_state_dict(scaled.state_dict())
    with torch.no_grad():
        plain.q_proj.weight *= 3
    hidden = torch.randn(2, 5, 32)
    assert_close(attend(scaled, hidden), attend(plain, hidden))


def test_value_embeddings_are_mixed_into_the_values(make_config):
    layer = SelfAttention(make_config(use_bias=False), 0, has_value_embedding=True)
    assert layer.value_mix.tolist() == [0.5, 0.5]
    hidden, embedding = torch.randn(1, 4, 32), torch.randn(1, 4, 32)
    values = 0.5 * layer.v_proj(hidden) + 0.5 * embedding
    with_embedding = attend(layer, hidden, value_embedding=embedding)
    first = layer.o_proj(values[:, 0])  # the first token sees only itself
    assert_close(with_embedding[:, 0], first)
    with torch.no_grad():
        layer.value_mix.copy_(torch.tensor([1.0, 0.0]))
    plain = SelfAttention(make_config(use_bias=False), 0)
    plain.load_state_dict(layer.state_dict(), strict=False)
    assert_close(attend(layer, hidden, value_embedding=embedding), attend(plain, hidden))


def test_attention_dropout_acts_in_training_only(make_config):
    layer = SelfAttention(make_config(attention_dropout=0.5), 0)
    hidden = torch.randn(1, 6, 32)
    assert not torch.equal(attend(layer.train(), hidden), attend(layer, hidden))
    assert torch.equal(attend(layer.eval(), hidden), attend(layer, hidden))


def test_use_bias_decides_about_every_bias(make_config):
    for use_bias in (True, False):
        config = make_config(use_bias=use_bias)
        for layer in (MLP(config), SelfAttention(config, 0)):
            has_bias = any(name.endswith("bias") for name, _ in layer.named_parameters())
            assert has_bias == use_bias
