"""Caches and ways of decoding."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.testing import assert_close
from transformers import DynamicCache, GenerationConfig, StaticCache

GREEDY = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": None}
WAYS = {
    "greedy": {},
    "sampling": {"do_sample": True, "top_k": 20, "top_p": 0.9, "temperature": 0.8},
    "min-p": {"do_sample": True, "min_p": 0.05, "num_return_sequences": 3},
    "repetition penalty": {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
    "beam": {"num_beams": 3, "num_return_sequences": 2},
    "beam sampling": {"num_beams": 3, "do_sample": True},
}


def seeded(model, *args, **settings):
    torch.manual_seed(0)
    return model.generate(*args, **{**GREEDY, **settings})


def pad_left(input_ids, lengths):
    """Cut each row to its last tokens and pad it on the left again."""
    mask = torch.zeros_like(input_ids)
    for row, length in enumerate(lengths):
        mask[row, -length:] = 1
    return input_ids * mask, mask


# Caches


@torch.no_grad()
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_token_by_token_equals_the_whole(make_model, variant, input_ids, implementation):
    model = make_model(**variant)
    model.set_attn_implementation(implementation)
    whole = model(input_ids).logits
    cache = DynamicCache(config=model.config)
    steps = [
        model(input_ids[:, i : i + 1], past_key_values=cache, use_cache=True).logits
        for i in range(input_ids.shape[1])
    ]
    assert cache.get_seq_length() == 12
    assert_close(torch.cat(steps, 1), whole, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_several_tokens_at_once_equal_the_whole(make_model, variant, input_ids):
    model = make_model(**variant)
    first = model(input_ids[:, :5], use_cache=True)
    rest = model(input_ids[:, 5:], past_key_values=first.past_key_values)
    assert_close(rest.logits, model(input_ids).logits[:, 5:], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_cache_is_returned_only_if_wanted(make_model, input_ids):
    model = make_model()
    assert model(input_ids, use_cache=False).past_key_values is None
    assert model(input_ids).past_key_values.get_seq_length() == 12
    assert model.model(input_ids, use_cache=False).past_key_values is None


@pytest.mark.parametrize("way", WAYS)
def test_generating_with_and_without_a_cache_is_the_same(make_model, variant, input_ids, way):
    model = make_model(**variant)
    with_cache = seeded(model, input_ids, use_cache=True, **WAYS[way])
    assert torch.equal(with_cache, seeded(model, input_ids, use_cache=False, **WAYS[way]))
    rows = 2 * WAYS[way].get("num_return_sequences", 1)
    assert with_cache.shape == (rows, 22)


def test_a_static_cache_gives_the_same(make_model, variant, input_ids):
    model = make_model(**variant)
    settings = {"disable_compile": True, "cache_implementation": "static"}
    static = seeded(model, input_ids, **settings)
    assert torch.equal(static, seeded(model, input_ids))


@torch.no_grad()
def test_a_static_cache_of_ones_own_gives_the_same_logits(make_model, variant, input_ids):
    model = make_model(**variant)
    cache = StaticCache(config=model.config, max_cache_len=20)
    model(input_ids[:, :9], past_key_values=cache, use_cache=True)
    last = model(
        input_ids[:, 9:],
        past_key_values=cache,
        use_cache=True,
        position_ids=torch.arange(9, 12)[None],
    )
    assert_close(last.logits, model(input_ids).logits[:, 9:], rtol=1e-4, atol=1e-5)


@pytest.mark.slow  # the first time, quanto compiles its kernels
@pytest.mark.timeout(900)
def test_a_quantised_cache_generates(make_model, variant, input_ids):
    pytest.importorskip("optimum.quanto")
    model = make_model(**variant, hidden_size=256)
    settings = {"backend": "quanto", "nbits": 4, "residual_length": 4}
    output = seeded(model, input_ids, cache_implementation="quantized", cache_config=settings)
    assert output.shape == (2, 22)
    long_residual = settings | {"residual_length": 64}
    exact = seeded(model, input_ids, cache_implementation="quantized", cache_config=long_residual)
    assert torch.equal(exact[:, :13], seeded(model, input_ids)[:, :13])


def test_generation_goes_on_from_a_returned_cache(make_model, variant, input_ids):
    model = make_model(**variant)
    whole = seeded(model, input_ids)
    first = seeded(model, input_ids, max_new_tokens=4, return_dict_in_generate=True)
    again = seeded(model, first.sequences, past_key_values=first.past_key_values, max_new_tokens=6)
    assert torch.equal(again, whole)


# Batches


@torch.no_grad()
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("way", ["greedy", "beam"])
def test_left_padded_rows_continue_as_they_do_alone(
    make_model, variant, input_ids, implementation, way
):
    model = make_model(**variant)
    model.set_attn_implementation(implementation)
    lengths = (12, 7)
    padded, mask = pad_left(input_ids, lengths)
    settings = {"num_beams": 3} if way == "beam" else {}
    together = seeded(model, padded, attention_mask=mask, **settings)
    for row, length in enumerate(lengths):
        alone = seeded(model, input_ids[row : row + 1, -length:], **settings)
        assert torch.equal(together[row, -10:], alone[0, -10:])


@torch.no_grad()
def test_left_padded_logits_equal_single_ones(make_model, variant, input_ids):
    model = make_model(**variant)
    padded, mask = pad_left(input_ids, (12, 7))
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    together = model(padded, attention_mask=mask, position_ids=positions).logits
    alone = model(input_ids[1:, -7:]).logits
    assert_close(together[1:, -7:], alone, rtol=1e-5, atol=1e-5)


# Ways of decoding


def test_greedy_takes_the_likeliest_token_each_time(make_model, variant, input_ids):
    model = make_model(**variant)
    expected = input_ids
    for _ in range(10):
        best = model(expected).logits[:, -1].argmax(-1, keepdim=True)
        expected = torch.cat([expected, best], 1)
    assert torch.equal(seeded(model, input_ids), expected)


def test_sampling_keeps_to_top_k_and_min_p(make_model, input_ids):
    model = make_model()
    likeliest = model(input_ids).logits[:, -1].topk(3).indices
    drawn = seeded(
        model, input_ids, do_sample=True, top_k=3, max_new_tokens=1, num_return_sequences=20
    )[:, -1].view(2, 20)
    for row in range(2):
        assert set(drawn[row].tolist()) <= set(likeliest[row].tolist())
    certain = seeded(model, input_ids, do_sample=True, top_k=0, min_p=1.0)
    assert torch.equal(certain, seeded(model, input_ids))


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3, "num_return_sequences": 2}])
def test_scores_logits_and_states_are_returned(make_model, variant, input_ids, settings):
    model = make_model(**variant)
    model.set_attn_implementation("eager")
    output = seeded(
        model,
        input_ids,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
        output_hidden_states=True,
        output_attentions=True,
        max_new_tokens=4,
        **settings,
    )
    assert len(output.scores) == len(output.logits) == len(output.hidden_states) == 4
    assert output.scores[0].shape == (2 * settings.get("num_beams", 1), 97)
    assert len(output.hidden_states[0]) == 4
    assert len(output.attentions[1]) == 3
    if settings:
        assert torch.all(output.sequences_scores.view(2, 2).diff() <= 0)


@pytest.mark.parametrize("draft", ["same", "other"])
def test_assisted_decoding_equals_greedy(make_model, variant, input_ids, draft):
    model = make_model(**variant)
    assistant = model if draft == "same" else make_model(num_hidden_layers=1)
    expected = seeded(model, input_ids[:1])
    assert torch.equal(seeded(model, input_ids[:1], assistant_model=assistant), expected)


def test_prompt_lookup_decoding_equals_greedy(make_model, variant, input_ids):
    model = make_model(**variant)
    prompt = input_ids[:1].repeat(1, 2)
    expected = seeded(model, prompt)
    assert torch.equal(seeded(model, prompt, prompt_lookup_num_tokens=3), expected)


def test_generation_stops_at_the_end_token_and_pads(make_model, input_ids):
    model = make_model()
    first, second = (seeded(model, input_ids)[row, 12:].tolist() for row in range(2))
    stop = next(token for token in first if token not in second)
    output = seeded(model, input_ids, eos_token_id=stop, pad_token_id=0)
    end = 12 + first.index(stop)
    assert output[0, end] == stop
    assert output[0, end + 1 :].count_nonzero() == 0
    assert output[1, 12:].tolist() == second


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}])
def test_generation_from_embeddings_equals_that_from_tokens(make_model, input_ids, settings):
    model = make_model()
    embeds = model.get_input_embeddings()(input_ids)
    for use_cache in (True, False) if not settings else (True,):
        output = seeded(model, inputs_embeds=embeds, use_cache=use_cache, **settings)
        assert torch.equal(output, seeded(model, input_ids, **settings)[:, 12:])


def test_generation_begins_by_itself_from_the_first_token(make_model):
    model = make_model()
    output = seeded(model, do_sample=True)
    assert output.shape == (1, 11)
    assert output[0, 0] == model.config.bos_token_id


def test_training_mode_changes_nothing_without_dropout(make_model, input_ids):
    model = make_model()
    expected = seeded(model, input_ids)
    assert torch.equal(seeded(model.train(), input_ids), expected)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_static_cache_compiles_for_generation(make_model, input_ids):
    model = make_model()
    expected = seeded(model, input_ids)
    model.forward = torch.compile(model.forward, fullgraph=True)
    settings = {"cache_implementation": "static", "disable_compile": True}
    assert torch.equal(seeded(model, input_ids, **settings), expected)


@pytest.mark.slow  # transformers' scheduler takes half a minute to start and stop
def test_continuous_batching_gives_what_single_rows_give(make_model, modern, input_ids):
    model = make_model(**modern)
    prompts = [input_ids[0].tolist(), input_ids[1, :7].tolist()]
    settings = GenerationConfig(max_new_tokens=5, do_sample=False, eos_token_id=-1, pad_token_id=0)
    results = model.generate_batch(prompts, generation_config=settings, progress_bar=False)
    model.set_attn_implementation("sdpa")
    for prompt, result in zip(prompts, results.values(), strict=True):
        alone = seeded(model, torch.tensor([prompt]), max_new_tokens=5)
        assert result.generated_tokens == alone[0, -5:].tolist()


@torch.no_grad()
def test_a_copied_cache_goes_its_own_way(make_model, variant, input_ids):
    model = make_model(**variant)
    cache = model(input_ids[:, :6], use_cache=True).past_key_values
    model(input_ids[:, 6:7], past_key_values=cache)
    copied = copy.deepcopy(cache)
    model(input_ids[:, :3], past_key_values=cache)
    rest = model(input_ids[:, 7:], past_key_values=copied).logits
    assert_close(rest, model(input_ids).logits[:, 7:], rtol=1e-4, atol=1e-5)
