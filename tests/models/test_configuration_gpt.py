"""GenGPTConfig: defaults, names, checks, round trips."""

from __future__ import annotations

import logging

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import GPT2Config

from hf_genmodels.models.configuration_gpt import GenGPTConfig
from hf_genmodels.models.convert_gpt2 import SHARED_FIELDS


def test_defaults_are_gpt2_small():
    ours, theirs = GenGPTConfig(), GPT2Config()
    for name in SHARED_FIELDS:
        if name == "n_inner":
            continue
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.intermediate_size == 4 * 768
    assert ours.num_key_value_heads == 12
    assert ours.head_dim == 64


def test_a_config_without_arguments_logs_nothing(caplog, capfd):
    with caplog.at_level(logging.INFO):
        GenGPTConfig()
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("theirs", "ours", "value"),
    [
        ("n_embd", "hidden_size", 24),
        ("n_layer", "num_hidden_layers", 5),
        ("n_head", "num_attention_heads", 6),
        ("n_inner", "intermediate_size", 50),
        ("n_positions", "max_position_embeddings", 77),
        ("activation_function", "hidden_act", "relu"),
        ("layer_norm_epsilon", "norm_eps", 1e-3),
        ("attn_pdrop", "attention_dropout", 0.3),
        ("resid_pdrop", "residual_dropout", 0.3),
        ("embd_pdrop", "embedding_dropout", 0.3),
    ],
)
def test_gpt2_names_work_in_both_directions(theirs, ours, value):
    given = GenGPTConfig(**{theirs: value})
    assert getattr(given, ours) == getattr(given, theirs) == value
    set_later = GenGPTConfig()
    setattr(set_later, theirs, value)
    assert getattr(set_later, ours) == value
    assert ours in given.to_dict()
    assert theirs not in given.to_dict()


def test_sizes_left_out_follow_those_given_under_gpt2_names():
    config = GenGPTConfig(n_embd=60, n_head=6)
    assert (config.intermediate_size, config.num_key_value_heads) == (240, 6)


def test_round_trip_through_a_folder(tmp_path, make_config, variant):
    config = make_config(**variant)
    config.save_pretrained(tmp_path)
    loaded = GenGPTConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    changed = GenGPTConfig.from_pretrained(tmp_path, n_positions=99)
    assert changed.max_position_embeddings == 99


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 768, "num_attention_heads": 7}, r"=7 does not divide.*=768.*does is 6"),
        ({"num_attention_heads": 12, "num_key_value_heads": 5}, r"=5 does not divide.*=12"),
        ({"hidden_size": 36, "num_attention_heads": 12, "position_embedding": "rotary"}, "3 wide"),
        (
            {"hidden_size": 33, "num_attention_heads": 3, "position_embedding": "sinusoidal"},
            "even hidden_size, not 33",
        ),
        ({"position_embedding": "alibi"}, "'alibi'.*learned, sinusoidal, rotary"),
        ({"norm": "batchnorm"}, "'batchnorm'.*layernorm, rmsnorm"),
        ({"attention_dropout": 1.0}, r"attention_dropout=1.0 must lie in \[0, 1\)"),
        ({"residual_dropout": -0.1}, r"residual_dropout=-0.1"),
        ({"logit_softcap": 0}, "logit_softcap=0 must be above 0"),
        ({"attention_scale": 0.0}, "attention_scale=0.0 must be above 0"),
        ({"num_value_embeddings": 13}, "=13 must lie between 0 and num_hidden_layers=12"),
        ({"vocab_size": 0}, "vocab_size=0 must be at least 1"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0"),
        ({"hidden_act": "gelu_old"}, "hidden_act='gelu_old'"),
        ({"hidden_size": "768"}, "hidden_size"),
        ({"qk_norm": 1}, "qk_norm"),
        ({"norm_eps": "1e-5"}, "norm_eps"),
    ],
)
def test_what_cannot_work_is_refused_with_the_field_and_what_would(fields, message):
    with pytest.raises((ValueError, StrictDataclassError)) as error:
        GenGPTConfig(**fields)
    assert error.match(f"(?s){message}")


def test_types_are_checked_when_a_field_is_set_later():
    config = GenGPTConfig()
    with pytest.raises(StrictDataclassError, match="hidden_size"):
        config.hidden_size = "wide"


def test_whole_numbers_are_fine_where_fractions_are_expected():
    config = GenGPTConfig(
        attention_dropout=0, residual_dropout=0, embedding_dropout=0, logit_softcap=15, rope_theta=1
    )
    assert config.logit_softcap == 15
