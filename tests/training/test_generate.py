import json

import pytest
import torch

from hf_genmodels.errors import UserError
from hf_genmodels.hub.loading import load_model
from hf_genmodels.inference.language_texts import encode_prompt
from hf_genmodels.training.generate import GenerateOptions, generate, main
from tests.hub.conftest import model, published, tokenizer

__all__ = ["model", "published", "tokenizer"]


def texts(published, *prompts, **options):
    return list(generate(GenerateOptions(str(published), list(prompts), **options)))


def test_the_command_of_the_readme_prints_three_samples(published, capsys):
    main(
        f"{published} Hello --num_return_sequences 3 --top_k 50 --top_p 0.95 --temperature 0.8 "
        "--seed 1".split()
    )

    out = capsys.readouterr().out
    assert out.count("Hello") == 3
    assert [line for line in out.splitlines() if "---" in line] == ["--- 1", "--- 2", "--- 3"]


def test_the_same_seed_gives_the_same_texts_and_another_does_not(published):
    first = texts(published, "Hi", seed=1)

    assert texts(published, "Hi", seed=1) == first
    assert texts(published, "Hi", seed=2) != first


def test_greedy_takes_the_likeliest_token_every_time(published, tokenizer):
    model = load_model(published)
    ids = torch.tensor([tokenizer("Hi")["input_ids"]])
    for _ in range(5):
        with torch.no_grad():
            following = model(ids).logits[0, -1].argmax()
        ids = torch.cat([ids, following.view(1, 1)], dim=1)

    (text,) = texts(published, "Hi", greedy=True, max_new_tokens=5)

    assert text.continuation == tokenizer.decode(ids[0, 2:], skip_special_tokens=True)


def test_int8_writes_on_the_cpu_only(published):
    (text,) = texts(published, "Hi", int8=True, greedy=True, max_new_tokens=4)
    assert 0 < text.num_tokens <= 4

    with pytest.raises(UserError, match="not on --device cuda"):
        texts(published, "Hi", int8=True, device="cuda")


def test_beams_return_as_many_texts_as_asked_for(published):
    assert len(texts(published, "Hi", num_beams=3, num_return_sequences=2, max_new_tokens=4)) == 2


@pytest.mark.parametrize("prompts", [[], [""]])
def test_no_prompt_starts_a_new_text(published, prompts):
    (text,) = texts(published, *prompts, seed=0)

    assert text.prompt == ""
    assert text.num_tokens > 0


def test_an_empty_prompt_is_the_token_that_begins_a_text(model, tokenizer):
    assert encode_prompt(model, tokenizer, "").tolist() == [[tokenizer.bos_token_id]]


def test_texts_stay_within_the_context(published, capsys):
    (text,) = texts(published, "x" * 60, max_new_tokens=100, greedy=True)

    assert text.num_tokens <= 4
    assert "room for 4 new tokens" in capsys.readouterr().err


def test_a_prompt_that_fills_the_context_is_refused(published):
    with pytest.raises(UserError, match=r"64 tokens, and the model's context holds 64"):
        texts(published, "x" * 64)


def test_prompts_from_a_file_become_json_lines(published, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("One\n\nTwo  \n")

    main(
        f"{published} --file {tmp_path}/prompts.txt --num_return_sequences 2 "
        f"--output {tmp_path}/out.jsonl".split()
    )

    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["prompt"] for line in lines] == ["One", "One", "Two  ", "Two  "]
    assert all(line["text"] == line["prompt"] + line["continuation"] for line in lines)
    assert "4 texts" in capsys.readouterr().out


def test_a_file_that_cannot_be_used_is_refused(published, tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    for name, message in (
        ("missing.txt", "cannot be read"),
        ("empty.txt", "holds no prompt"),
        ("binary.txt", "cannot be read"),
    ):
        with pytest.raises(UserError, match=message):
            texts(published, file=str(tmp_path / name))
    with pytest.raises(UserError, match="not both"):
        GenerateOptions("x", ["prompt"], file="prompts.txt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "--greedy"),
        ({"top_p": 1.5}, r"--top_p is 1\.5"),
        ({"min_p": 0.0}, "--min_p"),
        ({"top_k": -1}, "--top_k"),
        ({"num_return_sequences": 0}, "--num_return_sequences"),
        ({"greedy": True, "num_return_sequences": 2}, "only 1 different"),
        ({"num_beams": 2, "num_return_sequences": 3}, "only 2 different"),
        ({"greedy": True, "temperature": 0.5}, "--temperature has no meaning"),
    ],
)
def test_values_that_cannot_work_are_refused_before_loading(options, message):
    with pytest.raises(UserError, match=message):
        GenerateOptions("no-such-folder", ["x"], **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x", "--temprature", "1"], "Did you mean '--temperature'"),
        (["x", "--top_p", "abc"], "--top_p is 'abc'. It must be a number"),
        ([], "model"),
        (["./no-such-folder", "x"], "There is no folder"),
        (["x", "y", "--output", "/no-such-folder/out.jsonl"], "there is no folder"),
    ],
)
def test_mistakes_on_the_command_line(arguments, message):
    with pytest.raises(UserError, match=message):
        main(arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_best": 2}, r"--n_best has no meaning here.*language model.*--num_return_sequences"),
        ({"source_lang": "en"}, "--source_lang has no meaning here"),
        ({"attention": "map.png"}, "--attention has no meaning here"),
    ],
)
def test_options_of_sequence_to_sequence_models_are_refused(published, options, message):
    with pytest.raises(UserError, match=message):
        texts(published, "x", **options)


def test_an_impossible_device_is_one_clear_error(published):
    with pytest.raises(UserError, match="--device quantum"):
        texts(published, "x", device="quantum")


def test_no_file_is_touched_when_nothing_can_be_generated(tmp_path):
    (tmp_path / "out.jsonl").write_text("old")

    with pytest.raises(UserError):
        main([str(tmp_path / "missing"), "x", "--output", str(tmp_path / "out.jsonl")])

    assert (tmp_path / "out.jsonl").read_text() == "old"
