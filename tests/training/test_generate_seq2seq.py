"""`genmodels generate` with a sequence-to-sequence model."""

import json
import shutil
import signal
import struct

import pytest

from hf_genmodels.errors import UserError
from hf_genmodels.inference import seq2seq_texts
from hf_genmodels.inference.seq2seq_texts import rewrite
from hf_genmodels.inference.text_to_text import load_text_to_text
from hf_genmodels.models.decoding import decode
from hf_genmodels.training.generate import GenerateOptions, main
from tests import runs

LINES = [
    "The river.",
    "",
    "A red boat was late that day.",
    "Yes",
    "She counted 17",
    "  ",
    "Anna",
    "z",
]
LINES += [f"Line {number} of {'many ' * (number % 4)}" for number in range(11)]


def results(translator, *texts, **options):
    return list(rewrite(GenerateOptions(str(translator), list(texts), **options)))


def outputs_one_by_one(translator, texts, **settings):
    system = load_text_to_text(str(translator))
    found = [decode(system.model, system.encode_sources([text]).ids, **settings) for text in texts]
    return [system.decode_target(best[0][0].ids) for best in found]


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(seq2seq_texts, "CHUNK", 4)


@pytest.fixture
def sources(tmp_path):
    path = tmp_path / "sources.txt"
    path.write_text("\n".join(LINES) + "\n")
    return path


def test_texts_of_the_command_line_are_rewritten_in_their_order(translator, capsys):
    texts = ["A longer text stands first", "Hi", "The river."]
    main([str(translator), *texts])

    assert capsys.readouterr().out.splitlines() == [
        " ".join(text.splitlines()) for text in outputs_one_by_one(translator, texts)
    ]


def test_beams_and_greedy_are_what_decode_finds(translator):
    for options, settings in (
        ({"num_beams": 3}, {"num_beams": 3}),
        ({"num_beams": 3, "length_penalty": 0.0}, {"num_beams": 3, "length_penalty": 0.0}),
        ({"greedy": True, "max_new_tokens": 5}, {"num_beams": 1, "max_new_tokens": 5}),
    ):
        (result,) = results(translator, "The river.", **options)
        assert result.outputs == outputs_one_by_one(translator, ["The river."], **settings)


def test_the_n_best_results_come_with_falling_scores(translator, capsys):
    (result,) = results(translator, "The river.", n_best=3)

    assert len(set(result.outputs)) == 3
    assert result.scores == sorted(result.scores, reverse=True)
    main([str(translator), "The river.", "Anna", "--n_best", "3"])
    printed = capsys.readouterr().out.split("\n")
    assert [float(line.split()[0]) for line in printed[:3]] == pytest.approx(
        result.scores, abs=1e-4
    )
    assert printed[3] == ""


def test_options_of_drawing_draw_and_the_seed_decides(translator):
    def drawn(seed):
        return results(translator, "Hi", temperature=1.5, n_best=4, seed=seed)[0].outputs

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert len(set(drawn(1))) > 1


def test_8_bit_weights_on_request(translator):
    (result,) = results(translator, "The river.", int8=True)

    assert len(result.outputs) == 1
    with pytest.raises(UserError, match="not on --device cuda"):
        results(translator, "Hi", int8=True, device="cuda")


def test_line_i_of_the_output_belongs_to_line_i_of_the_file(
    translator, sources, tmp_path, small_chunks, capsys
):
    main([str(translator), "--file", str(sources), "--output", str(tmp_path / "out.txt")])

    written = (tmp_path / "out.txt").read_text().split("\n")
    assert len(written) == len(LINES) + 1
    for line, source in zip(written, LINES, strict=False):
        if source.strip():
            (expected,) = outputs_one_by_one(translator, [source.strip()])
            assert line == " ".join(expected.splitlines())
        else:
            assert line == ""
    assert "19 sources (2 of empty sources)" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.txt", "sources.txt"]


def test_json_lines_hold_sources_outputs_and_scores(translator, sources, tmp_path):
    output = tmp_path / "out.jsonl"
    main([str(translator), "--file", str(sources), "--output", str(output), "--n_best", "2"])

    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["source"] for row in rows] == [line.strip() for line in LINES]
    assert rows[1] == {"source": "", "outputs": [""], "scores": [None]}
    (expected,) = results(translator, LINES[2], n_best=2)
    assert rows[2]["outputs"] == expected.outputs
    assert rows[2]["scores"] == pytest.approx(expected.scores, abs=1e-5)


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ({"source": "The river."}, {}),
        ({"text": "The river.", "n": 1}, {}),
        ({"id": "x", "body": "The river."}, {"source_column": "body"}),
        ({"translation": {"en": "The river.", "es": "El"}}, {"source_lang": "en"}),
    ],
)
def test_sources_stand_in_a_column_of_a_table(translator, tmp_path, row, options):
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")

    (result,) = results(translator, file=str(tmp_path / "rows.jsonl"), **options)

    assert result.source == "The river."


