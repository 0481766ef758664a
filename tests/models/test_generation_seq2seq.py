"""Ways of decoding with the encoder-decoder: caches, beams, scores, batches, int8."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from tests.models.transformer import LENGTHS, VARIANTS, make_batch, make_labels, make_model

BEAM = {"num_beams": 4, "num_return_sequences": 3}
WAYS = {
    "greedy": {},
    "beam": {"num_beams": 4},
    "n-best": BEAM,
    "length penalty": BEAM | {"length_penalty": 2.0, "early_stopping": True},
    "no repeated bigram": {"no_repeat_ngram_size": 2, "num_beams": 3},
    "sampling": {"do_sample": True, "top_k": 10, "num_return_sequences": 2},
    "beam sampling": {"do_sample": True, "num_beams": 3},
}


@pytest.fixture(params=VARIANTS)
def model(request):
    return make_model(**VARIANTS[request.param])


def seeded(model, batch=None, **settings):
    torch.manual_seed(0)
    defaults = {"max_new_tokens": 9, "do_sample": False}
    return model.generate(**(make_batch() if batch is None else batch), **(defaults | settings))


@pytest.mark.parametrize("way", WAYS)
def test_generating_with_and_without_a_cache_is_the_same(model, way):
    cached = seeded(model, **WAYS[way])
    assert torch.equal(cached, seeded(model, use_cache=False, **WAYS[way]))
    assert len(cached) == 3 * WAYS[way].get("num_return_sequences", 1)
    assert (cached[:, 0] == model.config.decoder_start_token_id).all()


def test_a_static_cache_gives_the_same(model):
    for way in ("greedy", "beam"):
        static = seeded(model, cache_implementation="static", disable_compile=True, **WAYS[way])
        assert torch.equal(static, seeded(model, **WAYS[way]))


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("way", ["greedy", "n-best"])
def test_a_source_in_a_padded_batch_is_decoded_as_if_alone(model, way, padding):
    together = seeded(model, make_batch(padding=padding), **WAYS[way])
    count = WAYS[way].get("num_return_sequences", 1)
    for row, length in enumerate(LENGTHS):
        alone = {"input_ids": make_batch()["input_ids"][row : row + 1, :length]}
        single = seeded(model, alone, **WAYS[way])
        ours = together[row * count : (row + 1) * count, : single.shape[1]]
        assert torch.equal(ours, single)


@torch.no_grad()
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
def test_beam_scores_are_those_of_teacher_forcing(model, length_penalty):
    best = seeded(
        model,
        return_dict_in_generate=True,
        output_scores=True,
        length_penalty=length_penalty,
        **BEAM,
    )
    labels = best.sequences[:, 1:].clone()
    ended = (labels == 2).long().cumsum(-1) - (labels == 2).long() > 0
    labels[ended] = -100
    batch = {name: rows.repeat_interleave(3, dim=0) for name, rows in make_batch().items()}
    logits = model(**batch, labels=labels).logits
    losses = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    counted = labels.ne(-100).sum(-1)
    assert_close(
        best.sequences_scores, -losses.sum(-1) / counted**length_penalty, rtol=1e-4, atol=1e-4
    )


def test_a_beam_search_is_never_worse_than_greedy_decoding(model):
    options = {"return_dict_in_generate": True, "output_scores": True, "length_penalty": 0.0}
    wide = seeded(model, num_beams=41, max_new_tokens=2, **options).sequences_scores
    narrow = seeded(model, num_beams=2, max_new_tokens=2, **options).sequences_scores
    assert (wide >= narrow - 1e-5).all()


@pytest.mark.parametrize("way", ["greedy", "beam"])
def test_generation_records_what_it_is_asked_for(model, way):
    model.set_attn_implementation("eager")
    outputs = seeded(
        model,
        return_dict_in_generate=True,
        output_attentions=True,
        output_hidden_states=True,
        **WAYS[way],
    )
    layers = model.config.decoder_layers
    assert len(outputs.cross_attentions) == outputs.sequences.shape[1] - 1
    assert all(len(step) == layers for step in outputs.cross_attentions)
    assert outputs.cross_attentions[0][0].shape[-1] == max(LENGTHS)
    assert len(outputs.encoder_attentions) == model.config.encoder_layers


def test_a_target_can_be_continued(model):
    prefix = torch.tensor([[1, 9, 8]]).expand(3, -1)
    continued = seeded(model, decoder_input_ids=prefix)
    assert torch.equal(continued[:, :3], prefix)
    assert torch.equal(continued, seeded(model, decoder_input_ids=prefix, use_cache=False))


# Int8


@torch.no_grad()
def test_an_int8_model_predicts_nearly_the_same_with_fused_projections(model):
    batch, labels = make_batch(), make_labels()
    expected = F.log_softmax(model(**batch, labels=labels).logits, -1)
    assert model.quantize_int8() is model
    assert not any(isinstance(module, nn.Linear) for module in model.modules())
    block = model.model.decoder.layers[0]
    assert block.attn.fused_proj is not None
    if model.config.cross_attention == "full":
        assert block.cross_attn.fused_proj is not None
    output = F.log_softmax(model(**batch, labels=labels).logits, -1)
    divergence = F.kl_div(output, expected, log_target=True, reduction="sum") / (3 * 6)
    assert divergence < 0.1


def test_an_int8_model_decodes_in_every_way(model):
    model.quantize_int8()
    for way in ("greedy", "n-best", "sampling"):
        first, second = (seeded(model, **WAYS[way]) for _ in range(2))
        assert torch.equal(first, second)
        assert len(first) == 3 * WAYS[way].get("num_return_sequences", 1)
