"""The command, as a person types it."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from hf_genmodels.errors import UserError
from hf_genmodels.tokenization import load_tokenizer
from hf_genmodels.training.train_tokenizer import main


@pytest.fixture
def text_file(tmp_path, corpus):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(corpus), encoding="utf-8")
    return path


@pytest.fixture
def trained(text_file, tmp_path):
    out = tmp_path / "out"
    main(["train", "--train_file", str(text_file), "--output_dir", str(out), "--vocab_size", "450"])
    return out


def test_train_makes_a_folder_and_says_what_to_do_next(text_file, tmp_path, capsys):
    out = str(tmp_path / "out")
    main(["train", "--train_file", str(text_file), "--output_dir", out, "--vocab_size", "450"])
    assert len(load_tokenizer(out)) == 450
    assert f"genmodels tokenizer inspect {out}" in capsys.readouterr().out


def test_train_takes_several_files_lists_and_switches(text_file, tmp_path):
    files = [str(text_file), str(tmp_path / "*.txt")]
    special = ["--special_tokens", "<a>", "<b>", "--split_digits"]
    options = [
        "--output_dir",
        str(tmp_path / "o"),
        "--vocab_size",
        "400",
        "--max_token_length",
        "4",
    ]
    main(["train", "--train_file", *files, *special, *options])
    assert {"<a>", "<b>"} <= set(load_tokenizer(tmp_path / "o").all_special_tokens)


def test_train_takes_a_config_file_and_flags_win(text_file, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(
        f"train_file: [{text_file}]\noutput_dir: {tmp_path / 'o'}\nvocab_size: 300\n"
        "split_digits: true\n"
    )
    main(["train", "--config", str(config), "--vocab_size", "310"])
    assert len(load_tokenizer(tmp_path / "o")) == 310


def test_train_says_when_the_text_gives_fewer_tokens(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("ab ab")
    main(["train", "--train_file", str(tmp_path / "a.txt"), "--output_dir", str(tmp_path / "o")])
    assert "fewer tokens than the 8,192 asked for" in capsys.readouterr().out


def test_train_refuses_a_full_folder_before_any_work(trained, text_file, capsys):
    before = (trained / "tokenizer.json").read_bytes()
    again = ["train", "--train_file", str(text_file), "--output_dir", str(trained)]
    with pytest.raises(UserError, match="--overwrite"):
        main(again)
    assert (trained / "tokenizer.json").read_bytes() == before
    main([*again, "--overwrite", "--vocab_size", "300"])
    assert len(load_tokenizer(trained)) == 300


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--train_file", "nowhere.txt"], "does not exist"),
        ([], "neither was given"),
        (["--train_file", "a.txt", "--dataset_name", "b"], "both were given"),
        (["--train_file", "nowhere.txt", "--vocab_size", "10"], "too small"),
    ],
)
def test_mistakes_write_nothing(tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        main(["train", "--output_dir", str(tmp_path / "o"), *flags])
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train", "--vocab_sise", "3"], "Did you mean '--vocab_size'?"),
        (["train", "--output", "o", "--output_dir", "o"], "unrecognized arguments: --output"),
        (["train", "--vocab_size", "many"], "many"),
        (["train"], "output_dir"),
        (["reprot"], "report"),
        ([], "import-gpt2"),
    ],
)
def test_wrong_flags_end_with_status_2_and_a_hint(argv, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown


def test_an_unknown_key_in_a_config_file_is_refused_with_a_suggestion(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("output_dir: o\nvocabsize: 3\n")
    with pytest.raises(SystemExit):
        main(["train", "--config", str(tmp_path / "c.yaml")])
    assert "Did you mean 'vocab_size'?" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["train", "import-gpt2", "inspect", "report"])
def test_help_explains_every_flag(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert "usage: genmodels tokenizer" in capsys.readouterr().out


def test_inspect_shows_tokens_and_ids(trained, capsys):
    main(["inspect", str(trained), " truth 世<|endoftext|>"])
    shown = capsys.readouterr().out
    assert "␣" in shown
    assert "special" in shown
    assert "bytes per token" in shown


@pytest.mark.parametrize("text", ["", "null", "{a: 1}", "007", " a "])
def test_inspect_takes_text_as_it_stands(trained, text, capsys):
    capsys.readouterr()
    main(["inspect", str(trained), text])
    assert f"for {len(text)} bytes" in capsys.readouterr().out


def test_inspect_reads_standard_input(trained, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"piped\xff")))
    main(["inspect", str(trained), "-"])
    assert "for 8 bytes" in capsys.readouterr().out


def test_a_hub_name_where_a_folder_was_meant_is_explained():
    with pytest.raises(UserError, match="repository of that name"):
        main(["inspect", "user/name", "text"])


def test_report_compares_with_gpt2(trained, text_file, tmp_path, capsys):
    model = json.loads((trained / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    vocab, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
    vocab.write_text(json.dumps(model["vocab"]))
    lines = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    merges.write_text("\n".join(lines), encoding="utf-8")
    figures = tmp_path / "figures.json"
    texts = ["--files", str(text_file), "--language_samples", f"again={text_file}"]
    gpt2 = ["--gpt2", str(vocab), str(merges)]
    main(["report", str(trained), *texts, *gpt2, "--output_file", str(figures)])
    rows = json.loads(figures.read_text())
    assert [row["tokenizer"] for row in rows] == ["out", "GPT-2"] * 2
    assert rows[0]["num_tokens"] == rows[1]["num_tokens"] == rows[2]["num_tokens"]
    assert rows[0]["num_bytes"] == text_file.stat().st_size - text_file.read_bytes().count(b"\r\n")
    assert "GPT-2" in capsys.readouterr().out


def test_report_without_text_or_with_half_of_gpt2_is_refused(trained, text_file):
    with pytest.raises(UserError, match="nothing to measure"):
        main(["report", str(trained)])
    with pytest.raises(UserError, match="two files"):
        main(["report", str(trained), "--files", str(text_file), "--gpt2", "vocab.json"])


def test_a_figure_file_that_cannot_be_written_is_named(trained, text_file, tmp_path):
    missing = str(tmp_path / "no" / "figures.json")
    with pytest.raises(UserError, match=r"figures\.json' failed: No such file"):
        main(["report", str(trained), "--files", str(text_file), "--output_file", missing])


def test_the_script_prints_a_mistake_as_one_line():
    script = Path(__file__).parents[2] / "training" / "train_tokenizer.py"
    done = subprocess.run(
        [sys.executable, str(script), "inspect", "user/name", "text"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: There is no folder 'user/name'")
    assert done.stderr.count("\n") == 1
