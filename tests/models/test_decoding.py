"""`decode` finds what `generate` finds, for every family, whatever the batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GenerationConfig, MarianConfig, MarianMTModel

from hf_genmodels.models import decoding, search
from hf_genmodels.models.decoding import batches_by_tokens, decode
from tests.models import recurrent, transformer
from tests.models.conftest import randomise

SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "two beams": {"num_beams": 2},
    "n-best": {"num_beams": 5, "num_return_sequences": 5},
    "no length penalty": {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 0.0},
    "early": {"num_beams": 4, "num_return_sequences": 4, "early_stopping": True},
    "never early": {"num_beams": 3, "num_return_sequences": 3, "early_stopping": "never"},
    "short preferred": {"num_beams": 3, "length_penalty": -1.0, "early_stopping": "never"},
    "three ends": {"num_beams": 4, "num_return_sequences": 4, "eos_token_id": [2, 5, 7]},
}


def make_sources(count: int = 8) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 15, (count,), generator=generator).tolist()
    return [[*torch.randint(3, 29, (n,), generator=generator).tolist(), 2] for n in lengths]


def generated(model: Any, source: list[int], **settings: Any) -> tuple[list[list[int]], Any]:
    """Return what `generate` makes of one source alone, and its scores."""
    ids = torch.tensor([source])
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        return_dict_in_generate=True,
        output_scores=True,
        **settings,
    )
    ends = settings.get("eos_token_id", [2])
    texts = []
    for row in output.sequences[:, 1:].tolist():
        places = [row.index(end) for end in ends if end in row]
        texts.append(row[: min(places)] if places else row)
    return texts, output.get("sequences_scores")


def marian() -> MarianMTModel:
    torch.manual_seed(0)
    config = MarianConfig(
        vocab_size=41,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=32,
        pad_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=0,
    )
    model = MarianMTModel(config)
    randomise(model, std=0.6)
    model.generation_config = GenerationConfig(
        pad_token_id=0, eos_token_id=2, decoder_start_token_id=0
    )
    return ending(model.eval())


def make_transformer(variant: str = "vaswani") -> Any:
    model = transformer.make_model(**transformer.VARIANTS[variant])
    randomise(model, std=0.6)
    return model


def ending(model: Any) -> Any:
    """Make the end so likely that results have several lengths."""
    head = model.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.zeros(head.weight.shape[0]))
    for bias in torch.arange(0.0, 60.0, 1.5):
        head.bias.data[2] = bias
        found = [generated(model, source, max_new_tokens=10)[0][0] for source in make_sources()]
        if len({len(ids) for ids in found}) > 2:
            return model
    raise AssertionError("No end makes lengths differ.")


MODELS = {
    "marian": marian,
    "transformer": lambda: ending(make_transformer()),
    "modern": lambda: ending(make_transformer("modern")),
    "bidirectional": lambda: ending(make_transformer("bidirectional")),
    "lstm": lambda: ending(recurrent.make_model(**recurrent.VARIANTS["lstm additive feeding"])),
    "gru": lambda: ending(recurrent.make_model(**recurrent.VARIANTS["gru none"])),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    return MODELS[request.param]()


@pytest.fixture(scope="module")
def translator() -> Any:
    return MODELS["transformer"]()


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_tokens_and_scores_are_those_of_generate(model: Any, settings: dict[str, Any]) -> None:
    sources = make_sources()

    found = decode(model, sources, max_new_tokens=10, batch_tokens=150, **settings)

    lengths = set()
    for source, hypotheses in zip(sources, found, strict=True):
        texts, scores = generated(model, source, max_new_tokens=10, **settings)
        assert [hypothesis.ids for hypothesis in hypotheses] == texts
        if scores is not None:
            mine = torch.tensor([hypothesis.score for hypothesis in hypotheses])
            torch.testing.assert_close(mine, scores, atol=1e-4, rtol=1e-4)
        lengths |= {len(text) for text in texts}
    assert len(lengths) > 1  # rows end at different steps


def test_the_search_here_is_what_decodes_and_not_generate(
    translator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "_generate", None)

    decode(translator, make_sources(3), num_beams=3, max_new_tokens=5)
    decode(translator, make_sources(3), max_new_tokens=5, temperature=0.5, repetition_penalty=1.0)
    with pytest.raises(TypeError):
        decode(translator, make_sources(3), max_new_tokens=5, repetition_penalty=1.5)


@pytest.mark.parametrize(
    "settings",
    [
        {"no_repeat_ngram_size": 2, "num_beams": 3, "num_return_sequences": 2},
        {"repetition_penalty": 1.8},
        {"min_new_tokens": 6},
        {"num_beams": 2, "bad_words_ids": [[5], [7]]},
    ],
)
def test_other_settings_are_followed_too(translator: Any, settings: dict[str, Any]) -> None:
    sources = make_sources(6)

    found = decode(translator, sources, max_new_tokens=10, **settings)

    for source, hypotheses in zip(sources, found, strict=True):
        texts, _ = generated(translator, source, max_new_tokens=10, **settings)
        assert [hypothesis.ids for hypothesis in hypotheses] == texts


def rescored(model: Any, source: list[int], ids: list[int], has_end: bool) -> float:
    labels = torch.tensor([[*ids, 2] if has_end else ids])
    logits = model(torch.tensor([source]), labels=labels).logits
    log_probs = logits.log_softmax(-1).gather(-1, labels[..., None])
    return log_probs.mean().item()


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}, {"do_sample": True, "top_k": 10}])
@torch.no_grad()
def test_a_score_is_the_mean_log_probability(model: Any, settings: dict[str, Any]) -> None:
    if isinstance(model, MarianMTModel):
        pytest.skip("its labels are shifted by another start")
    sources = make_sources(5)
    for source, [best] in zip(
        sources,
        decode(model, sources, max_new_tokens=12, return_scores=True, **settings),
        strict=True,
    ):
        expected = rescored(model, source, best.ids, has_end=len(best.ids) < 12)
        assert best.score == pytest.approx(expected, abs=2e-3)


def test_greedy_search_computes_scores_only_if_asked_for(translator: Any) -> None:
    assert decode(translator, make_sources(1), max_new_tokens=3)[0][0].score is None
    assert decode(translator, make_sources(1), max_new_tokens=3, num_beams=2)[0][0].score < 0


def test_drawing_gives_as_many_texts_as_asked_for(translator: Any) -> None:
    found = decode(
        translator, make_sources(3), do_sample=True, num_return_sequences=4, max_new_tokens=8
    )

    assert [len(hypotheses) for hypotheses in found] == [4, 4, 4]
    assert len({tuple(hypothesis.ids) for hypothesis in found[0]}) > 1


def test_attention_is_that_of_the_last_layer_over_the_source(model: Any) -> None:
    if model.config.to_dict().get("attention") == "none":
        pytest.skip("there is no attention in it")
    sources = make_sources(4)
    found = decode(
        model,
        sources,
        num_beams=3,
        num_return_sequences=2,
        max_new_tokens=9,
        return_attention=True,
    )

    for source, hypotheses in zip(sources, found, strict=True):
        for hypothesis in hypotheses:
            attention = hypothesis.attention
            assert attention is not None
            assert attention.shape == (len(hypothesis.ids), len(source))
            torch.testing.assert_close(attention.sum(-1), torch.ones(len(hypothesis.ids)))


def test_a_model_computes_as_before_after_its_attention_was_read(translator: Any) -> None:
    implementation = translator.config._attn_implementation

    decode(translator, make_sources(1), max_new_tokens=3, return_attention=True)

    assert translator.config._attn_implementation == implementation


def test_a_model_without_attention_says_so() -> None:
    model = MODELS["gru"]()
    with pytest.raises(ValueError, match="no cross-attention"):
        decode(model, make_sources(1), max_new_tokens=3, return_attention=True)


def test_int8_models_decode_as_they_generate() -> None:
    model = transformer.make_model().quantize_int8()
    sources = make_sources(4)

    found = decode(model, sources, batch_tokens=1, num_beams=3, max_new_tokens=8)

    for source, [best] in zip(sources, found, strict=True):
        texts, _ = generated(model, source, num_beams=3, max_new_tokens=8)
        # Activations of a batch share one scale: beams that are not computed change the rounding.
        assert len(best.ids) <= 8
        assert best.ids[:1] == texts[0][:1]


def test_a_refinement_model_is_left_to_its_generate() -> None:
    model = transformer.make_model(refinement_decoder=True)
    sources = make_sources(3)

    found = decode(model, sources, max_new_tokens=6)

    for source, [best] in zip(sources, found, strict=True):
        assert [best.ids] == generated(model, source, max_new_tokens=6)[0]


def test_a_finished_row_leaves_the_batch(translator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    step = search.DecoderSteps.step

    def counted(self: Any, tokens: torch.Tensor) -> torch.Tensor:
        rows.append(len(tokens))
        return step(self, tokens)

    monkeypatch.setattr(search.DecoderSteps, "step", counted)
    for beams in (1, 3):
        rows.clear()
        found = decode(translator, make_sources(), num_beams=beams, max_new_tokens=10)
        assert len({len(best.ids) for [best] in found}) > 2
        assert rows[-1] < max(rows)
        assert max(rows) == 8 * beams


def test_batches_are_sorted_and_within_the_budget() -> None:
    lengths = [3, 9, 1, 9, 30, 2, 2]

    batches = list(batches_by_tokens(lengths, 18))

    assert sorted(index for batch in batches for index in batch) == list(range(7))
    assert [lengths[index] for batch in batches for index in batch] == sorted(lengths)[::-1]
    assert batches[0] == [4]  # too long for any batch
    assert all(len(b) * lengths[b[0]] <= 18 for b in batches[1:])


def test_progress_counts_sources(translator: Any) -> None:
    counts: list[int] = []

    decode(translator, make_sources(), batch_tokens=40, max_new_tokens=2, progress=counts.append)

    assert counts == sorted(counts)
    assert counts[-1] == 8
    assert len(counts) > 2


def test_long_sources_are_cut_with_a_warning_or_refused(translator: Any) -> None:
    long = [*range(3, 29), *range(3, 29), 2]

    with pytest.warns(UserWarning, match="1 of 2 sources have more than the 32 tokens"):
        found = decode(translator, [[5, 2], long], max_new_tokens=5)
    assert found[1] == decode(translator, [[*long[:31], 2]], max_new_tokens=5)[0]
    with pytest.raises(ValueError, match=r'Source 1 has 53 tokens.*overlong="truncate"'):
        decode(translator, [[5, 2], long], overlong="error")
    with pytest.raises(ValueError, match="overlong='cut' is unknown"):
        decode(translator, [[5, 2]], overlong="cut")


def test_sources_of_a_smaller_vocabulary_than_the_targets_are_padded_within_it() -> None:
    model = make_transformer("modern")
    assert model.config.source_vocab_size == 29
    settings = {"pad_token_id": 40, "max_new_tokens": 5}

    found = decode(model, [[4, 5, 2], [3, 2]], **settings)

    assert [best.ids for (best,) in found] == [
        decode(model, [source], **settings)[0][0].ids for source in ([4, 5, 2], [3, 2])
    ]


def test_no_sources_give_no_results(translator: Any) -> None:
    assert decode(translator, []) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beam": 3}, "num_beam: GenerationConfig has no such field"),
        ({"num_return_sequences": 3}, "num_return_sequences"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences"),
        ({"max_length": 1}, "max_new_tokens=0 must be at least 1"),
    ],
)
def test_settings_that_cannot_be(translator: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode(translator, [[5, 2]], **settings)


def test_an_empty_source_is_named(translator: Any) -> None:
    with pytest.raises(ValueError, match="Source 1 has no tokens"):
        decode(translator, [[5, 2], []])


def test_max_length_counts_the_start_as_generate_does(translator: Any) -> None:
    [[best]] = decode(translator, [[5, 6, 2]], max_length=4, eos_token_id=40)
    assert len(best.ids) == 3
    [[best]] = decode(translator, [[5, 6, 2]], max_new_tokens=999, eos_token_id=40)
    assert len(best.ids) == 32  # the model has no more positions
