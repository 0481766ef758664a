"""GenSeq2SeqConfig: defaults, names, and errors that say what to do."""

from __future__ import annotations

import pytest
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import DynamicCache

from hf_genmodels.models.configuration_seq2seq import GenSeq2SeqConfig
from tests.models.transformer import make_config


def test_defaults_are_the_base_model_of_the_paper():
    config = GenSeq2SeqConfig()
    assert (config.hidden_size, config.intermediate_size, config.num_attention_heads) == (
        512, 2048, 8,
    )  # fmt: skip
    assert config.encoder_layers == config.decoder_layers == 6
    assert config.norm_position == "post"
    assert config.position_embedding == "sinusoidal"
    assert config.hidden_act == "relu"
    assert config.is_encoder_decoder
    assert config.decoder_start_token_id == config.bos_token_id


def test_names_of_bart_are_understood():
    config = GenSeq2SeqConfig(d_model=64, activation_function="gelu", init_std=0.1)
    assert (config.hidden_size, config.hidden_act, config.initializer_range) == (64, "gelu", 0.1)
    assert config.d_model == 64
    assert GenSeq2SeqConfig(num_hidden_layers=2).decoder_layers == 2


def test_caches_are_as_deep_as_the_decoder():
    config = make_config(encoder_layers=5, decoder_layers=2)
    assert config.num_hidden_layers == 2
    assert len(DynamicCache(config=config).layers) == 2
    assert len(DynamicCache(config=config.get_text_config(decoder=True)).layers) == 2


def test_a_saved_configuration_comes_back(tmp_path):
    config = make_config(source_vocab_size=29, cross_attention="bidirectional", label_smoothing=0.1)
    config.save_pretrained(tmp_path)
    assert GenSeq2SeqConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_what_depends_on_other_fields_is_filled_in():
    config = make_config(hidden_size=48, decoder_layers=3)
    assert config.intermediate_size == 192
    assert config.num_key_value_heads == 4
    assert config.refinement_layers == 3
    assert config.head_dim == 12
    assert config.shares_vocabulary
    assert not make_config(source_vocab_size=9).shares_vocabulary


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"encoder_layers": 0}, "encoder_layers=0 must be at least 1"),
        ({"decoder_layers": 0}, "decoder_layers=0 must be at least 1"),
        ({"refinement_layers": 0}, "refinement_layers=0 must be at least 1"),
        ({"source_vocab_size": 0}, "source_vocab_size=0 must be at least 1"),
        ({"num_attention_heads": 5}, "num_attention_heads=5 does not divide hidden_size=32"),
        ({"num_key_value_heads": 3}, "num_key_value_heads=3 does not divide"),
        ({"position_embedding": "alibi"}, "Choose from: sinusoidal, learned, rotary"),
        ({"norm": "batchnorm"}, "Choose from: layernorm, rmsnorm"),
        ({"norm_position": "middle"}, "Choose from: post, pre"),
        ({"cross_attention": "both"}, "Choose from: full, bidirectional"),
        ({"hidden_act": "rleu"}, "hidden_act='rleu' is unknown"),
        ({"label_smoothing": 1.0}, r"label_smoothing=1.0 must lie in \[0, 1\)"),
        ({"activation_dropout": -0.1}, r"activation_dropout=-0.1 must lie in \[0, 1\)"),
        ({"logit_softcap": 0}, "logit_softcap=0 must be above 0"),
        ({"attention_scale": -1.0}, "attention_scale=-1.0 must be above 0"),
        ({"refinement_loss_weight": 0}, "refinement_decoder: false"),
        ({"is_encoder_decoder": False}, "always has both"),
        ({"bos_token_id": None}, "token from which the decoder starts"),
        (
            {"hidden_size": 12, "num_attention_heads": 4, "position_embedding": "rotary"},
            "a head is 3 wide",
        ),
        (
            {"hidden_size": 15, "num_attention_heads": 3},
            "Sinusoidal positions need an even hidden_size, not 15",
        ),
        (
            {
                "hidden_size": 15,
                "num_attention_heads": 3,
                "position_embedding": "learned",
                "cross_attention": "bidirectional",
            },
            "need an even hidden_size, not 15",
        ),
    ],
)
def test_mistakes_are_named_with_what_is_allowed(fields, message):
    with pytest.raises(StrictDataclassClassValidationError, match=message):
        make_config(**fields)
