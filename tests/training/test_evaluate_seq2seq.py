"""`genmodels evaluate` with a sequence-to-sequence model."""

import json
import math

import pytest
import torch

from hf_genmodels.errors import UserError
from hf_genmodels.inference import seq2seq_scores
from hf_genmodels.inference.seq2seq_texts import rewrite
from hf_genmodels.inference.text_to_text import load_text_to_text
from hf_genmodels.metrics.rouge_l.common_subsequence import mean_rouge_l
from hf_genmodels.metrics.translation import corpus_scores
from hf_genmodels.training.evaluate import EvaluateOptions, evaluate, main
from hf_genmodels.training.generate import GenerateOptions
from tests import runs

PAIRS = [
    ("The river.", "El río."),
    ("Anna  ran", "Ana  corrió, y no volvió."),
    ("", "Nada"),
    ("Yes", "Sí, éste es un texto más largo que treinta y dos."),
    ("x" * 40, "equis"),
    ("It was late", ""),
    ("Was it?", "¿Lo era?"),
]
KEPT = [pair for pair in PAIRS if all(pair)]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "test.jsonl"
    rows = [{"source": source, "target": target} for source, target in PAIRS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def loss_by_hand(translator, pairs):
    """Sum the loss of each target, one by one, in probabilities, and count the tokens."""
    system = load_text_to_text(str(translator))
    total, count = 0.0, 0
    for source, target in pairs:
        ids = system.encode_targets([target]).ids[0]
        begun = [system.model.config.decoder_start_token_id, *ids[:-1]]
        with torch.no_grad():
            logits = system.model(
                torch.tensor(system.encode_sources([source]).ids),
                decoder_input_ids=torch.tensor([begun]),
            ).logits
        probabilities = logits[0].softmax(dim=-1)
        total -= sum(math.log(probabilities[place, token]) for place, token in enumerate(ids))
        count += len(ids)
    return total, count


def test_loss_and_scores_are_those_of_the_whole_texts(translator, table):
    results = evaluate(EvaluateOptions(str(translator), [str(table)]))

    total, count = loss_by_hand(translator, KEPT)
    assert results["loss"] == pytest.approx(total / count, rel=1e-4)
    assert results["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-4)
    assert results["num_tokens"] == count
    sources = [source for source, _ in KEPT]
    outputs = [r.outputs[0] for r in rewrite(GenerateOptions(str(translator), sources))]
    expected = corpus_scores(outputs, [target for _, target in KEPT])
    for name in expected.keys() - {"num_sentences"}:
        assert results[name] == expected[name]
    assert (results["num_pairs"], results["num_empty"]) == (5, 2)
    assert (results["num_cut_sources"], results["num_cut_targets"]) == (1, 1)


def test_intervals_lie_around_what_they_belong_to(translator, table):
    results = evaluate(EvaluateOptions(str(translator), [str(table)], metrics=["chrf", "rouge_l"]))

    assert "bleu" not in results
    for name in ("loss", "perplexity", "chrf", "rouge_l"):
        assert results[f"{name}_low"] <= results[name] <= results[f"{name}_high"]
    assert results["loss_low"] < results["loss_high"]


def test_label_smoothing_of_the_training_does_not_count(table, tmp_path):
    plain = runs.random_translator(tmp_path / "plain", label_smoothing=0.0)
    smoothed = runs.random_translator(tmp_path / "smoothed", label_smoothing=0.3)

    first, second = (
        evaluate(EvaluateOptions(str(folder), [str(table)], metrics=["chrf"]))
        for folder in (plain, smoothed)
    )

    assert first["loss"] == second["loss"]


def test_other_metrics_on_request(translator, table):
    results = evaluate(
        EvaluateOptions(
            str(translator), [str(table)], metrics=["rouge_l", "distinct_n"], unit="character"
        )
    )

    sources = [source for source, _ in KEPT]
    outputs = [r.outputs[0] for r in rewrite(GenerateOptions(str(translator), sources))]
    expected = mean_rouge_l(outputs, [target for _, target in KEPT], "character", 1.0)
    assert results["rouge_l"] == pytest.approx(expected["rouge_l"])
    assert 0 < results["distinct_1"] <= 1
    assert 0 < results["real_distinct_1"] <= 1
    assert "bleu" not in results
    assert "chrf_signature" not in results


def test_many_chunks_give_what_one_gives(translator, table, monkeypatch):
    options = EvaluateOptions(str(translator), [str(table)], num_beams=2)
    whole = evaluate(options)
    monkeypatch.setattr(seq2seq_scores, "CHUNK", 2)

    assert evaluate(options) == pytest.approx(whole)


def test_the_first_pairs_on_request(translator, table):
    some = evaluate(EvaluateOptions(str(translator), [str(table)], max_pairs=3))

    assert (some["num_pairs"], some["num_empty"]) == (2, 1)


def test_parallel_files_give_what_a_table_gives(translator, table, tmp_path):
    for side in (0, 1):
        lines = "".join(f"{pair[side]}\n" for pair in PAIRS)
        (tmp_path / f"test.{side}.txt").write_text(lines)

    results = evaluate(
        EvaluateOptions(
            str(translator),
            source_file=[str(tmp_path / "test.0.txt")],
            target_file=[str(tmp_path / "test.1.txt")],
        )
    )

    assert results == evaluate(EvaluateOptions(str(translator), [str(table)]))


def test_languages_are_those_of_the_run(table, tmp_path):
    folder = runs.random_translator(tmp_path / "run")
    (folder / "config.yaml").write_text("source_lang: en\ntarget_lang: es\nsplit_at: 0.5\n")
    rows = [{"translation": {"es": target, "en": source}} for source, target in PAIRS]
    (tmp_path / "languages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    languages = [str(tmp_path / "languages.jsonl")]

    forth = evaluate(EvaluateOptions(str(folder), languages))
    back = evaluate(EvaluateOptions(str(folder), languages, source_lang="es", target_lang="en"))

    assert forth == evaluate(EvaluateOptions(str(folder), [str(table)]))  # has other columns
    assert forth["loss"] != back["loss"]


def test_the_command_prints_and_writes_the_results(translator, table, tmp_path, capsys):
    output = tmp_path / "results.json"
    main(
        f"{translator} --file {table} --metrics bleu chrf rouge_l distinct_n --bleu_tokenizer char "
        f"--num_beams 2 --int8 --output {output}".split()
    )

    out = capsys.readouterr().out
    written = json.loads(output.read_text())
    for line in (
        f"perplexity      {written['perplexity']:.2f}   (95 %: ",
        f"BLEU            {written['bleu']:.2f}   (95 %: {written['bleu_low']:.2f} to ",
        written["bleu_signature"],
        "tok:char",
        written["chrf_signature"],
        f"ROUGE-L         {written['rouge_l']:.4f}",
        f"distinct 1-4    {written['distinct_1']:.3f}",
        f"measured        5 pairs, {written['num_tokens']} target tokens",
        "left out        2 pairs with an empty side",
        "cut             1 sources and, for the loss, 1 targets, to 32 tokens",
    ):
        assert line in out
    assert written["model"] == str(translator)
    assert written["text"] == [str(table)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give --file"),
        (["--file", "missing.jsonl"], "missing.jsonl"),
        (["--file", "plain.txt"], "one side only"),
        (["--file", "test.jsonl", "--source_lang", "en"], "without --target_lang"),
        (["--file", "languages.jsonl"], "Languages: en, es"),
        (["--file", "languages.jsonl", "--source_lang", "en", "--target_lang", "fr"], "en, es"),
        (["--file", "test.jsonl", "--source_column", "a", "--target_column", "b"], "no column 'a'"),
        (["--source_file", "plain.txt"], "with --target_file, or give a table of both with --file"),
        (["--source_file", "plain.txt", "--target_file", "two.txt"], "1 lines and 'two.txt' has 2"),
        (["--file", "empty.jsonl"], "all 2 pairs have an empty side"),
        (["--file", "test.jsonl", "--overlong", "error"], "source 5 has 41 tokens"),
        (["--file", "test.jsonl", "--metrics", "blue"], "Did you mean 'bleu'"),
        (["--file", "test.jsonl", "--bleu_tokenizer", "13b"], "no BLEU tokenizer '13b'"),
        (["--file", "test.jsonl", "--num_beams", "0"], "--num_beams is 0"),
        (["--file", "test.jsonl", "--stride", "4"], "--stride has no meaning here"),
        (["--file", "test.jsonl", "--generate", "4"], "--max_pairs"),
        (["--file", "test.jsonl", "--device", "quantum"], "--device quantum"),
    ],
)
def test_mistakes_are_one_clear_error(translator, table, monkeypatch, arguments, message):
    monkeypatch.chdir(table.parent)
    (table.parent / "plain.txt").write_text("a line\n")
    (table.parent / "two.txt").write_text("a line\nand another\n")
    (table.parent / "languages.jsonl").write_text('{"translation": {"en": "a", "es": "b"}}\n')
    (table.parent / "empty.jsonl").write_text('{"source": "a", "target": ""}\n' * 2)
    with pytest.raises(UserError, match=message):
        main([str(translator), *arguments])
