"""Ways of decoding with the recurrent model: caches, beams, scores, batches."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from hf_genmodels.models.decoding import decode
from hf_genmodels.models.recurrent_cache import RecurrentCache
from tests.models.recurrent import LENGTHS, VARIANTS, make_batch, make_labels, make_model

BEAM = {"num_beams": 4, "num_return_sequences": 3}
WAYS = {
    "greedy": {},
    "beam": {"num_beams": 4},
    "n-best": BEAM,
    "length penalty": BEAM | {"length_penalty": 2.0, "early_stopping": True},
    "short": BEAM | {"length_penalty": -1.0, "early_stopping": "never"},
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


@torch.no_grad()
@pytest.mark.parametrize("piece", [1, 2, 4])
def test_piece_by_piece_equals_the_whole(model, piece):
    batch, target = make_batch(), make_labels(length=8).clamp(min=0)
    whole = model(**batch, decoder_input_ids=target).logits
    encoded, cache, logits = model.get_encoder()(**batch), RecurrentCache(), []
    for tokens in target.split(piece, dim=1):
        outputs = model(
            attention_mask=batch["attention_mask"],
            encoder_outputs=encoded,
            decoder_input_ids=tokens,
            past_key_values=cache,
            use_cache=True,
        )
        logits.append(outputs.logits)
    assert cache.get_seq_length() == 8
    assert_close(torch.cat(logits, 1), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_generating_with_and_without_a_cache_is_the_same(model, way):
    cached = seeded(model, **WAYS[way])
    assert torch.equal(cached, seeded(model, use_cache=False, **WAYS[way]))
    assert len(cached) == 3 * WAYS[way].get("num_return_sequences", 1)
    assert (cached[:, 0] == 1).all()


def test_greedy_takes_the_likeliest_token_each_time(model):
    batch, target = make_batch(), torch.ones(3, 1).long()
    for _ in range(9):
        best = model(**batch, decoder_input_ids=target).logits[:, -1].argmax(-1, keepdim=True)
        target = torch.cat([target, best], 1)
    assert torch.equal(seeded(model, eos_token_id=None), target)


@torch.no_grad()
@pytest.mark.parametrize("penalty", [0.0, 1.5])
@pytest.mark.parametrize("early", [True, False])
def test_beam_scores_equal_a_teacher_forced_rescoring(model, penalty, early):
    settings = BEAM | {"length_penalty": penalty, "early_stopping": early}
    outputs = seeded(model, return_dict_in_generate=True, output_scores=True, **settings)
    batch = {name: tensor.repeat_interleave(3, 0) for name, tensor in make_batch().items()}
    targets = outputs.sequences[:, 1:]
    ended = (targets == 2).cumsum(1) - (targets == 2).long()
    labels = targets.masked_fill(ended > 0, -100)
    log_probs = model(**batch, labels=labels).logits.log_softmax(-1)
    picked = log_probs.gather(2, labels.clamp(min=0)[..., None])[..., 0]
    counted = labels != -100
    scores = (picked * counted).sum(1) / counted.sum(1) ** penalty
    assert_close(outputs.sequences_scores, scores, rtol=1e-4, atol=1e-4)
    assert (outputs.sequences_scores.view(3, 3).diff() <= 1e-6).all()


@pytest.mark.parametrize("way", ["greedy", "n-best", "length penalty"])
def test_a_batch_gives_what_single_sentences_give(model, way):
    returned = WAYS[way].get("num_return_sequences", 1)
    together = seeded(model, **WAYS[way])
    for row, length in enumerate(LENGTHS):
        source = {"input_ids": make_batch()["input_ids"][row : row + 1, :length]}
        alone = seeded(model, source, **WAYS[way])
        rows = together[row * returned : (row + 1) * returned]
        assert torch.equal(rows[:, : alone.shape[1]], alone)
        assert set(rows[:, alone.shape[1] :].flatten().tolist()) <= {0, 2}  # padding, ends


@pytest.mark.parametrize("settings", [{"num_beams": 1}, BEAM | {"length_penalty": 0.6}])
def test_our_own_decoding_gives_what_generate_gives(model, settings):
    batch = make_batch((9, 2, 5, 1, 7, 3))
    rows = zip(batch["input_ids"], batch["attention_mask"].sum(1), strict=True)
    sources = [ids[:length].tolist() for ids, length in rows]
    results = decode(model, sources, max_new_tokens=9, batch_tokens=24, **settings)
    for source, hypotheses in zip(sources, results, strict=True):
        expected = seeded(model, {"input_ids": torch.tensor([source])}, **settings)
        found = [hypothesis.ids for hypothesis in hypotheses]
        for ids, row in zip(found, expected[:, 1:].tolist(), strict=True):
            assert ids == row[: row.index(2)] if 2 in row else ids == row


@torch.no_grad()
def test_beams_may_share_the_states_of_their_sentence(model):
    batch, target = make_batch(), make_labels(6).clamp(min=0)
    repeated = {name: tensor.repeat_interleave(2, 0) for name, tensor in batch.items()}
    expected = model(**repeated, decoder_input_ids=target).logits
    cache = RecurrentCache()
    for place in range(6):
        shared = model(
            attention_mask=batch["attention_mask"],
            encoder_outputs=model.get_encoder()(**batch),
            decoder_input_ids=target[:, place : place + 1],
            past_key_values=cache,
        )
        assert_close(shared.logits[:, 0], expected[:, place], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_rows_that_are_dropped_leave_the_others_alone(model):
    batch, target = make_batch(), make_labels().clamp(min=0)
    whole = model(**batch, decoder_input_ids=target).logits
    cache = model(**batch, decoder_input_ids=target[:, :3], use_cache=True).past_key_values
    kept = torch.tensor([0, 2])
    cache.batch_select_indices(kept)
    rest = model(
        **{name: tensor[kept] for name, tensor in batch.items()},
        decoder_input_ids=target[kept, 3:],
        past_key_values=cache,
    )
    assert_close(rest.logits, whole[kept, 3:], rtol=1e-4, atol=1e-5)


def test_generation_goes_on_from_a_prefix(model):
    greedy = seeded(model, eos_token_id=None)
    again = seeded(model, decoder_input_ids=greedy[:, :4], max_new_tokens=6, eos_token_id=None)
    assert torch.equal(again, greedy)


@pytest.mark.parametrize("variant", ["lstm general", "gru general feeding"])
@pytest.mark.parametrize("beams", [1, 3])
def test_states_and_attentions_are_returned(variant, beams):
    outputs = seeded(
        make_model(**VARIANTS[variant]),
        num_beams=beams,
        return_dict_in_generate=True,
        output_attentions=True,
        output_hidden_states=True,
        output_scores=True,
        eos_token_id=None,
    )
    assert len(outputs.cross_attentions) == len(outputs.decoder_hidden_states) == 9
    (weights,) = outputs.cross_attentions[0]
    assert weights.shape == (3 * beams, 1, 1, 7)
    assert len(outputs.encoder_hidden_states) == 2


def test_texts_may_be_longer_than_the_model_is_meant_for():
    model = make_model(max_position_embeddings=4)
    assert seeded(model, eos_token_id=None).shape == (3, 10)


def test_assisted_decoding_is_refused(model):
    with pytest.raises(ValueError, match="assisted generation"):
        model.generate(**make_batch((4,)), assistant_model=model, max_new_tokens=3)


@pytest.mark.parametrize("variant", ["lstm general", "gru additive", "rnn dot feeding"])
def test_eight_bit_weights_generate_nearly_the_same(variant):
    model = make_model(**VARIANTS[variant])
    batch, target = make_batch(), make_labels().clamp(min=0)
    before = model(**batch, decoder_input_ids=target).logits
    model.quantize_int8()
    after = model(**batch, decoder_input_ids=target).logits
    assert (after - before).abs().mean() < 0.1 * before.std()
    assert seeded(model, num_beams=3).shape[0] == 3
