"""Texts that a model writes while it is trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hf_genmodels import GenGPTConfig, GenGPTForCausalLM
from hf_genmodels.engine import text_writing
from hf_genmodels.engine.text_writing import (
    Beginnings,
    beginnings_of,
    kept_until,
    logits_behind,
    write,
)

EOS, LENGTH = 0, 5


def writer(**options: Any) -> GenGPTForCausalLM:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": 12, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 16, "eos_token_id": EOS, "bos_token_id": EOS,
    }  # fmt: skip
    model = GenGPTForCausalLM(GenGPTConfig(**{**sizes, **options})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def beginnings(rows: int = 3, size: int = 4) -> Beginnings:
    ids = torch.randint(1, 12, (rows, size + LENGTH), generator=torch.Generator().manual_seed(1))
    return beginnings_of({"input_ids": ids}, size, LENGTH, EOS)


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("position", ["rotary", "learned"])
@pytest.mark.parametrize("values", [0, 1])
def test_relaxed_and_plain_texts_are_the_same_and_one_hot(position: str, values: int):
    model = writer(position_embedding=position, num_value_embeddings=values)
    start = beginnings()
    plain = write(model, start, LENGTH, random())
    relaxed = write(model, start, LENGTH, random(), relaxation=0.7)
    assert torch.equal(plain.ids, relaxed.ids)
    assert relaxed.probs is not None
    one_hot = torch.nn.functional.one_hot(plain.ids, 12).float()
    assert torch.allclose(relaxed.probs, one_hot, atol=1e-6)
    assert relaxed.logits is not None
    again = logits_behind(model, start, plain)
    assert torch.allclose(relaxed.logits, again, atol=1e-4)
    assert plain.logits is None


def test_gradients_flow_through_a_token_into_what_is_written_behind_it(
    monkeypatch: pytest.MonkeyPatch,
):
    tokens: list[torch.Tensor] = []
    plain = text_writing._straight_through

    def remembered(*arguments: Any) -> torch.Tensor:
        tokens.append(plain(*arguments))
        return tokens[-1]

    monkeypatch.setattr(text_writing, "_straight_through", remembered)
    write(writer(), beginnings(), LENGTH, random(), relaxation=1.0)
    weight = torch.randn(12, generator=random(5))
    (gradient,) = torch.autograd.grad((tokens[-1] @ weight).sum(), tokens[0])
    assert gradient.abs().sum() > 0


def test_tokens_are_drawn_with_the_models_probabilities():
    model = writer()
    start = beginnings(rows=1)
    many = Beginnings(*(part.repeat(4000, 1) for part in vars(start).values()))
    for temperature in (1.0, 0.5):
        ids = write(model, many, 1, random(), temperature=temperature).ids
        share = torch.bincount(ids[:, 0], minlength=12) / 4000
        logits = model(start.ids).logits[0, -1]
        expected = (logits / temperature).softmax(-1)
        assert (share - expected).abs().max() < 0.03


def test_noise_of_its_own_for_each_text_makes_it_independent_of_the_others():
    model, start = writer(), beginnings()
    whole = write(model, start, LENGTH, [random(seed) for seed in range(3)])
    last = Beginnings(*(part[2:] for part in vars(start).values()))
    assert torch.equal(write(model, last, LENGTH, [random(2)]).ids, whole.ids[2:])


def test_a_document_that_ends_in_the_beginning_is_not_seen():
    model = writer(position_embedding="learned")
    ids = torch.randint(1, 12, (2, 4 + LENGTH), generator=random(3))
    positions = torch.arange(4 + LENGTH).repeat(2, 1)
    positions[1] = torch.tensor([5, 6, 0, 1, 2, 3, 4, 5, 6])
    start = beginnings_of({"input_ids": ids, "position_ids": positions}, 4, LENGTH, EOS)
    assert start.mask.tolist() == [[True] * 4, [False, False, True, True]]
    alone = beginnings_of({"input_ids": ids[1:, 2:]}, 2, LENGTH, EOS)
    generators = [random(0), random(1)]
    written = write(model, start, LENGTH, generators)
    assert torch.equal(write(model, alone, LENGTH, [random(1)]).ids, written.ids[1:])


def test_what_follows_an_end_of_text_does_not_count():
    ids = torch.tensor([[3, EOS, 4, EOS, 5], [1, 2, 3, 4, 5], [EOS, 1, 2, 3, 4]])
    assert kept_until(ids, EOS).sum(dim=1).tolist() == [2, 5, 1]
