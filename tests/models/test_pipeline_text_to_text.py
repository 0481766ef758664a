"""The text-to-text pipeline: what it gives, in which order, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerFast, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from hf_genmodels.hub.folder import publish_folder
from hf_genmodels.models.decoding import decode
from hf_genmodels.models.pipeline_text_to_text import TextToTextPipeline
from tests.hub.conftest import byte_tokenizer
from tests.models import transformer
from tests.models.conftest import randomise

TEXTS = ["to be", "a much longer text than that", "x", "or not"]


def make_folder(folder: Path, tokenizer: PreTrainedTokenizerFast, **fields: Any) -> Path:
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    ids = {name: getattr(tokenizer, name) for name in names}
    model = transformer.make_model(vocab_size=len(tokenizer), **ids, **fields)
    randomise(model, std=0.4)
    target = tokenizer if "source_vocab_size" in fields else None
    return publish_folder(model, tokenizer, folder, target_tokenizer=target)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return byte_tokenizer()


@pytest.fixture(scope="module")
def folder(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("one") / "toy", tokenizer)


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Any:
    return pipeline("text-to-text", model=str(folder), device="cpu", max_new_tokens=6)


def test_the_registered_class_runs_without_trusting_code(pipe: Any) -> None:
    assert type(pipe) is TextToTextPipeline


def test_one_text_and_many_give_the_same_in_order(pipe: Any) -> None:
    many = pipe(TEXTS)

    assert len(many) == len(TEXTS)
    for text, results in zip(TEXTS, many, strict=True):
        [alone] = pipe(text)
        [result] = results
        assert result["generated_text"] == alone["generated_text"]
        assert result["score"] == pytest.approx(alone["score"], abs=1e-3)


def test_generators_and_datasets_are_streamed(pipe: Any) -> None:
    expected = [results[0]["generated_text"] for results in pipe(TEXTS)]

    for inputs in ((text for text in TEXTS), KeyDataset([{"text": t} for t in TEXTS], "text")):
        results = pipe(inputs)
        assert not isinstance(results, list)
        assert [best[0]["generated_text"] for best in results] == expected
    assert pipe([]) == []


def test_it_decodes_what_the_tokenizer_gives(pipe: Any) -> None:
    ids = [*pipe.tokenizer("to be")["input_ids"], pipe.tokenizer.eos_token_id]

    [best] = decode(pipe.model, [ids], max_new_tokens=6)[0]

    expected = pipe.tokenizer.decode(best.ids, skip_special_tokens=True)
    assert pipe("to be")[0]["generated_text"] == expected


def test_n_best_come_with_falling_scores(pipe: Any) -> None:
    results = pipe("to be", num_beams=5, num_return_sequences=5)

    scores = [result["score"] for result in results]
    assert len(results) == 5
    assert scores == sorted(scores, reverse=True)


def test_attention_comes_with_the_pieces_it_is_between(pipe: Any) -> None:
    [result] = pipe("to be", return_attention=True)

    size = (len(result["tokens"]), len(result["source_tokens"]))
    assert result["attention"].shape == size
    assert "".join(result["source_tokens"]).startswith("to be")


def test_separate_vocabularies_have_their_own_tokenizer(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / "two", tokenizer, source_vocab_size=len(tokenizer))

    pipe = pipeline("text-to-text", model=str(folder), device="cpu")

    assert pipe.target_tokenizer is not pipe.tokenizer
    text = pipe("to be", max_new_tokens=3)[0]["generated_text"]
    pipe.save_pretrained(tmp_path / "saved")
    again = pipeline("text-to-text", model=str(tmp_path / "saved"), device="cpu")
    assert again("to be", max_new_tokens=3)[0]["generated_text"] == text


def test_int8_in_one_word(folder: Path) -> None:
    pipe = pipeline("text-to-text", model=str(folder), device="cpu", int8=True)

    assert pipe.model.is_int8
    assert len(pipe(TEXTS, max_new_tokens=4)) == len(TEXTS)


@pytest.mark.parametrize("texts", ["", "  \n", ["to be", ""]])
def test_empty_input_is_refused_with_its_number(pipe: Any, texts: Any) -> None:
    with pytest.raises(ValueError, match=r"Input \d is empty"):
        pipe(texts)


def test_other_things_than_texts_are_refused(pipe: Any) -> None:
    with pytest.raises(ValueError, match="Input 1 is a int"):
        pipe(["to be", 7])
    with pytest.raises(ValueError, match="batch_tokens"):
        pipe("to be", batch_size=4)
    with pytest.raises(ValueError, match="num_beam: GenerationConfig has no such field"):
        pipe("to be", num_beam=4)


def test_long_texts_are_cut_with_a_warning_or_refused(pipe: Any) -> None:
    with pytest.warns(UserWarning, match="1 of 1 sources have more than the 32 tokens"):
        pipe("x" * 50)
    with pytest.raises(ValueError, match="Source 0 has 51 tokens, and the model reads 32"):
        pipe("x" * 50, overlong="error")


def test_a_tokenizer_of_another_checkpoint_is_refused(
    folder: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    larger = byte_tokenizer()
    larger.add_tokens(["one more"])
    with pytest.raises(ValueError, match=f"has {len(tokenizer) + 1} tokens, and the model knows"):
        TextToTextPipeline(model=model, tokenizer=larger, device="cpu")
    model.config.eos_token_id = 3
    with pytest.raises(ValueError, match="ends texts with token"):
        TextToTextPipeline(model=model, tokenizer=tokenizer, device="cpu")


def test_saving_the_pipeline_keeps_it_whole(pipe: Any, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)

    again = pipeline("text-to-text", model=str(tmp_path), device="cpu", max_new_tokens=6)
    assert again("to be")[0]["generated_text"] == pipe("to be")[0]["generated_text"]
    assert (tmp_path / "pipeline_text_to_text.py").is_file()
    assert torch.equal(again.model.lm_head.weight, pipe.model.lm_head.weight)
