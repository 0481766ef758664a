"""The second decoder: what it sees, how it is trained, and how it rewrites a draft."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close
from transformers import GenerationConfig

from hf_genmodels.models.modeling_seq2seq import GenSeq2SeqForConditionalGeneration
from hf_genmodels.models.refinement import end_at_eos
from tests.models.transformer import (
    LENGTHS,
    VARIANTS,
    make_batch,
    make_config,
    make_labels,
    make_model,
)

REFINEMENT = {"refinement_decoder": True, "refinement_layers": 2}
WAYS = {
    "greedy": {},
    "beam": {"num_beams": 4},
    "n-best": {"num_beams": 4, "num_return_sequences": 3},
    "sampling": {"do_sample": True, "top_k": 10, "num_return_sequences": 2},
}


@pytest.fixture(params=["vaswani", "modern", "bidirectional rotary"])
def model(request):
    return make_model(**VARIANTS[request.param], **REFINEMENT)


def seeded(model, batch=None, **settings):
    torch.manual_seed(0)
    defaults = {"max_new_tokens": 7, "do_sample": False}
    return model.generate(**(make_batch() if batch is None else batch), **(defaults | settings))


# The losses


def test_both_losses_are_those_of_the_formula(model):
    model.config.label_smoothing = 0.1
    model.config.refinement_loss_weight = 0.5
    batch, labels = make_batch(), make_labels()
    draft = make_labels((4, 6, 2))
    outputs = model(**batch, labels=labels, draft_ids=draft)
    inputs = model.prepare_decoder_input_ids_from_labels(labels)
    first = model(**batch, decoder_input_ids=inputs).logits
    second = model(**batch, decoder_input_ids=inputs, draft_ids=draft).logits
    losses = [
        F.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=0.1)
        for logits in (first, second)
    ]
    assert_close(outputs.draft_loss, losses[0])
    assert_close(outputs.refinement_loss, losses[1])
    assert_close(outputs.loss, losses[0] + 0.5 * losses[1])
    assert_close(outputs.logits, second)
    assert not torch.allclose(first, second, atol=1e-2)


def test_without_a_draft_the_first_decoders_likeliest_tokens_are_rewritten(model):
    batch, labels = make_batch(), make_labels()
    inputs = model.prepare_decoder_input_ids_from_labels(labels)
    likeliest = model(**batch, decoder_input_ids=inputs).logits.argmax(-1)
    draft = likeliest.masked_fill(labels.eq(-100), -100)
    expected = model(**batch, labels=labels, draft_ids=draft)
    outputs = model(**batch, labels=labels)
    assert_close(outputs.logits, expected.logits)
    assert_close(outputs.loss, expected.loss)


def test_training_gives_the_losses_and_gradients_of_evaluation(model):
    batch, labels = make_batch(), make_labels()
    gradients = []
    for training in (False, True):
        model.train(training).zero_grad()
        outputs = model(**batch, labels=labels, num_items_in_batch=17)
        outputs.loss.backward()
        assert (outputs.logits is None) == training
        gradients.append((outputs.loss.detach(), [p.grad for p in model.parameters()]))
    assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_changes_nothing(use_reentrant):
    model = make_model(**REFINEMENT).train()
    inputs = make_batch() | {"labels": make_labels()}
    gradients = []
    for _ in range(2):
        model.zero_grad()
        model(**inputs).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
        model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)


def test_trained_jointly_the_second_loss_reaches_the_first_decoder_through_its_states():
    model = make_model(**REFINEMENT)
    outputs = model(**make_batch(), labels=make_labels())
    outputs.refinement_loss.backward()
    first = model.model.decoder.layers[0].mlp.up_proj.weight
    assert first.grad.count_nonzero() > 0


def test_on_a_frozen_first_pass_only_the_second_decoder_is_trained():
    model = make_model(**REFINEMENT)
    model.freeze_first_pass()
    assert model.first_pass_is_frozen
    outputs = model(**make_batch(), labels=make_labels())
    assert outputs.loss is outputs.refinement_loss
    assert not outputs.draft_loss.requires_grad
    outputs.loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == ("refinement_decoder" in name), name


@torch.no_grad()
def test_the_second_decoder_cannot_read_the_target_from_the_draft():
    """The draft's states come from the draft: given one, no later label reaches an earlier place."""
    model = make_model(**REFINEMENT)
    batch, labels, draft = make_batch((5, 5)), make_labels((6, 6)), make_labels((5, 5))
    before = model(**batch, labels=labels, draft_ids=draft).logits
    labels[:, 3] = 3 + (labels[:, 3] - 2) % 38
    after = model(**batch, labels=labels, draft_ids=draft).logits
    assert_close(after[:, :4], before[:, :4])
    assert not torch.allclose(after[:, 4:], before[:, 4:], atol=1e-3)


