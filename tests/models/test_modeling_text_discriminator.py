"""The discriminator of texts: what a verdict sees, texts as distributions, round trips."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForSequenceClassification

from hf_genmodels import GenTextDiscriminator, GenTextDiscriminatorConfig

IDS = torch.randint(30, (3, 10), generator=torch.Generator().manual_seed(0))


def discriminator(**options: Any) -> GenTextDiscriminator:
    torch.manual_seed(0)
    sizes = {"vocab_size": 30, "hidden_size": 16, "num_attention_heads": 2}
    model = GenTextDiscriminator(GenTextDiscriminatorConfig(**{**sizes, **options})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
@pytest.mark.parametrize("position", ["rotary", "learned", "sinusoidal"])
def test_a_verdict_sees_the_whole_text_or_its_beginning(attention, position):
    model = discriminator(attention=attention, position_embedding=position)
    other = IDS.clone()
    other[:, -1] = (other[:, -1] + 1) % 30
    changed = (model(IDS).token_logits != model(other).token_logits).any(dim=0)
    assert changed[-1]
    assert changed[:-1].all() == (attention == "bidirectional")
    assert changed[:-1].any() == (attention == "bidirectional")


@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
def test_one_hot_distributions_are_judged_as_ids_and_carry_gradients(attention):
    model = discriminator(attention=attention)
    probs = F.one_hot(IDS[:, 4:], 30).float().requires_grad_()
    expected, found = model(IDS), model(IDS[:, :4], token_probs=probs)
    assert torch.allclose(found.token_logits, expected.token_logits, atol=1e-6)
    found.logits.sum().backward()
    assert probs.grad is not None
    assert probs.grad.abs().amin(dim=2).max() > 0
    alone = model(token_probs=F.one_hot(IDS, 30).float())
    assert torch.allclose(alone.logits, expected.logits, atol=1e-6)


@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
@pytest.mark.parametrize("position", ["rotary", "learned"])
def test_padding_on_either_side_changes_no_verdict(attention, position):
    model = discriminator(attention=attention, position_embedding=position)
    expected = model(IDS).logits
    for left, right in ((3, 0), (0, 3), (2, 1)):
        padded = F.pad(IDS, (left, right), value=7)
        mask = F.pad(torch.ones_like(IDS), (left, right))
        assert torch.allclose(model(padded, attention_mask=mask).logits, expected, atol=1e-5)


def test_the_verdict_on_a_text_is_the_mean_of_those_that_count():
    model = discriminator()
    judged = torch.zeros_like(IDS, dtype=torch.bool)
    judged[:, 6:] = True
    found = model(IDS, judged=judged)
    assert torch.allclose(found.logits[:, 0], found.token_logits[:, 6:].mean(dim=1), atol=1e-6)
    assert found.logits.shape == (3, 1)


def test_labels_give_the_binary_cross_entropy():
    model = discriminator()
    labels = torch.tensor([1, 0, 1])
    found = model(IDS, labels=labels)
    expected = F.binary_cross_entropy_with_logits(found.logits[:, 0], labels.float())
    assert torch.equal(found.loss, expected)


def test_a_saved_discriminator_is_loaded_to_the_bit_by_the_auto_class(tmp_path):
    model = discriminator(attention="causal", norm="rmsnorm", position_embedding="sinusoidal")
    model.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is GenTextDiscriminatorConfig
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(loaded) is GenTextDiscriminator
    assert loaded.config.num_labels == 1
    own = model.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in loaded.state_dict().items())
    # Products of small matrices round by where these lie in memory.
    assert torch.allclose(loaded(IDS).token_logits, model(IDS).token_logits, atol=1e-6)


def test_verdicts_are_fp32_under_bf16():
    model = discriminator()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(IDS).token_logits.dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"attention": "sideways"}, "attention='sideways' is unknown"),
        ({"num_attention_heads": 3}, "does not divide"),
        ({"dropout": 1.0}, "dropout=1.0 must lie"),
        ({"hidden_size": 0}, "hidden_size=0 must be at least 1"),
    ],
)
def test_sizes_that_cannot_be_are_refused(options, words):
    with pytest.raises(Exception, match=words):
        GenTextDiscriminatorConfig(**options)


def test_no_text_and_too_long_a_text_are_refused():
    with pytest.raises(ValueError, match="input_ids, token_probs, or both"):
        discriminator()()
    with pytest.raises(ValueError, match="longer than max_position_embeddings=8"):
        discriminator(position_embedding="learned", max_position_embeddings=8)(IDS)
