"""Encoders and decoders that start from a trained language model."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close
from transformers import BartConfig

from hf_genmodels.models.configuration_gpt import GenGPTConfig
from hf_genmodels.models.configuration_seq2seq import GenSeq2SeqConfig
from hf_genmodels.models.modeling_gpt import GenGPTForCausalLM
from hf_genmodels.models.modeling_seq2seq import GenSeq2SeqForConditionalGeneration
from tests.models.conftest import NO_DROPOUT, SIZES, randomise

VARIANTS = {
    "gpt2": {},
    "modern": {
        "position_embedding": "rotary",
        "norm": "rmsnorm",
        "use_bias": False,
        "qk_norm": True,
        "hidden_act": "relu2",
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
        "logit_softcap": 5.0,
    },
    "sinusoidal": {"position_embedding": "sinusoidal", "norm_affine": False},
}
IDS = torch.randint(3, 97, (2, 9), generator=torch.Generator().manual_seed(0))


def language_model(**fields):
    model = GenGPTForCausalLM(GenGPTConfig(**(SIZES | NO_DROPOUT | fields)))
    randomise(model)
    return model.eval()


def model_for(gpt, **fields):
    config = GenSeq2SeqConfig.from_gpt(gpt.config, **fields)
    return GenSeq2SeqForConditionalGeneration(config).eval()


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("own_source", [None, 50])
def test_the_decoder_is_the_language_model_where_the_source_says_nothing(variant, own_source):
    gpt = language_model(**VARIANTS[variant])
    model = model_for(gpt, source_vocab_size=own_source, encoder_layers=2)
    before = {name: p.clone() for name, p in model.named_parameters()}
    taken = model.load_decoder(gpt)
    for block in model.model.decoder.layers:
        block.cross_attn.o_proj.weight.zero_()
        if block.cross_attn.o_proj.bias is not None:
            block.cross_attn.o_proj.bias.zero_()
    logits = model(input_ids=IDS[:, :4] % 50, decoder_input_ids=IDS).logits
    assert_close(logits, gpt(IDS).logits, rtol=1e-4, atol=1e-4)

    assert "decoder.layers.2.mlp.up_proj.weight" in taken
    assert not [name for name in taken if "cross_attn" in name]
    kept = "model.encoder.layers.0.attn.q_proj.weight"
    assert torch.equal(dict(model.named_parameters())[kept], before[kept])


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("own_source", [None, 97])
def test_the_encoder_has_the_language_models_weights(variant, own_source):
    gpt = language_model(**VARIANTS[variant])
    model = model_for(gpt, source_vocab_size=own_source, decoder_layers=1)
    taken = model.load_encoder(gpt)
    state, source = model.model.state_dict(), gpt.model.state_dict()
    assert sorted(taken) == sorted(f"encoder.{name}" for name in source)
    for name, weight in source.items():
        assert torch.equal(state[f"encoder.{name}"], weight), name
    first = model.get_encoder()(IDS[:, :1]).last_hidden_state
    assert_close(first, gpt.model(IDS[:, :1]).last_hidden_state, rtol=1e-4, atol=1e-4)


def test_a_warm_start_trains_and_is_saved(tmp_path):
    gpt = language_model()
    model = model_for(gpt).train()
    model.load_decoder(gpt)
    model.load_encoder(gpt.model)
    loss = model(input_ids=IDS, labels=IDS).loss
    loss.backward()
    assert model.model.decoder.layers[0].cross_attn.q_proj.weight.grad.count_nonzero() > 0
    assert model.model.encoder.embed_tokens.weight is model.model.decoder.embed_tokens.weight
    model.eval().save_pretrained(tmp_path)
    loaded = GenSeq2SeqForConditionalGeneration.from_pretrained(tmp_path)
    expected = model(input_ids=IDS, labels=IDS).logits
    assert torch.equal(loaded(input_ids=IDS, labels=IDS).logits, expected)


def test_fewer_learned_positions_take_the_first_ones():
    gpt = language_model()
    model = model_for(gpt, max_position_embeddings=20)
    model.load_decoder(gpt)
    table = gpt.model.embed_positions.weight[:20]
    assert torch.equal(model.model.decoder.embed_positions.weight, table)


def test_every_misfit_is_named_at_once_and_nothing_is_loaded():
    gpt = language_model(num_value_embeddings=1, tie_word_embeddings=False)
    config = GenSeq2SeqConfig(
        vocab_size=50,
        hidden_size=48,
        num_attention_heads=6,
        encoder_layers=1,
        decoder_layers=2,
        max_position_embeddings=65,
        position_embedding="learned",
        norm="rmsnorm",
        use_bias=False,
        hidden_act="relu",
        logit_softcap=3.0,
    )
    model = GenSeq2SeqForConditionalGeneration(config)
    before = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(ValueError, match="does not fit the decoder") as error:
        model.load_decoder(gpt)
    for part in (
        "hidden_size is 48 here and 32 there",
        "num_attention_heads is 6 here and 4 there",
        "intermediate_size is 192 here and 128 there",
        "hidden_act is relu here and gelu_new there",
        "norm is rmsnorm here and layernorm there",
        "use_bias is False here and True there",
        "decoder_layers is 2 here and 3 there",
        "vocabulary is 50 here and 97 there",
        "norm_position is post here and pre there",
        "scale_embedding is True here and False there",
        "num_value_embeddings is 0 here and 1 there",
        "logit_softcap is 3.0 here and None there",
        "tie_word_embeddings is True here and False there",
        "max_position_embeddings is 65 here and only 64 there",
        "GenSeq2SeqConfig.from_gpt",
    ):
        assert part in str(error.value)
    assert "rope_theta" not in str(error.value)
    with pytest.raises(ValueError, match="encoder_layers is 1 here and 3 there"):
        model.load_encoder(gpt)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_an_untied_head_needs_a_model_with_a_head():
    gpt = language_model(tie_word_embeddings=False)
    model = model_for(gpt)
    with pytest.raises(ValueError, match="the model given has no head"):
        model.load_decoder(gpt.model)
    model.load_decoder(gpt)
    assert torch.equal(model.lm_head.weight, gpt.lm_head.weight)


def test_the_source_has_a_vocabulary_of_its_own_to_fit():
    gpt = language_model()
    model = model_for(gpt, source_vocab_size=50)
    with pytest.raises(ValueError, match="encoder: vocabulary is 50 here and 97 there"):
        model.load_encoder(gpt)


def test_other_families_are_refused():
    with pytest.raises(ValueError, match="not from 'bart'"):
        GenSeq2SeqConfig.from_gpt(BartConfig())