def kill_in_chunk(events, place):
    """Let a process write four results at a time and die at a write that must last."""
    seq2seq_texts.CHUNK = 4
    runs.die_at_event(events, place)


@pytest.mark.parametrize("events", [2, 5, 8, 15])
def test_killed_and_run_again_gives_the_same_file(
    translator, sources, tmp_path, small_chunks, events
):
    command = ["generate", str(translator), "--file", str(sources), "--num_beams", "2"]
    runs.call([*command, "--output", str(tmp_path / "whole.jsonl")]).succeeded()
    output = tmp_path / "killed.jsonl"
    command += ["--output", str(output)]

    killed = runs.run(
        command, tmp_path / "log", prepare=kill_in_chunk, prepare_arguments=(events, output.name)
    )
    assert killed.status == -signal.SIGKILL
    before = output.read_bytes() if output.exists() else b""
    assert before != (tmp_path / "whole.jsonl").read_bytes() or events == 15

    again = runs.call(command).succeeded()
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert ("going on after" in again.output) == (events > 5)
    assert not list(tmp_path.glob("*.progress"))


@pytest.fixture
def stopped(translator, sources, tmp_path, small_chunks, monkeypatch):
    """The command line of a work that stopped after two pieces, and its output."""
    output = tmp_path / "out.txt"
    command = [str(translator), "--file", str(sources), "--output", str(output)]
    append = seq2seq_texts.ResumableFile.append

    def stopping(self, lines, count, **counts):
        if self.done == 8:
            raise KeyboardInterrupt
        append(self, lines, count, **counts)

    with monkeypatch.context() as patch:
        patch.setattr(seq2seq_texts.ResumableFile, "append", stopping)
        with pytest.raises(KeyboardInterrupt):
            main(command)
    assert len(output.read_text().splitlines()) == 8
    return command, output


def test_a_torn_last_line_is_mended(stopped, translator, sources, tmp_path):
    command, output = stopped
    with output.open("a") as file:
        file.write("half a li")

    main(command)

    main([*command[:-1], str(tmp_path / "whole.txt")])
    assert output.read_bytes() == (tmp_path / "whole.txt").read_bytes()


def test_drawing_goes_on_with_the_same_texts(translator, sources, tmp_path, stopped, monkeypatch):
    seeded = [*stopped[0][:-1], str(tmp_path / "drawn.txt"), "--top_k", "50", "--seed", "3"]
    main(seeded)
    whole = (tmp_path / "drawn.txt").read_bytes()

    def stop(*_arguments):
        raise KeyboardInterrupt

    mixed = seq2seq_texts.mix_seed
    with monkeypatch.context() as patch:
        patch.setattr(seq2seq_texts, "mix_seed", lambda *n: stop() if n[-1] == 8 else mixed(*n))
        with pytest.raises(KeyboardInterrupt):
            main(seeded)
    main(seeded)

    assert (tmp_path / "drawn.txt").read_bytes() == whole


def test_work_on_something_else_is_not_continued(stopped, translator, sources, tmp_path):
    command, output = stopped
    before = output.read_bytes()
    with pytest.raises(UserError, match=r"other settings \(num_beams None, now 2, do_sample"):
        main([*command, "--num_beams", "2"])
    sources.write_text("something else\n")
    with pytest.raises(UserError, match=r"begun with another source.*progress' to begin anew"):
        main(command)
    sources.write_text("\n".join(LINES) + "\n")
    other = runs.random_translator(tmp_path / "other", hidden_size=8)
    with pytest.raises(UserError, match="another model"):
        main([str(other), *command[1:]])
    assert output.read_bytes() == before
    output.write_text("x\n")
    with pytest.raises(UserError, match="it has been changed"):
        main(command)


def test_too_long_sources_are_cut_with_a_note_or_refused(translator, tmp_path, capsys):
    (tmp_path / "long.txt").write_text("Short\n\n" + "x" * 40 + "\n")
    options = {"file": str(tmp_path / "long.txt")}

    cut = results(translator, **options)
    assert cut[2].outputs == outputs_one_by_one(translator, ["x" * 31])
    assert "1 sources have more than the 32 tokens" in capsys.readouterr().err

    with pytest.raises(UserError, match="source 3 has 41 tokens, and the model has 32 positions"):
        results(translator, **options, overlong="error")


