"""The growing cache holds what `DynamicCache` holds, whatever is done to it."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import DynamicCache, StaticCache

from hf_genmodels.models.growing_cache import GrowingLayer, make_growing


def states(tokens: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(batch, 3, tokens, 4), torch.randn(batch, 3, tokens, 4)


def caches() -> tuple[DynamicCache, DynamicCache]:
    plain, growing = DynamicCache(), DynamicCache()
    make_growing(growing)
    return plain, growing


def extend(tokens: int, *both: DynamicCache, batch: int = 2) -> None:
    """Give all caches the same states; what they return must be equal."""
    key, value = states(tokens, batch)
    results = [cache.update(key.clone(), value.clone(), 0) for cache in both]
    for returned in zip(*results, strict=True):
        torch.testing.assert_close(returned[0], returned[1], atol=0, rtol=0)


@torch.no_grad()
def test_it_returns_the_states_of_a_dynamic_cache_at_any_length() -> None:
    both = caches()
    for tokens in (5, *[1] * 200, 70, 1, 1):
        extend(tokens, *both)
    assert both[0].get_seq_length() == both[1].get_seq_length() == 277
    assert isinstance(both[1].layers[0], GrowingLayer)


@torch.no_grad()
@pytest.mark.parametrize("seed", range(20))
def test_random_operations_give_what_a_dynamic_cache_gives(seed: int) -> None:
    both, generator = caches(), torch.Generator().manual_seed(seed)
    extend(6, *both)
    batch = 2
    for _ in range(25):
        choice = int(torch.randint(6, (), generator=generator))
        if choice == 0 and both[0].get_seq_length() > 3:
            for cache in both:
                cache.crop(-2)
        elif choice == 1:
            order = torch.randint(batch, (batch,), generator=generator)
            for cache in both:
                cache.reorder_cache(order)
        elif choice == 2 and batch < 8:
            batch *= 2
            for cache in both:
                cache.batch_repeat_interleave(2)
        elif choice == 3 and batch > 2:
            batch //= 2
            for cache in both:
                cache.batch_select_indices(torch.arange(batch))
        elif choice == 4:
            both = tuple(copy.deepcopy(cache) for cache in both)
        else:
            extend(1, *both, batch=batch)
    extend(1, *both, batch=batch)


@torch.no_grad()
def test_copies_and_earlier_results_do_not_change_when_it_grows() -> None:
    cache = caches()[1]
    for tokens in (3, 1):
        cache.update(*states(tokens), 0)
    branch = copy.deepcopy(cache)
    earlier = cache.layers[0].keys
    kept = earlier.clone()
    for grown in (cache, branch):
        grown.update(*states(1), 0)
    assert not torch.equal(cache.layers[0].keys, branch.layers[0].keys)
    assert torch.equal(earlier, kept)
    cache.crop(-2)
    cache.update(*states(2), 0)
    assert torch.equal(earlier, kept)


def test_gradients_flow_through_it() -> None:
    cache = caches()[1]
    key, value = (s.requires_grad_() for s in states(2))
    cache.update(key, value, 0)
    keys, _ = cache.update(key, value, 0)
    keys.sum().backward()
    assert torch.equal(key.grad, torch.full_like(key, 2.0))


def test_states_from_inference_mode_can_be_extended_outside() -> None:
    both = caches()
    with torch.inference_mode():
        extend(3, *both)
        extend(1, *both)
    with torch.no_grad():
        extend(1, *both)
        extend(1, *both)


def test_a_cache_can_be_used_again_after_reset() -> None:
    both = caches()
    with torch.no_grad():
        extend(3, *both)
        extend(1, *both)
        for cache in both:
            cache.reset()
        extend(2, *both)
        extend(1, *both)


def test_other_caches_and_full_layers_are_left_alone(make_config) -> None:
    config = make_config()
    for cache in (None, StaticCache(config=config, max_cache_len=8), DynamicCache(offloading=True)):
        before = cache and [type(layer) for layer in cache.layers]
        make_growing(cache)
        assert (cache and [type(layer) for layer in cache.layers]) == before
    full = DynamicCache()
    full.update(*states(2), 0)
    make_growing(full)
    assert not isinstance(full.layers[0], GrowingLayer)