# What the second decoder sees


@torch.no_grad()
def test_it_sees_source_draft_and_target(model):
    batch, draft = make_batch((6, 6)), make_labels((5, 5))
    target = make_labels((4, 4))
    before = model(**batch, decoder_input_ids=target, draft_ids=draft).logits
    other = model(**batch, decoder_input_ids=target, draft_ids=draft.flip(0)).logits
    assert not torch.allclose(other, before, atol=1e-3)
    flipped = {name: rows.flip(0) for name, rows in batch.items()}
    other = model(**flipped, decoder_input_ids=target, draft_ids=draft).logits
    assert not torch.allclose(other, before, atol=1e-3)


@torch.no_grad()
def test_what_follows_the_end_of_a_draft_does_not_matter(model):
    batch, target = make_batch((6, 6)), make_labels((4, 4))
    draft = torch.tensor([[7, 8, 2, 9, 9], [5, 6, 7, 8, 2]])
    padded = torch.tensor([[7, 8, 2, 0, 0, 0], [5, 6, 7, 8, 2, 0]])
    logits = [
        model(**batch, decoder_input_ids=target, draft_ids=ids).logits for ids in (draft, padded)
    ]
    assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-4)
    alone = model(
        input_ids=batch["input_ids"][:1], decoder_input_ids=target[:1], draft_ids=draft[:1, :3]
    ).logits
    assert_close(alone, logits[0][:1], rtol=1e-4, atol=1e-4)


def test_rows_end_at_their_first_eos():
    ids = torch.tensor([[5, 2, 7, 2], [2, 2, 9, 9], [5, 6, 7, 8]])
    ended = [[5, 2, -100, -100], [2, -100, -100, -100], [5, 6, 7, 8]]
    assert end_at_eos(ids, 2).tolist() == ended
    assert end_at_eos(ids, [7, 2])[2].tolist() == [5, 6, 7, -100]
    assert end_at_eos(ids, None) is ids


# Generating


@pytest.mark.parametrize("way", WAYS)
def test_it_rewrites_its_own_draft_in_every_way(model, way):
    settings = WAYS[way]
    count = settings.get("num_return_sequences", 1)
    outputs = seeded(model, return_draft=True, **settings)
    assert outputs.sequences.shape[0] == 3 * count
    assert outputs.draft_sequences.shape[0] == 3
    assert (outputs.draft_sequences[:, 0] == 1).all()
    assert torch.equal(seeded(model, **settings), outputs.sequences)
    assert torch.equal(seeded(model, use_cache=False, **settings), outputs.sequences)
    if way == "sampling":
        return
    given = seeded(model, draft_ids=outputs.draft_sequences[:, 1:], return_draft=True, **settings)
    assert torch.equal(given.sequences, outputs.sequences)
    assert torch.equal(given.draft_sequences, outputs.draft_sequences)


def test_the_draft_is_what_the_first_decoder_writes(model):
    plain = make_model(**{**model.config.to_diff_dict(), "refinement_decoder": False})
    missing = plain.load_state_dict(model.state_dict(), strict=False)
    assert not missing.missing_keys
    for way in ("greedy", "beam"):
        draft = seeded(model, return_draft=True, **WAYS[way]).draft_sequences
        assert torch.equal(draft, seeded(plain, **WAYS[way]))


@pytest.mark.parametrize("way", ["greedy", "n-best"])
def test_a_source_in_a_padded_batch_is_rewritten_as_if_alone(model, way):
    together = seeded(model, **WAYS[way])
    count = WAYS[way].get("num_return_sequences", 1)
    for row, length in enumerate(LENGTHS):
        alone = {"input_ids": make_batch()["input_ids"][row : row + 1, :length]}
        single = seeded(model, alone, **WAYS[way])
        assert torch.equal(together[row * count : (row + 1) * count, : single.shape[1]], single)


