import json

import pytest

from hf_genmodels.errors import UserError
from hf_genmodels.metrics.perplexity.scoring import score_texts
from hf_genmodels.training.evaluate import EvaluateOptions, evaluate, main
from tests.hub.conftest import model, published, tokenizer

__all__ = ["model", "published", "tokenizer"]
PARAGRAPHS = [
    f"Paragraph {number} speaks of number {number} and of nothing else." for number in range(9)
]


@pytest.fixture
def text_file(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("\n\n".join(PARAGRAPHS))
    return file


def test_a_text_file_is_one_document(published, model, tokenizer, text_file):
    results = evaluate(EvaluateOptions(str(published), [str(text_file)]))

    assert results == pytest.approx(
        score_texts(model, tokenizer, [text_file.read_text()]).to_dict()
    )


def test_each_paragraph_or_row_is_a_document(published, model, tokenizer, text_file, tmp_path):
    table = tmp_path / "rows.jsonl"
    table.write_text("".join(json.dumps({"id": "n", "story": one}) + "\n" for one in PARAGRAPHS))
    expected = score_texts(model, tokenizer, PARAGRAPHS).to_dict()

    paragraphs = EvaluateOptions(str(published), [str(text_file)], sample_by="paragraph")
    rows = EvaluateOptions(str(published), [str(table)], text_column="story")

    assert evaluate(paragraphs) == pytest.approx(expected)
    assert evaluate(rows) == pytest.approx(expected)


def test_more_context_and_fewer_tokens_on_request(published, text_file):
    plain = evaluate(EvaluateOptions(str(published), [str(text_file)], block_size=16))
    slow = evaluate(EvaluateOptions(str(published), [str(text_file)], block_size=16, stride=1))
    some = evaluate(
        EvaluateOptions(
            str(published), [str(text_file)], block_size=16, batch_size=1, max_tokens=40
        )
    )

    assert slow["num_tokens"] == plain["num_tokens"]
    assert slow["loss"] != plain["loss"]
    assert 40 <= some["num_tokens"] < 60
    assert some["num_bytes"] == some["num_tokens"]  # a byte is a token here


def test_the_command_prints_and_writes_the_results(published, text_file, tmp_path, capsys):
    output = tmp_path / "results.json"

    main(f"{published} --file {text_file} --generate 3 --unit character --output {output}".split())

    out = capsys.readouterr().out
    written = json.loads(output.read_text())
    assert f"perplexity      {written['perplexity']:.2f}" in out
    assert written["num_generated"] == 3
    assert 0 < written["distinct_2"] <= 1
    assert 0 <= written["js_1"] <= 1
    assert written["symmetric_1"] >= written["kl_1"]


def test_generated_texts_depend_on_the_seed_only(published, text_file):
    options = {"file": [str(text_file)], "generate": 2, "unit": "character"}

    first = evaluate(EvaluateOptions(str(published), **options))

    assert evaluate(EvaluateOptions(str(published), **options)) == first
    assert evaluate(EvaluateOptions(str(published), **options, seed=1)) != first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_size": 65}, "context is 64"),
        ({"block_size": 16, "stride": 16}, "less than the window of 16"),
        ({"generate": 1000}, "at most"),
        ({"device": "quantum"}, "--device quantum"),
    ],
)
def test_options_that_do_not_fit_the_model_or_the_text(published, text_file, options, message):
    with pytest.raises(UserError, match=message):
        evaluate(EvaluateOptions(str(published), [str(text_file)], **options))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give --file"),
        (["--file", "missing.txt"], "missing.txt"),
        (["--fil", "x.txt"], "Did you mean '--file'"),
        (["--file", "x.txt", "--stride", "0"], "--stride is 0"),
        (["--file", "x.txt", "--num_beams", "2"], "--num_beams has no meaning here"),
        (["--source_file", "x.txt"], "Give the text with --file"),
        (["--file", "x.txt", "--unit", "syllable"], "--unit"),
        (["--file", "x.txt", "--output", "/no-such-folder/r.json"], "there is no folder"),
    ],
)
def test_mistakes_on_the_command_line(published, arguments, message):
    with pytest.raises(UserError, match=message):
        main([str(published), *arguments])


def test_text_without_anything_to_score_is_refused(published, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": ""}\n{"text": " "}\n')

    with pytest.raises(UserError):
        evaluate(EvaluateOptions(str(tmp_path), [str(tmp_path / "rows.jsonl")]))
