"""Bidirectional cross-attention: where the halves lie, their positions, their gate."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from hf_genmodels.models.bidirectional_attention import BidirectionalCrossAttention, split_source
from hf_genmodels.models.layers import sinusoids
from tests.models.conftest import randomise
from tests.models.transformer import make_batch, make_config, make_labels, make_model

FIELDS = {"cross_attention": "bidirectional", "num_key_value_heads": 2}


def layer_and_config(implementation="eager"):
    config = make_config(**FIELDS)
    config._attn_implementation = implementation
    layer = BidirectionalCrossAttention(config, 0)
    randomise(layer)
    return layer, config


def split(config, mask, states, with_positions=True):
    queries = torch.zeros(len(mask), 1, 32)
    return split_source(config, queries, states, torch.tensor(mask), with_positions)


@pytest.mark.parametrize(
    ("mask", "first", "positions"),
    [
        ([1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 0]),
        ([1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 2, 1, 0]),
        ([1, 1, 1, 0, 0], [1, 1, 0, None, None], [0, 1, 0, None, None]),
        ([0, 0, 1, 1, 1], [None, None, 1, 1, 0], [None, None, 0, 1, 0]),
        ([1, 0, 0], [1, None, None], [0, None, None]),
        ([1, 1], [1, 0], [0, 0]),
    ],
)
def test_the_middle_is_that_of_the_real_tokens_and_time_runs_towards_it(mask, first, positions):
    _, config = layer_and_config()
    halves = split(config, [mask], torch.zeros(1, len(mask), 32))
    for place, (is_first, position) in enumerate(zip(first, positions, strict=True)):
        if is_first is not None:
            assert halves.in_first[0, place] == bool(is_first)
            encoding = sinusoids(torch.tensor(position), 32)
            assert_close(halves.positions[0, place], encoding)
    assert halves.has_second.item() == (sum(mask) > 1)


def attend(attention, query, states, positions):
    """One attention in plain operations; queries (T, D), states (S, D), positions (S,)."""
    keys = attention.k_proj(states + sinusoids(torch.tensor(positions), 32))
    values = attention.v_proj(states)
    query = attention.q_proj(query)
    heads = []
    for head in range(4):  # two query heads share each key head
        own, shared = slice(8 * head, 8 * head + 8), slice(8 * (head // 2), 8 * (head // 2) + 8)
        scores = query[:, own] @ keys[:, shared].T / 8**0.5
        heads.append(scores.softmax(-1) @ values[:, shared])
    return attention.o_proj(torch.cat(heads, -1))


@torch.no_grad()
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("length", [2, 3, 4, 7])
def test_the_output_is_the_formula(implementation, length):
    layer, config = layer_and_config(implementation)
    states, query = torch.randn(length, 32), torch.randn(5, 32)
    padded = torch.cat((torch.randn(2, 32), states))
    halves = split_source(
        config, query[None], padded[None], torch.tensor([[0, 0, *[1] * length]]), True
    )
    output, weights = layer(query[None], padded[None], halves)

    middle = (length + 1) // 2
    first = attend(layer.first, query, states[:middle], list(range(middle)))
    second = attend(layer.second, query, states[middle:], list(range(length - middle))[::-1])
    gate = torch.sigmoid(layer.gate(torch.cat((first, second), -1)))
    assert_close(output[0], gate * first + (1 - gate) * second, rtol=1e-4, atol=1e-5)
    if weights is not None:
        assert_close(weights.sum(-1), torch.ones(1, 4, 5))
        assert_close(weights[..., 2 : 2 + middle].sum(-1), torch.full((1, 4, 5), 0.5))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_a_source_of_one_token_has_no_second_half(implementation):
    layer, config = layer_and_config(implementation)
    states = torch.randn(2, 5, 32)
    halves = split(config, [[1, 0, 0, 0, 0], [1, 1, 1, 1, 1]], states)
    query = torch.randn(2, 3, 32)
    output, _ = layer(query, states, halves)
    first = attend(layer.first, query[0], states[0, :1], [0])
    gate = torch.sigmoid(layer.gate(torch.cat((first, torch.zeros_like(first)), -1)))
    assert_close(output[0], gate * first, rtol=1e-4, atol=1e-5)

    output[0].sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())
    assert all(p.grad.count_nonzero() == 0 for p in layer.second.parameters())
    assert layer.first.v_proj.weight.grad.count_nonzero() > 0


@torch.no_grad()
def test_each_half_has_its_own_influence():
    """A change in one half reaches the output through that half's attention only."""
    layer, config = layer_and_config()
    states, query = torch.randn(1, 6, 32), torch.randn(1, 3, 32)
    mask = [[1, 1, 1, 1, 1, 1]]
    halves = split(config, mask, states)
    layer.gate.weight.zero_()
    layer.gate.bias.fill_(100.0)  # the gate lets the first half through alone
    before, _ = layer(query, states, halves)
    states[:, 3:] += 1
    assert_close(layer(query, states, halves)[0], before)
    states[:, :3] += 1
    assert not torch.allclose(layer(query, states, halves)[0], before, atol=1e-3)


@torch.no_grad()
def test_the_order_of_a_half_matters_without_positions_in_the_encoder():
    """Keys know their place: with an encoder of rotary positions it is all that the keys know."""
    layer, config = layer_and_config()
    states, query = torch.randn(1, 6, 32), torch.randn(1, 3, 32)
    halves = split(config, [[1] * 6], states)
    swapped = states[:, [1, 0, 2, 3, 4, 5]]
    assert not torch.allclose(
        layer(query, states, halves)[0], layer(query, swapped, halves)[0], atol=1e-3
    )


@torch.no_grad()
@pytest.mark.parametrize("lengths", [(1, 1), (2, 1), (5, 3), (6, 4)])
@pytest.mark.parametrize("padding", ["left", "right"])
def test_padding_is_never_seen(lengths, padding):
    model = make_model(**FIELDS)
    labels = make_labels((4, 4))
    expected = [
        model(**make_batch((length,)), labels=labels[row : row + 1]).logits
        for row, length in enumerate(lengths)
    ]
    batch = make_batch(lengths, padding, width=9)
    for row, length in enumerate(lengths):
        place = slice(0, length) if padding == "right" else slice(9 - length, 9)
        batch["input_ids"][row, place] = make_batch((length,))["input_ids"][0]
    logits = model(**batch, labels=labels).logits
    assert_close(logits, torch.cat(expected), rtol=1e-4, atol=1e-4)


def test_the_cache_is_as_large_as_with_one_attention():
    caches = []
    for fields in (FIELDS, FIELDS | {"cross_attention": "full"}):
        model = make_model(**fields)
        outputs = model(**make_batch(), decoder_input_ids=make_labels((6, 6, 6)))
        caches.append(outputs.past_key_values.cross_attention_cache)
    shapes = [[layer.keys.shape for layer in cache.layers] for cache in caches]
    assert shapes[0] == shapes[1]


def test_a_mask_that_hides_the_middle_is_refused():
    model = make_model(**FIELDS)
    batch = make_batch()
    mask = torch.zeros(3, 1, 1, 7)
    with pytest.raises(ValueError, match=r"padding mask of shape \(batch, source length\)"):
        model(input_ids=batch["input_ids"], attention_mask=mask, labels=make_labels())
