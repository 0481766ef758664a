"""Encoder-decoders for CTranslate2."""

from __future__ import annotations

import sys

import pytest
import torch
from transformers import AutoTokenizer

from hf_genmodels.errors import UserError
from hf_genmodels.hub import export_report
from hf_genmodels.hub.export_ctranslate2 import export_ctranslate2, target_log_probs
from tests.hub.translators import make_tokenizer, make_translator

ctranslate2 = pytest.importorskip("ctranslate2")

KINDS = {
    "post-norm": {},
    "pre-norm": {"norm_position": "pre"},
    "modern": {
        "norm_position": "pre",
        "norm": "rmsnorm",
        "use_bias": False,
        "norm_eps": 0.1,
        "hidden_act": "silu",
        "num_key_value_heads": 2,
    },
    "learned": {"position_embedding": "learned", "scale_embedding": False, "hidden_act": "gelu"},
    "plain norms": {"norm_affine": False, "norm_eps": 0.1, "tie_word_embeddings": False},
    "biased head": {"head_bias": True, "decoder_start_token_id": 256},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_translates_as_the_model_does(tmp_path, kind):
    model, tokenizer = make_translator(**KINDS[kind]), make_tokenizer()

    report = export_ctranslate2(model, tokenizer, None, tmp_path / "fast")

    translator = ctranslate2.Translator(str(tmp_path / "fast"), compute_type="float32")
    read = AutoTokenizer.from_pretrained(tmp_path / "fast")
    ids = read(["In the beginning", "a"])["input_ids"]
    tokens = [read.convert_ids_to_tokens(row) for row in ids]
    for beams in (1, 4):
        found = translator.translate_batch(tokens, beam_size=beams, max_decoding_length=24)
        expected = export_report.translate(model, ids, beams)
        for result, row in zip(found, expected, strict=True):
            assert read.convert_tokens_to_ids(result.hypotheses[0]) == row
    assert report.largest_difference < 1e-4
    assert f"{report.largest_difference:.3g}" in report.text
    assert "8 of 8 outputs are equal with greedy search" in report.text
    assert "8 of 8 outputs are equal with 4 beams" in report.text


def test_two_vocabularies_keep_their_two_tokenizers(tmp_path):
    model = make_translator(source_vocab_size=264)
    source_tokenizer, tokenizer = make_tokenizer(5), make_tokenizer()

    export_ctranslate2(model, source_tokenizer, tokenizer, tmp_path / "fast")

    names = {path.name for path in (tmp_path / "fast").iterdir()}
    assert {"source_vocabulary.json", "target_vocabulary.json", "target_tokenizer"} <= names
    assert "fast/target_tokenizer" in (tmp_path / "fast" / "README.md").read_text()
    translator = ctranslate2.Translator(str(tmp_path / "fast"), compute_type="float32")
    read = AutoTokenizer.from_pretrained(tmp_path / "fast")
    target = AutoTokenizer.from_pretrained(tmp_path / "fast" / "target_tokenizer")
    ids = read("In the beginning")["input_ids"]
    (result,) = translator.translate_batch(
        [read.convert_ids_to_tokens(ids)], beam_size=1, max_decoding_length=24
    )
    (expected,) = export_report.translate(model, [ids], 1)
    assert target.convert_tokens_to_ids(result.hypotheses[0]) == expected


def test_a_vocabulary_padded_to_a_round_size_gets_names_for_the_rest(tmp_path):
    export_ctranslate2(make_translator(vocab_size=264), make_tokenizer(), None, tmp_path / "fast")
    with pytest.raises(UserError, match="264 tokens, but the model's vocabulary only 259"):
        export_ctranslate2(make_translator(), make_tokenizer(5), None, tmp_path / "other")


def test_empty_outputs_are_compared_too(tmp_path):
    model = make_translator(head_bias=True)
    model.lm_head.bias.data[258] = 50.0
    report = export_ctranslate2(model, make_tokenizer(), None, tmp_path / "fast")
    assert "8 of 8 outputs are equal with greedy search; 8 of 8" in report.text


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"position_embedding": "rotary"}, "position_embedding='rotary'"),
        ({"cross_attention": "bidirectional"}, "cross_attention='bidirectional'"),
        ({"refinement_decoder": True}, "refinement_decoder=True"),
        ({"qk_norm": True}, "qk_norm=True"),
        ({"attention_scale": 2.0}, "attention_scale=2.0"),
        ({"logit_softcap": 5.0}, "logit_softcap=5.0"),
        ({"hidden_act": "relu2"}, "hidden_act='relu2', CTranslate2 has gelu, "),
        ({"eos_token_id": [258, 257]}, "CTranslate2 has exactly one"),
        ({"qk_norm": True, "logit_softcap": 5.0}, "qk_norm=True.*; logit_softcap=5.0"),
    ],
)
def test_what_ctranslate2_has_no_layer_for_is_refused_with_the_reasons(tmp_path, fields, reason):
    with pytest.raises(UserError, match=reason):
        export_ctranslate2(make_translator(**fields), make_tokenizer(), None, tmp_path / "fast")
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_where_the_check_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(export_report, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match="largest difference"):
        export_ctranslate2(make_translator(), make_tokenizer(), None, tmp_path / "fast")
    assert not list(tmp_path.iterdir())


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(UserError, match=r"hf_genmodels\[export\]"):
        export_ctranslate2(make_translator(), make_tokenizer(), None, tmp_path / "fast")


def test_log_probabilities_are_those_of_the_targets_and_their_ends():
    model = make_translator()
    found = target_log_probs(model, [[5, 6, 258], [7, 258]], [[8, 9], []])
    assert found.shape == (4,)
    with torch.no_grad():
        logits = model(torch.tensor([[7, 258]]), decoder_input_ids=torch.tensor([[257]])).logits
    assert found[3].item() == pytest.approx(logits.log_softmax(-1)[0, 0, 258].item(), abs=1e-4)
