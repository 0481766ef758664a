"""GPT-2 checkpoints into our model and back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import GPT2Config, GPT2LMHeadModel

from hf_genmodels.models.convert_gpt2 import fields_to_gpt2, weights_to_gpt2
from hf_genmodels.models.modeling_gpt import GenGPTForCausalLM

VARIATIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "other sizes": {"n_embd": 48, "n_layer": 2, "n_head": 6, "n_positions": 40, "vocab_size": 61},
    "narrow MLP": {"n_inner": 20},
    "untied head": {"tie_word_embeddings": False},
    "other activation and eps": {"activation_function": "relu", "layer_norm_epsilon": 1e-3},
}


@pytest.fixture(params=VARIATIONS)
def gpt2(request, make_gpt2):
    return make_gpt2(**VARIATIONS[request.param])


def tokens(model: GPT2LMHeadModel) -> torch.LongTensor:
    return torch.randint(3, model.config.vocab_size, (2, 10))


@torch.no_grad()
def test_logits_are_equal(gpt2, tmp_path):
    gpt2.save_pretrained(tmp_path)
    ours = GenGPTForCausalLM.from_gpt2(tmp_path)
    ids = tokens(gpt2)
    assert not ours.training
    assert_close(ours(ids).logits, gpt2(ids).logits, rtol=0, atol=1e-5)
    tied = ours.lm_head.weight is ours.model.embed_tokens.weight
    assert tied == gpt2.config.tie_word_embeddings


@torch.no_grad()
@pytest.mark.parametrize(
    "how",
    [{}, {"num_beams": 4, "num_return_sequences": 2}, {"num_beams": 3, "length_penalty": 0.2}],
    ids=["greedy", "beam", "beam with length penalty"],
)
def test_continuations_are_equal(gpt2, tmp_path, how):
    gpt2.save_pretrained(tmp_path)
    ours = GenGPTForCausalLM.from_gpt2(tmp_path)
    settings = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, **how}
    ids = tokens(gpt2)
    assert torch.equal(ours.generate(ids, **settings), gpt2.generate(ids, **settings))


def test_generation_settings_and_training_fields_are_kept(make_gpt2, tmp_path):
    gpt2 = make_gpt2(resid_pdrop=0.3, attn_pdrop=0.2, embd_pdrop=0.0, initializer_range=0.5)
    gpt2.generation_config.update(top_k=7, do_sample=True, max_new_tokens=5, eos_token_id=[2, 3])
    gpt2.save_pretrained(tmp_path)
    ours = GenGPTForCausalLM.from_gpt2(tmp_path)
    kept = ours.generation_config
    assert (kept.top_k, kept.max_new_tokens, kept.eos_token_id) == (7, 5, [2, 3])
    assert ours.config.residual_dropout == 0.3
    assert ours.config.attention_dropout == 0.2
    assert ours.config.embedding_dropout == 0.0
    assert ours.config.initializer_range == 0.5
    ours.save_pretrained(tmp_path / "ours")
    assert GenGPTForCausalLM.from_pretrained(tmp_path / "ours").generation_config.top_k == 7


def test_precision_and_attention_are_those_asked_for(make_gpt2, tmp_path):
    make_gpt2().save_pretrained(tmp_path)
    ours = GenGPTForCausalLM.from_gpt2(tmp_path, dtype=torch.bfloat16, attn_implementation="eager")
    assert ours.dtype == ours.config.dtype == torch.bfloat16
    assert ours.config._attn_implementation == "eager"


@pytest.mark.parametrize(
    "field",
    [
        {"scale_attn_by_inverse_layer_idx": True},
        {"reorder_and_upcast_attn": True},
        {"scale_attn_weights": False},
    ],
)
def test_variants_of_gpt2_that_we_do_not_have_are_refused(make_gpt2, tmp_path, field):
    make_gpt2(**field).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=next(iter(field))):
        GenGPTForCausalLM.from_gpt2(tmp_path)


@torch.no_grad()
@pytest.mark.parametrize("fields", [{}, {"tie_word_embeddings": False}, {"intermediate_size": 20}])
def test_our_model_written_as_gpt2_is_loaded_by_plain_transformers(
    make_model, input_ids, tmp_path, fields
):
    ours = make_model(**fields)
    weights = weights_to_gpt2(ours.state_dict(), ours.config.num_hidden_layers)
    theirs = GPT2LMHeadModel(GPT2Config(**fields_to_gpt2(ours.config)))
    theirs.load_state_dict(weights, strict=True)
    theirs.tie_weights()
    theirs.save_pretrained(tmp_path)
    loaded, report = GPT2LMHeadModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert_close(loaded(input_ids).logits, ours(input_ids).logits, rtol=0, atol=1e-5)
    back = GenGPTForCausalLM.from_gpt2(tmp_path)
    for name, tensor in ours.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"position_embedding": "rotary"}, "position_embedding='rotary', GPT-2 has 'learned'"),
        ({"norm": "rmsnorm"}, "norm='rmsnorm'"),
        ({"norm_affine": False}, "norm_affine=False"),
        ({"use_bias": False}, "use_bias=False"),
        ({"qk_norm": True}, "qk_norm=True"),
        ({"attention_scale": 2.0}, "attention_scale=2.0"),
        ({"logit_softcap": 5.0}, "logit_softcap=5.0"),
        ({"num_value_embeddings": 1}, "num_value_embeddings=1"),
        ({"num_key_value_heads": 2}, r"num_key_value_heads=2, .*\(4\)"),
    ],
)
def test_what_gpt2_cannot_be_is_refused_with_the_reason(make_config, fields, reason):
    with pytest.raises(ValueError, match=reason):
        fields_to_gpt2(make_config(**fields))


def test_all_reasons_are_given_at_once(make_config, modern):
    with pytest.raises(ValueError, match="cannot be written as GPT-2") as error:
        fields_to_gpt2(make_config(**modern))
    for field in ("position_embedding", "norm", "use_bias", "qk_norm", "num_key_value_heads"):
        assert field in str(error.value)
