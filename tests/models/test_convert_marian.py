"""Marian checkpoints into our encoder-decoder and back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import MarianConfig, MarianMTModel

from hf_genmodels.models.configuration_seq2seq import GenSeq2SeqConfig
from hf_genmodels.models.convert_marian import fields_to_marian, weights_to_marian
from hf_genmodels.models.modeling_seq2seq import GenSeq2SeqForConditionalGeneration

MARIAN: dict[str, Any] = {
    "vocab_size": 61,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": 64,
    "activation_function": "swish",
    "scale_embedding": True,
    "pad_token_id": 60,
    "decoder_start_token_id": 60,
    "eos_token_id": 0,
    "forced_eos_token_id": 0,
}
VARIATIONS: dict[str, dict[str, Any]] = {
    "as the real ones": {},
    "two vocabularies": {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 53,
                         "pad_token_id": 52, "decoder_start_token_id": 52},
    "untied head": {"tie_word_embeddings": False, "share_encoder_decoder_embeddings": False},
    "plain embedding": {"scale_embedding": False, "activation_function": "gelu"},
    "no bias": {},
}  # fmt: skip


def randomise(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            mean = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            if "embed_positions" not in name:
                parameter.normal_(mean, 0.1 if parameter.ndim == 1 else 0.3)


@pytest.fixture(params=VARIATIONS)
def marian(request):
    torch.manual_seed(0)
    model = MarianMTModel(MarianConfig(**(MARIAN | VARIATIONS[request.param])))
    randomise(model)
    if request.param != "no bias":
        model.final_logits_bias.normal_()
    return model.eval()


def make_ours(**fields) -> GenSeq2SeqForConditionalGeneration:
    sizes = {"vocab_size": 61, "hidden_size": 32, "encoder_layers": 3, "decoder_layers": 2}
    sizes |= {"num_attention_heads": 4, "max_position_embeddings": 64}
    torch.manual_seed(0)
    model = GenSeq2SeqForConditionalGeneration(GenSeq2SeqConfig(**(sizes | fields)))
    randomise(model)
    return model.eval()


def sources() -> dict[str, torch.Tensor]:
    ids = torch.randint(3, 50, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(9) < torch.tensor([9, 5, 2])[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


@torch.no_grad()
def test_logits_are_equal(marian, tmp_path):
    marian.save_pretrained(tmp_path)
    ours = GenSeq2SeqForConditionalGeneration.from_marian(tmp_path)
    target = torch.randint(3, 50, (3, 6))
    expected = marian(**sources(), decoder_input_ids=target).logits
    assert not ours.training
    assert_close(ours(**sources(), decoder_input_ids=target).logits, expected, rtol=0, atol=3e-5)
    assert (ours.lm_head.bias is None) == (not marian.final_logits_bias.any())


@torch.no_grad()
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"num_beams": 4, "num_return_sequences": 3},
        {"num_beams": 3, "length_penalty": 2.0, "early_stopping": True},
    ],
    ids=["greedy", "beam", "beam with length penalty"],
)
def test_translations_are_equal(marian, tmp_path, how):
    marian.save_pretrained(tmp_path)
    ours = GenSeq2SeqForConditionalGeneration.from_marian(tmp_path)
    settings = {"max_new_tokens": 12, "do_sample": False, **how}
    expected = marian.generate(**sources(), **settings)
    assert torch.equal(ours.generate(**sources(), **settings), expected)


def test_generation_settings_precision_and_training_fields_are_kept(tmp_path):
    marian = MarianMTModel(MarianConfig(**MARIAN, dropout=0.3, attention_dropout=0.2))
    marian.generation_config.update(num_beams=6, bad_words_ids=[[60]], max_length=40)
    marian.save_pretrained(tmp_path)
    ours = GenSeq2SeqForConditionalGeneration.from_marian(tmp_path, dtype=torch.bfloat16)
    assert ours.dtype == ours.config.dtype == torch.bfloat16
    kept = ours.generation_config
    assert (kept.num_beams, kept.bad_words_ids, kept.forced_eos_token_id) == (6, [[60]], 0)
    assert ours.config.residual_dropout == ours.config.embedding_dropout == 0.3
    assert ours.config.attention_dropout == 0.2
    ours.save_pretrained(tmp_path / "ours")
    again = GenSeq2SeqForConditionalGeneration.from_pretrained(tmp_path / "ours")
    assert again.generation_config.num_beams == 6


def test_a_checkpoint_of_other_widths_is_refused_with_all_of_them(tmp_path):
    fields = MARIAN | {"decoder_attention_heads": 2, "decoder_ffn_dim": 44}
    MarianMTModel(MarianConfig(**fields)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"heads=4 and .*heads=2; .*dim=40 and .*dim=44"):
        GenSeq2SeqForConditionalGeneration.from_marian(tmp_path)


def test_two_embeddings_where_one_is_announced_are_refused(tmp_path):
    marian = MarianMTModel(MarianConfig(**MARIAN, tie_word_embeddings=False))
    marian.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="share_encoder_decoder_embeddings=True, but"):
        GenSeq2SeqForConditionalGeneration.from_marian(tmp_path)


@torch.no_grad()
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"source_vocab_size": 71},
        {"tie_word_embeddings": False},
        {"head_bias": True, "intermediate_size": 20, "decoder_start_token_id": 0},
    ],
)
def test_our_model_written_as_marian_is_loaded_by_plain_transformers(tmp_path, fields):
    ours = make_ours(**fields)
    theirs = MarianMTModel(MarianConfig(**fields_to_marian(ours.config)))
    missing, unexpected = theirs.load_state_dict(
        weights_to_marian(ours.state_dict(), ours.config), strict=False
    )
    assert not unexpected
    assert all("embed_positions" in name for name in missing)
    theirs.tie_weights()
    theirs.save_pretrained(tmp_path)
    loaded, report = MarianMTModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    target = torch.randint(3, 50, (3, 6))
    expected = ours(**sources(), decoder_input_ids=target).logits
    assert_close(loaded(**sources(), decoder_input_ids=target).logits, expected, rtol=0, atol=3e-5)
    back = GenSeq2SeqForConditionalGeneration.from_marian(tmp_path)
    for name, tensor in ours.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name
    assert back.config.source_vocab_size == ours.config.source_vocab_size


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"position_embedding": "rotary"}, "position_embedding='rotary', Marian has 'sinusoidal'"),
        ({"norm": "rmsnorm"}, "norm='rmsnorm'"),
        ({"norm_position": "pre"}, "norm_position='pre'"),
        ({"norm_eps": 1e-3}, "norm_eps=0.001"),
        ({"use_bias": False}, "use_bias=False"),
        ({"qk_norm": True}, "qk_norm=True"),
        ({"attention_scale": 2.0}, "attention_scale=2.0"),
        ({"logit_softcap": 5.0}, "logit_softcap=5.0"),
        ({"cross_attention": "bidirectional"}, "cross_attention='bidirectional'"),
        ({"refinement_decoder": True}, "refinement_decoder=True"),
        ({"num_key_value_heads": 2}, r"num_key_value_heads=2, .*\(8\)"),
        ({"pad_token_id": None}, "pad_token_id=None"),
    ],
)
def test_what_marian_cannot_be_is_refused_with_the_reason(fields, reason):
    with pytest.raises(ValueError, match=reason):
        fields_to_marian(GenSeq2SeqConfig(**fields))


def test_all_reasons_are_given_at_once():
    config = GenSeq2SeqConfig(norm="rmsnorm", norm_position="pre", use_bias=False)
    with pytest.raises(ValueError, match=r"norm=.*norm_position=.*use_bias="):
        fields_to_marian(config)


def test_the_bias_of_a_head_learns_and_the_loss_is_the_same_in_training_and_evaluation():
    kinds = ("attention", "residual", "embedding", "activation")
    model = make_ours(head_bias=True, **{f"{kind}_dropout": 0.0 for kind in kinds})
    batch, labels = sources(), torch.randint(3, 50, (3, 6))
    evaluated = model(**batch, labels=labels)
    trained = model.train()(**batch, labels=labels)
    assert_close(trained.loss, evaluated.loss)
    trained.loss.backward()
    assert model.lm_head.bias.grad.count_nonzero() > 0