@torch.no_grad()
def test_scores_are_those_of_the_second_decoder(model):
    best = seeded(
        model, return_draft=True, output_scores=True, length_penalty=0.0, **WAYS["n-best"]
    )
    labels = end_at_eos(best.sequences[:, 1:], 2)
    batch = {name: rows.repeat_interleave(3, dim=0) for name, rows in make_batch().items()}
    draft = best.draft_sequences[:, 1:].repeat_interleave(3, dim=0)
    inputs = model.prepare_decoder_input_ids_from_labels(labels)
    logits = model(**batch, decoder_input_ids=inputs, draft_ids=draft).logits
    losses = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    assert_close(best.sequences_scores, -losses.sum(-1), rtol=1e-4, atol=1e-4)


def test_settings_come_from_a_generation_config_too():
    model = make_model(**REFINEMENT)
    config = GenerationConfig(num_beams=3, max_new_tokens=7, do_sample=False)
    expected = seeded(model, num_beams=3)
    assert torch.equal(model.generate(**make_batch(), generation_config=config), expected)
    assert config.num_beams == 3
    assert torch.equal(model.generate(make_batch()["input_ids"], config), expected)
    model.generation_config.num_beams = 3
    assert torch.equal(seeded(model), expected)


def test_a_model_without_a_second_decoder_says_so():
    model = make_model()
    with pytest.raises(ValueError, match="refinement_decoder: true"):
        seeded(model, return_draft=True)
    with pytest.raises(ValueError, match="no second decoder to rewrite them"):
        seeded(model, draft_ids=make_labels((3, 3, 3)))
    with pytest.raises(ValueError, match="no second decoder to rewrite them"):
        model(**make_batch(), labels=make_labels(), draft_ids=make_labels())


# Files, int8, initial weights


@torch.no_grad()
def test_a_saved_model_comes_back_bit_for_bit(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded, report = GenSeq2SeqForConditionalGeneration.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(report.values())
    inputs = make_batch() | {"labels": make_labels()}
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    assert torch.equal(seeded(loaded), seeded(model))
    table = loaded.model.refinement_decoder.embed_tokens.weight
    assert table is loaded.model.decoder.embed_tokens.weight


@torch.no_grad()
def test_it_can_be_resized_and_made_int8():
    for fields in ({}, {"source_vocab_size": 29}):
        model = make_model(**REFINEMENT, **fields)
        model.resize_token_embeddings(45)
        assert model.model.refinement_decoder.embed_tokens.num_embeddings == 45
        assert model(**make_batch(), labels=make_labels()).logits.shape[-1] == 45
        model.quantize_int8()
        assert seeded(model).shape[0] == 3


def test_its_residual_projections_start_smaller_for_four_sublayers():
    config = make_config(hidden_size=64, norm_position="pre", **REFINEMENT)
    model = GenSeq2SeqForConditionalGeneration(config)
    std = model.model.refinement_decoder.layers[0].draft_attn.o_proj.weight.std().item()
    assert std == pytest.approx(0.02 / 8**0.5, rel=0.1)


# A trained one


def copying_batch(generator):
    """Sources and drafts of two tokens; the target is the source's first and the draft's first."""
    source = torch.randint(3, 10, (32, 2), generator=generator)
    draft = torch.randint(3, 10, (32, 2), generator=generator)
    end = torch.full((32, 1), 2)
    target = torch.cat((source[:, :1], draft[:, :1], end), dim=1)
    return {
        "input_ids": torch.cat((source, end), dim=1),
        "draft_ids": torch.cat((draft, end), dim=1),
        "labels": target,
    }


def test_a_trained_model_uses_both_the_source_and_the_draft(tmp_path):
    torch.manual_seed(0)
    config = make_config(
        vocab_size=10,
        encoder_layers=1,
        decoder_layers=1,
        refinement_decoder=True,
        norm_position="pre",
        initializer_range=0.1,
    )
    model = GenSeq2SeqForConditionalGeneration(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(250):
        optimizer.zero_grad()
        model(**copying_batch(generator)).loss.backward()
        optimizer.step()
    model.eval().save_pretrained(tmp_path)
    model = GenSeq2SeqForConditionalGeneration.from_pretrained(tmp_path)
    batch = copying_batch(generator)
    labels = batch.pop("labels")
    rewritten = model.generate(**batch, max_new_tokens=4, do_sample=False)[:, 1:4]
    assert (rewritten == labels).all(1).float().mean() > 0.9
