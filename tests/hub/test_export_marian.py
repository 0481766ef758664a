"""Encoder-decoders as Marian of transformers."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, MarianMTModel

from hf_genmodels.errors import UserError
from hf_genmodels.hub import export_marian as marian_module
from hf_genmodels.hub import export_report
from hf_genmodels.hub.export import export, main
from hf_genmodels.hub.export_marian import export_marian
from hf_genmodels.hub.folder import publish_folder
from hf_genmodels.models.configuration_rnn_seq2seq import GenRNNSeq2SeqConfig
from hf_genmodels.models.modeling_rnn_seq2seq import GenRNNSeq2SeqForConditionalGeneration
from tests.hub.translators import make_tokenizer, make_translator


@pytest.mark.parametrize("fields", [{}, {"head_bias": True}, {"tie_word_embeddings": False}])
def test_the_folder_is_a_plain_marian(tmp_path, fields):
    model, tokenizer = make_translator(**fields), make_tokenizer()

    report = export_marian(model, tokenizer, None, tmp_path / "marian")

    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "marian", trust_remote_code=False)
    assert type(loaded) is MarianMTModel
    assert not list((tmp_path / "marian").glob("*.py"))
    assert "trust_remote_code" not in (tmp_path / "marian" / "README.md").read_text()
    read = AutoTokenizer.from_pretrained(tmp_path / "marian")
    texts = ["In the beginning", "Grüße 🙂"]
    batch = read(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
    assert batch["input_ids"].tolist() == tokenizer(texts, padding=True)["input_ids"]
    labels = batch["input_ids"]
    with torch.no_grad():
        expected, found = (made(**batch, labels=labels).logits for made in (model, loaded))
    assert_close(found, expected, rtol=0, atol=5e-5)
    settings = {"num_beams": 4, "max_new_tokens": 12, "do_sample": False, "length_penalty": 0.6}
    settings |= {"temperature": 1.0, "top_p": 1.0}
    assert torch.equal(loaded.generate(**batch, **settings), model.generate(**batch, **settings))
    assert report.format == "marian"
    assert report.largest_difference < 5e-5
    assert f"{report.largest_difference:.3g}" in report.text
    assert "8 of 8 outputs are equal with greedy search and with 4 beams" in report.text


def test_two_vocabularies_keep_their_two_tokenizers(tmp_path):
    model = make_translator(source_vocab_size=264)
    source_tokenizer, tokenizer = make_tokenizer(5), make_tokenizer()

    export_marian(model, source_tokenizer, tokenizer, tmp_path / "marian")

    assert len(AutoTokenizer.from_pretrained(tmp_path / "marian")) == 264
    assert len(AutoTokenizer.from_pretrained(tmp_path / "marian" / "target_tokenizer")) == 259
    loaded = MarianMTModel.from_pretrained(tmp_path / "marian")
    assert (loaded.config.vocab_size, loaded.config.decoder_vocab_size) == (264, 259)


def test_every_reason_to_refuse_is_named_before_anything_is_written(tmp_path):
    model = make_translator(norm_position="pre", norm="rmsnorm", position_embedding="rotary")

    with pytest.raises(UserError) as refusal:
        export_marian(model, make_tokenizer(), None, tmp_path / "marian")

    for field in ("norm_position='pre'", "norm='rmsnorm'", "position_embedding='rotary'"):
        assert field in str(refusal.value)
    assert not (tmp_path / "marian").exists()


def test_other_logits_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(export_report, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match="other logits than its source: largest difference"):
        export_marian(make_translator(), make_tokenizer(), None, tmp_path / "marian")


def test_other_texts_are_noticed(tmp_path, monkeypatch):
    calls = []

    def translate(model, sources, beams):
        calls.append(beams)
        return [[len(calls)] for _ in sources]

    monkeypatch.setattr(marian_module.export_report, "translate", translate)
    with pytest.raises(UserError, match="other texts than its source with greedy search: 0 of 8"):
        export_marian(make_translator(), make_tokenizer(), None, tmp_path / "marian")


def test_the_models_own_generation_settings_do_not_touch_the_comparison(tmp_path):
    model = make_translator()
    model.generation_config.update(num_beams=3, no_repeat_ngram_size=1, max_length=5)
    export_marian(model, make_tokenizer(), None, tmp_path / "marian")
    assert model.generation_config.num_beams == 3
    assert MarianMTModel.from_pretrained(tmp_path / "marian").generation_config.num_beams == 3


def test_the_command_line_writes_a_published_translator_as_marian(tmp_path, capsys):
    source = publish_folder(make_translator(), make_tokenizer(), tmp_path / "toy")

    main([str(source), str(tmp_path / "marian"), "--format", "marian"])

    assert "(format marian)" in (written := capsys.readouterr().out)
    assert "largest difference" in written
    assert type(AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "marian")) is MarianMTModel


def test_a_format_of_another_family_is_refused_with_those_that_fit(tmp_path, published):
    rnn = GenRNNSeq2SeqForConditionalGeneration(
        GenRNNSeq2SeqConfig(vocab_size=259, hidden_size=8, encoder_layers=1, decoder_layers=1)
    )
    source = publish_folder(rnn, make_tokenizer(), tmp_path / "rnn")
    with pytest.raises(UserError, match=r"holds one of type gen_rnn_seq2seq. Choose from: hub"):
        export(source, tmp_path / "marian", "marian")
    with pytest.raises(UserError, match=r"type gen_gpt. Choose from: hub, gpt2"):
        export(published, tmp_path / "marian", "marian")
    assert not (tmp_path / "marian").exists()


def test_a_marian_folder_is_not_ours_to_export(tmp_path):
    export_marian(make_translator(), make_tokenizer(), None, tmp_path / "marian")
    with pytest.raises(UserError, match="from_marian"):
        export(tmp_path / "marian", tmp_path / "out")