def test_attention_is_drawn(translator, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    main([str(translator), "The river.", "--attention", str(tmp_path / "map.png")])

    data = (tmp_path / "map.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert min(struct.unpack(">II", data[16:24])) > 100
    assert "map.png" in capsys.readouterr().out


def test_the_draft_of_a_refinement_model_is_shown(translator, tmp_path, capsys):
    folder = runs.random_translator(tmp_path / "refining", refinement_decoder=True)
    main([str(folder), "The river.", "--show_draft"])

    draft, refined = capsys.readouterr().out.splitlines()
    assert draft.startswith("draft: ")
    assert refined.split("refined:  ")[1] == results(folder, "The river.")[0].lines()[0]
    with pytest.raises(UserError, match="has none"):
        results(translator, "The river.", show_draft=True)


def test_recurrent_models_read_texts_of_any_length(tmp_path):
    folder = runs.random_translator(tmp_path / "rnn", recurrent=True, attention="none")

    (result,) = results(folder, "x" * 100, overlong="error")

    assert result.outputs == outputs_one_by_one(folder, ["x" * 100])
    with pytest.raises(UserError, match="recurrent model without attention"):
        results(folder, "Hi", attention=str(tmp_path / "map.png"))


def test_results_are_decoded_by_the_tokenizer_of_the_targets(translator, tmp_path):
    (shared,) = results(translator, "The river.")[0].outputs
    folder = tmp_path / "copy"
    shutil.copytree(translator, folder)
    (folder / "target_tokenizer").mkdir()
    for file in folder.glob("tokenizer*.json"):
        shutil.copy(file, folder / "target_tokenizer")
    file = folder / "target_tokenizer" / "tokenizer.json"
    content = json.loads(file.read_text())
    vocab = content["model"]["vocab"]
    content["model"]["vocab"] = dict(zip(vocab, reversed(vocab.values()), strict=True))
    file.write_text(json.dumps(content))

    (apart,) = results(folder, "The river.")[0].outputs

    assert apart != shared


def test_options_of_language_models_are_refused(translator):
    with pytest.raises(UserError, match=r"num_return_sequences has no meaning here.*--n_best"):
        results(translator, "Hi", num_return_sequences=2, num_beams=2)


def test_a_tokenizer_that_is_not_the_models_is_refused(translator, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(translator, folder)
    config = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(config | {"eos_token_id": 3}))
    with pytest.raises(UserError, match="they do not belong together"):
        results(folder, "Hi")

    small = runs.random_translator(tmp_path / "small", vocab_size=200, eos_token_id=1)
    with pytest.raises(UserError, match=r"has 258 tokens, the model only knows 200"):
        results(small, "Hi")

    apart = runs.random_translator(tmp_path / "apart", source_vocab_size=300)
    with pytest.raises(UserError, match="target_tokenizer/ is missing"):
        results(apart, "Hi")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give a text, or --file"),
        ([""], "text 1 is empty"),
        (["Hi", "--file", "x.txt"], "not both"),
        (["--file", "missing.txt"], "missing.txt"),
        (["--file", "sources.txt", "--source_lang", "en"], "names a column"),
        (["--file", "rows.jsonl", "--source_lang", "fr"], "Languages: en, es"),
        (["--file", "rows.jsonl", "--source_column", "en"], "no column 'en'"),
        (["--file", "rows.jsonl", "--source_column", "en", "--source_lang", "en"], "in one way"),
        (["--file", "sources.txt", "--output", "sources.txt"], "is the file that is read"),
        (["--file", "sources.txt", "--output", "out.csv"], "Choose .txt"),
        (["--file", "sources.txt", "--output", "out.txt", "--n_best", "2"], "Choose a .jsonl"),
        (["--file", "sources.txt", "--attention", "map.png"], "map of one text"),
        (["Hi", "--attention", "map.png", "--n_best", "2"], "best result only"),
        (["Hi", "--num_beams", "2", "--n_best", "3"], "only 2 different"),
        (["Hi", "--seed", "1"], "--seed has no meaning"),
        (["Hi", "--greedy", "--num_beams", "2"], "Choose one of them"),
        (["Hi", "--overlong", "drop"], "--overlong"),
    ],
)
def test_mistakes_are_one_clear_error(
    translator, sources, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"translation": {"en": "a", "es": "b"}}\n')
    with pytest.raises(UserError, match=message):
        main([str(translator), *arguments])
    assert not list(tmp_path.glob("out.*"))
