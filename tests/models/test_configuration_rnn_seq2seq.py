"""GenRNNSeq2SeqConfig: defaults, checks, round trips."""

from __future__ import annotations

import logging

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import GenerationConfig

from hf_genmodels.models.configuration_rnn_seq2seq import GenRNNSeq2SeqConfig


def test_a_config_without_arguments_logs_nothing(caplog, capfd):
    with caplog.at_level(logging.INFO):
        config = GenRNNSeq2SeqConfig()
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")
    assert config.is_encoder_decoder
    assert config.decoder_start_token_id == config.bos_token_id == 1


def test_what_is_left_out_follows_what_is_given():
    assert GenRNNSeq2SeqConfig(hidden_size=64).embedding_size == 64
    assert GenRNNSeq2SeqConfig(bos_token_id=7).decoder_start_token_id == 7
    assert GenRNNSeq2SeqConfig().shares_vocabulary
    assert not GenRNNSeq2SeqConfig(source_vocab_size=50).shares_vocabulary


def test_caches_and_tools_find_the_decoders_depth_under_the_standard_name():
    config = GenRNNSeq2SeqConfig(encoder_layers=1, decoder_layers=3, d_model=64)
    assert config.num_hidden_layers == 3
    assert config.hidden_size == 64


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vocab_size": 0}, "vocab_size=0 must be at least 1"),
        ({"source_vocab_size": 0}, "source_vocab_size=0 must be at least 1"),
        ({"decoder_layers": 0}, "decoder_layers=0 must be at least 1"),
        ({"hidden_size": 33}, "hidden_size=33 is odd"),
        ({"embedding_size": 8}, "embedding_size=8 to be hidden_size=512"),
        ({"cell": "lsmt"}, "cell='lsmt' is unknown. Choose from: lstm, gru, rnn"),
        ({"attention": "luong"}, "attention='luong' is unknown. .*none, dot, general, additive"),
        ({"dropout": 1.0}, "dropout=1.0 must lie in"),
        ({"label_smoothing": -0.1}, "label_smoothing=-0.1 must lie in"),
        ({"attention": "none", "input_feeding": True}, "but attention='none'"),
        ({"bos_token_id": None}, "decoder_start_token_id and bos_token_id are both null"),
        ({"is_encoder_decoder": False}, "this model always has both"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(fields, message):
    with pytest.raises(StrictDataclassError, match=message):
        GenRNNSeq2SeqConfig(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"hidden_size": 33, "bidirectional_encoder": False},
        {"embedding_size": 8, "tie_word_embeddings": False},
        {"bos_token_id": None, "decoder_start_token_id": 0},
        {"dropout": 0},
    ],
)
def test_what_the_messages_advise_is_accepted(fields):
    GenRNNSeq2SeqConfig(**fields)


def test_a_saved_config_comes_back_equal(tmp_path):
    config = GenRNNSeq2SeqConfig(cell="gru", attention="additive", source_vocab_size=9, dropout=0)
    config.save_pretrained(tmp_path)
    assert GenRNNSeq2SeqConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_no_field_is_a_generation_setting():
    reserved = set(GenerationConfig().to_dict()) - {
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "decoder_start_token_id",
        "use_cache",
        "transformers_version",
    }
    assert not reserved & set(GenRNNSeq2SeqConfig.__annotations__)
