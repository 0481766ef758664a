"""GenSeq2SeqModel and its head: switches, attention, padding, outputs, vocabularies, files."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors import safe_open
from torch.testing import assert_close
from transformers import DynamicCache, EncoderDecoderCache

from hf_genmodels.models.modeling_seq2seq import GenSeq2SeqForConditionalGeneration, GenSeq2SeqModel
from tests.models.transformer import (
    DROPOUTS,
    LENGTHS,
    VARIANTS,
    make_batch,
    make_config,
    make_labels,
    make_model,
)


@pytest.fixture(params=VARIANTS)
def variant(request):
    return dict(VARIANTS[request.param])


@pytest.fixture
def model(variant):
    return make_model(**variant)


def logits_of(model, batch=None, labels=None, **options):
    labels = make_labels() if labels is None else labels
    batch = make_batch() if batch is None else batch
    return model(**batch, labels=labels, **options).logits


# Switches


@torch.no_grad()
@pytest.mark.parametrize(
    "fields",
    [
        {"position_embedding": "rotary"},
        {"norm": "rmsnorm"},
        {"norm_position": "pre"},
        {"norm_eps": 1.0},
        {"hidden_act": "gelu"},
        {"qk_norm": True},
        {"attention_scale": 8.0},
        {"logit_softcap": 1.0},
        {"scale_embedding": False},
        {"cross_attention": "bidirectional"},
    ],
)
def test_every_switch_changes_the_function(fields):
    plain, switched = make_model(), make_model(**fields)
    switched.load_state_dict(plain.state_dict(), strict=False)
    assert not torch.allclose(logits_of(switched), logits_of(plain), atol=1e-2)


@torch.no_grad()
@pytest.mark.parametrize("name", DROPOUTS)
def test_each_dropout_acts_in_training_only(name):
    model = make_model(**{name: 0.5})
    assert torch.equal(logits_of(model), logits_of(model))
    model.train()
    both = [logits_of(model, return_logits=True) for _ in range(2)]
    assert not torch.equal(*both)


def initial_std(config, name):
    if name.endswith("embed_tokens"):
        return config.embedding_init_range or config.initializer_range
    if name.endswith(("o_proj", "down_proj")) and config.norm_position == "pre":
        sublayers = 2 * config.encoder_layers if ".encoder." in name else 3 * config.decoder_layers
        return config.initializer_range / math.sqrt(sublayers)
    return config.initializer_range


@pytest.mark.parametrize(
    "fields",
    [{}, {"norm_position": "pre", "embedding_init_range": 0.5}, {"source_vocab_size": 60}],
)
def test_initial_weights_are_scaled_by_the_depth_of_their_stack(fields):
    model = GenSeq2SeqForConditionalGeneration(make_config(hidden_size=64, **fields))
    for name, parameter in model.named_parameters():
        module = name.rpartition(".")[0]
        if name.endswith("bias"):
            assert parameter.count_nonzero() == 0, name
        elif "norm" in module:
            assert torch.all(parameter == 1), name
        else:
            expected = initial_std(model.config, module)
            assert parameter.std().item() == pytest.approx(expected, rel=0.1), name


@torch.no_grad()
def test_zero_init_makes_every_block_the_identity():
    config = make_config(zero_init_residual=True, norm_position="pre")
    model = GenSeq2SeqForConditionalGeneration(config).eval()
    outputs = model(**make_batch(), labels=make_labels(), output_hidden_states=True)
    assert torch.equal(outputs.decoder_hidden_states[0], outputs.decoder_hidden_states[2])
    assert torch.equal(outputs.encoder_hidden_states[0], outputs.encoder_hidden_states[1])


# Attention and padding


@torch.no_grad()
@pytest.mark.parametrize("padding", ["left", "right"])
def test_a_source_in_a_padded_batch_is_as_if_alone(model, padding):
    together = logits_of(model, make_batch(padding=padding))
    for row, length in enumerate(LENGTHS):
        tokens = make_batch()["input_ids"][row : row + 1, :length]
        alone = logits_of(model, {"input_ids": tokens}, make_labels()[row : row + 1])
        assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("padding", ["left", "right", "none"])
def test_eager_and_sdpa_agree(model, padding):
    batch = make_batch((7, 7, 7)) if padding == "none" else make_batch(padding=padding)
    logits = {}
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        logits[implementation] = logits_of(model, batch)
    assert_close(logits["sdpa"], logits["eager"], rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("cross_attention", ["full", "bidirectional"])
def test_flex_attention_agrees_with_sdpa(cross_attention):
    model = make_model(hidden_size=64, cross_attention=cross_attention)
    expected = logits_of(model)
    model.set_attn_implementation("flex_attention")
    assert_close(logits_of(model), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_decoder_sees_no_later_token_and_the_encoder_sees_all(model):
    batch, labels = make_batch((7, 7, 7)), make_labels((6, 6, 6))
    before = logits_of(model, batch, labels)
    decoder_input_ids = model.prepare_decoder_input_ids_from_labels(labels)
    decoder_input_ids[:, 3] = 3 + (decoder_input_ids[:, 3] - 2) % 38
    after = model(**batch, decoder_input_ids=decoder_input_ids).logits
    assert_close(after[:, :3], before[:, :3], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(after[:, 3:], before[:, 3:], atol=1e-3)
    states = model.get_encoder()(**batch).last_hidden_state
    batch["input_ids"][:, -1] = 3 + (batch["input_ids"][:, -1] - 2) % 26
    changed = model.get_encoder()(**batch).last_hidden_state != states
    assert changed.any(-1).all()


@torch.no_grad()
def test_a_left_padded_target_is_as_if_alone(model):
    batch = make_batch((4, 4))
    target = make_labels((5, 5))
    padded = torch.cat((torch.zeros(2, 2, dtype=torch.long), target), dim=1)
    mask = padded.ne(0).long()
    logits = model(**batch, decoder_input_ids=padded, decoder_attention_mask=mask).logits
    alone = model(**batch, decoder_input_ids=target).logits
    assert_close(logits[:, 2:], alone, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_beams_share_their_source(model, implementation):
    """Two targets for each of three sources: as if every source stood there twice."""
    model.set_attn_implementation(implementation)
    batch = make_batch()
    target = torch.randint(3, 41, (6, 5))
    encoded = model.get_encoder()(**batch)
    mask = batch["attention_mask"]
    options = {"output_attentions": True} if implementation == "eager" else {}
    shared = model(
        attention_mask=mask, encoder_outputs=encoded, decoder_input_ids=target, **options
    )
    twice = {name: tensor.repeat_interleave(2, dim=0) for name, tensor in batch.items()}
    expected = model(**twice, decoder_input_ids=target, **options)
    assert_close(shared.logits, expected.logits, rtol=1e-4, atol=1e-4)
    if options:
        assert_close(shared.cross_attentions, expected.cross_attentions, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("piece", [1, 2])
def test_piece_by_piece_with_a_cache_equals_the_whole(model, piece, beams):
    batch = make_batch()
    target = torch.randint(3, 41, (3 * beams, 6))
    encoded = model.get_encoder()(**batch)
    given = {"attention_mask": batch["attention_mask"], "encoder_outputs": encoded}
    whole = model(**given, decoder_input_ids=target).logits
    cache, logits = None, []
    for tokens in target.split(piece, dim=1):
        outputs = model(**given, decoder_input_ids=tokens, past_key_values=cache, use_cache=True)
        cache = outputs.past_key_values
        logits.append(outputs.logits)
    assert isinstance(cache, EncoderDecoderCache)
    assert cache.get_seq_length() == 6
    assert cache.cross_attention_cache.layers[0].keys.shape[0] == 3
    assert_close(torch.cat(logits, 1), whole, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_keys_of_the_source_are_computed_once(model):
    calls = []
    for module in model.model.decoder.modules():
        if "k_proj" in dict(module.named_children()) and not module.is_causal:
            module.k_proj.register_forward_hook(lambda *_: calls.append(1))
    model.generate(**make_batch(), max_new_tokens=5, min_new_tokens=5)
    halves = 2 if model.config.cross_attention == "bidirectional" else 1
    assert len(calls) == halves * model.config.decoder_layers


# Outputs


@torch.no_grad()
def test_hidden_states_and_attentions_have_their_shapes(model):
    model.set_attn_implementation("eager")
    labels = make_labels()
    outputs = model(
        **make_batch(), labels=labels, output_hidden_states=True, output_attentions=True
    )
    config = model.config
    assert len(outputs.encoder_hidden_states) == config.encoder_layers + 1
    assert len(outputs.decoder_hidden_states) == config.decoder_layers + 1
    assert len(outputs.encoder_attentions) == config.encoder_layers
    assert len(outputs.decoder_attentions) == len(outputs.cross_attentions) == config.decoder_layers
    assert outputs.encoder_last_hidden_state.shape == (3, 7, 32)
    assert all(weights.shape == (3, 4, 6, 7) for weights in outputs.cross_attentions)
    for weights in outputs.cross_attentions:
        assert_close(weights.sum(-1), torch.ones(3, 4, 6))
        assert weights[1, ..., 4:].abs().max() < 1e-6  # padding


@torch.no_grad()
def test_logits_to_keep_are_the_last_ones(model):
    target = make_labels((6, 6, 6))
    whole = model(**make_batch(), decoder_input_ids=target).logits
    last = model(**make_batch(), decoder_input_ids=target, logits_to_keep=2).logits
    assert_close(last, whole[:, -2:])


@torch.no_grad()
def test_the_decoder_starts_from_its_start_token_and_pads_behind_the_labels():
    model = make_model(decoder_start_token_id=5, pad_token_id=0)
    inputs = model.prepare_decoder_input_ids_from_labels(torch.tensor([[7, 8, 2], [9, 2, -100]]))
    assert inputs.tolist() == [[5, 7, 8], [5, 9, 2]]
    inputs = model.prepare_decoder_input_ids_from_labels(torch.tensor([[9, -100, -100]]))
    assert inputs.tolist() == [[5, 9, 0]]


@torch.no_grad()
def test_embeddings_instead_of_tokens_give_the_same(model):
    batch, target = make_batch(), make_labels((6, 6, 6))
    expected = model(**batch, decoder_input_ids=target).logits
    stacks = model.model.encoder, model.model.decoder
    source, embedded = (
        stack.embed_tokens(ids)
        for stack, ids in zip(stacks, (batch["input_ids"], target), strict=True)
    )
    outputs = model(
        inputs_embeds=source,
        decoder_inputs_embeds=embedded,
        attention_mask=batch["attention_mask"],
    )
    assert torch.equal(outputs.logits, expected)


def test_a_missing_side_is_named():
    model = make_model()
    with pytest.raises(ValueError, match="GenSeq2SeqDecoder either token ids or embeddings"):
        model(**make_batch())
    with pytest.raises(ValueError, match="GenSeq2SeqEncoder either token ids or embeddings"):
        model(labels=make_labels())


def test_a_cache_of_another_kind_is_refused():
    with pytest.raises(
        ValueError, match=r"EncoderDecoderCache\(own, source\).* not a DynamicCache"
    ):
        make_model()(
            **make_batch(), decoder_input_ids=make_labels((3, 3, 3)), past_key_values=DynamicCache()
        )


@pytest.mark.parametrize("kind", ["sinusoidal", "learned"])
def test_texts_beyond_the_last_position_are_refused_with_both_lengths(kind):
    model = make_model(position_embedding=kind, max_position_embeddings=6)
    with pytest.raises(ValueError, match="7 tokens is longer than max_position_embeddings=6"):
        model(**make_batch(), labels=make_labels())
    with pytest.raises(ValueError, match="8 tokens is longer than max_position_embeddings=6"):
        model(**make_batch((3, 3, 3)), labels=make_labels((8, 8, 8)))
    assert model(**make_batch((6, 2), width=9), labels=make_labels((6, 6))).loss.isfinite()


# Vocabularies


def test_a_shared_vocabulary_has_one_embedding_whether_or_not_the_head_is_it():
    for tied in (True, False):
        model = make_model(tie_word_embeddings=tied)
        tables = [model.model.embed_tokens, model.model.encoder.embed_tokens]
        tables.append(model.model.decoder.embed_tokens)
        assert all(table.weight is tables[0].weight for table in tables)
        assert (model.lm_head.weight is tables[0].weight) == tied


def test_separate_vocabularies_have_embeddings_of_their_own():
    model = make_model(source_vocab_size=29)
    assert model.get_input_embeddings().num_embeddings == 29
    assert model.model.decoder.embed_tokens.num_embeddings == 41
    assert model.lm_head.weight is model.model.decoder.embed_tokens.weight
    assert "model.embed_tokens.weight" not in model.state_dict()


@torch.no_grad()
@pytest.mark.parametrize("fields", [{}, {"tie_word_embeddings": False}, {"source_vocab_size": 29}])
def test_the_vocabulary_can_be_resized(fields, tmp_path):
    model = make_model(**fields)
    before = logits_of(model)
    model.resize_token_embeddings(45)
    assert model.config.vocab_size == 45
    assert_close(logits_of(model)[..., :41], before)
    assert logits_of(model).shape[-1] == 45
    model.save_pretrained(tmp_path)
    loaded = GenSeq2SeqForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(logits_of(loaded), logits_of(model))
    if "source_vocab_size" in fields:
        assert model.get_input_embeddings().num_embeddings == 29
        model.resize_source_embeddings(33)
        assert model.config.source_vocab_size == model.get_input_embeddings().num_embeddings == 33
        assert torch.equal(logits_of(loaded), logits_of(model))


def test_a_shared_vocabulary_has_no_source_of_its_own_to_resize():
    with pytest.raises(ValueError, match="share one vocabulary"):
        make_model().resize_source_embeddings(50)


# Files


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float, torch.bfloat16])
def test_a_saved_model_comes_back_bit_for_bit(variant, tmp_path, dtype):
    model = make_model(**variant).to(dtype)
    model.save_pretrained(tmp_path)
    loaded, report = GenSeq2SeqForConditionalGeneration.from_pretrained(
        tmp_path, dtype=dtype, output_loading_info=True
    )
    assert not any(report.values())
    assert torch.equal(logits_of(loaded), logits_of(model))
    for (name, ours), (_, theirs) in zip(
        model.named_buffers(), loaded.named_buffers(), strict=True
    ):
        assert torch.equal(ours, theirs.to(dtype)), name
    headless = GenSeq2SeqModel.from_pretrained(tmp_path, dtype=dtype)
    states = headless(**make_batch(), decoder_input_ids=make_labels((6, 6, 6))).last_hidden_state
    expected = model.model(**make_batch(), decoder_input_ids=make_labels((6, 6, 6)))
    assert torch.equal(states, expected.last_hidden_state)


def test_a_shared_table_is_saved_once(tmp_path):
    make_model().save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        tables = [name for name in file.keys() if "embed_tokens" in name or "lm_head" in name]  # noqa: SIM118
    assert tables == ["model.embed_tokens.weight"]


def test_weights_that_a_checkpoint_lacks_are_initialised_and_the_others_kept(tmp_path):
    model = make_model(norm_position="pre")
    state = model.state_dict()
    kept = "model.decoder.layers.0.cross_attn.q_proj.weight"
    model.save_pretrained(tmp_path, state_dict={kept: state[kept]})
    loaded, report = GenSeq2SeqForConditionalGeneration.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert torch.equal(loaded.state_dict()[kept], state[kept])
    assert "model.encoder.layers.0.attn.o_proj.weight" in report["missing_keys"]
    std = loaded.model.encoder.layers[0].attn.o_proj.weight.std().item()
    assert std == pytest.approx(0.02 / 2, rel=0.15)
