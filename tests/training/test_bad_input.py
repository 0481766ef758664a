"""What a user can get wrong ends with one clear line and status 2, before any work, with nothing written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests import runs


def refused(folder: Path, *arguments: Any, train_file: Any = None, **options: Any) -> str:
    """The error of a run that cannot begin, after checking that it left nothing behind."""
    before = files(folder.parent)
    error = runs.call([*runs.tiny_run(train_file, output_dir=folder, **options), *arguments]).error
    assert files(folder.parent) == before
    return error


def files(folder: Path) -> dict[Path, bytes | None]:
    return {
        path: path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path.name != ".lock"
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out" / "run"


@pytest.fixture(autouse=True)
def outer(folder: Path):
    folder.parent.mkdir()


OPTIONS = {
    "heads": ({"model__num_attention_heads": 3}, ["hidden_size", "num_attention_heads", "32", "3"]),
    "groups": ({"model__num_key_value_heads": 3}, ["num_key_value_heads", "3"]),
    "positions": ({"model__position_embedding": "rotaryy"}, ["position_embedding", "rotary"]),
    "activation": ({"model__hidden_act": "gelu_newer"}, ["gelu_new"]),
    "context": ({"model__max_position_embeddings": 16}, ["--block_size 32", "16"]),
    "dropout": ({"model__residual_dropout": 1.5}, ["residual_dropout", "1.5"]),
    "steps": ({"max_steps": 0}, ["--max_steps is 0", "at least 1"]),
    "text as number": ({"max_steps": "many"}, ["max_steps", "many"]),
    "precision": ({"mixed_precision": "bf61"}, ["bf61", "Did you mean 'bf16'?"]),
    "publish": ({"publish": "bets"}, ["Did you mean 'best'?"]),
    "optimizer": ({"optim__name": "adam"}, ["--optim.name", "Did you mean 'adamw'?"]),
    "schedule": ({"schedule__name": "cosin"}, ["Did you mean 'cosine'?"]),
    "rate": ({"optim__lr": -1}, ["--optim.lr", "-1"]),
    "time": ({"max_time": "soon"}, ["'soon' is not a duration", "30m"]),
    "decay": ({"ema_decay": 1}, ["--ema_decay"]),
    "vocabulary": ({"tokenizer_vocab_size": 200}, ["--tokenizer_vocab_size is 200", "259"]),
    "lora": ({"lora__r": 4}, ["--lora.r", "--model_name_or_path"]),
    "hub": ({"push_to_hub": "true"}, ["--hub_model_id"]),
    "tracker": ({"report_to": "tensorbord"}, ["tensorbord", "Did you mean 'tensorboard'?"]),
    "sampling": ({"sample__temperature": 0}, ["--sample.temperature"]),
    "freeze": ({"freeze": "model.embed_tokenz.*"}, ["model.embed_tokenz.*", "no parameter"]),
    "unknown option": ({"max_stepz": 3}, ["max_stepz", "Did you mean"]),
    "unknown model option": ({"model__hiden_size": 3}, ["hiden_size", "model.hidden_size"]),
    "unknown section": ({"modell__hidden_size": 3}, ["modell", "Did you mean"]),
    "preset": ({"config": "modrn"}, ["modrn", "Did you mean 'modern'?", "tiny"]),
    "workers of a stream": ({"streaming": "true", "num_workers": 2}, ["num_workers"]),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options_that_cannot_work(case: str, folder: Path, train_file: Path):
    options, words = OPTIONS[case]
    error = refused(folder, train_file=train_file, **options)
    for word in words:
        assert word in error, error
    assert len(error.strip().splitlines()) <= 3, error


@pytest.mark.parametrize("line", ["max_stepz: 3", "model:\n  hiden_size: 8", "optimm:\n  lr: 1.0"])
def test_unknown_keys_in_a_file_of_options(line: str, folder: Path, train_file: Path):
    file = folder.parent / "mine.yaml"
    file.write_text(line + "\n")
    error = refused(folder, train_file=train_file, config=file)
    key = line.replace(":\n  ", ".").split(":")[0]
    assert key.split(".")[-1] in error or key.split(".")[0] in error
    assert "Did you mean" in error, error


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [", "\x00"])
def test_a_file_of_options_that_is_not_one(content: str, folder: Path, train_file: Path):
    file = folder.parent / "mine.yaml"
    file.write_text(content)
    assert "mine.yaml" in refused(folder, train_file=train_file, config=file)


def text_file(folder: Path, name: str, content: bytes) -> Path:
    path = folder.parent / name
    path.write_bytes(content)
    return path


def test_text_files_that_cannot_be_read(folder: Path):
    missing = folder.parent / "missing.txt"
    assert "missing.txt" in refused(folder, train_file=missing)
    assert "empty" in refused(folder, train_file=text_file(folder, "empty.txt", b""))
    binary = text_file(folder, "binary.txt", b"\x00\xff\xfe\x01" * 100)
    assert "binary.txt" in refused(folder, train_file=binary)
    assert "folder" in refused(folder, train_file=folder.parent)
    assert ".pdf" in refused(folder, train_file=text_file(folder, "book.pdf", b"%PDF"))
    assert "--train_file" in refused(folder)


def test_a_column_that_does_not_exist_is_answered_with_those_that_do(folder: Path):
    rows = text_file(folder, "rows.jsonl", b'{"story": "a", "title": "b"}\n' * 9)
    for column in ({"text_column": "text"}, {}):
        error = refused(folder, train_file=rows, **column)
        assert "story" in error
        assert "title" in error


def test_text_shorter_than_a_window(folder: Path, train_file: Path, tmp_path: Path):
    short = tmp_path / "short.txt"
    short.write_text("Too short.")
    error = refused(folder, train_file=short)
    assert "tokens" in error
    assert "--block_size" in error
    assert "block_size" in refused(folder, train_file=train_file, validation_file=short)
    assert not folder.exists()


def test_a_run_that_could_not_begin_leaves_an_existing_folder_empty(folder: Path, tmp_path: Path):
    short = tmp_path / "short.txt"
    short.write_text("Too short.")
    folder.mkdir()
    refused(folder, train_file=short)


def test_a_hub_name_or_anything_else_where_a_folder_was_meant(folder: Path, train_file: Path):
    error = runs.call(["train", "lm", "--resume", "somebody/model"]).error
    assert "somebody/model" in error
    assert "no run in this folder" in error
    for name in ("somebody/model", "./models/missing"):
        for flag in ("model_name_or_path", "tokenizer_name"):
            error = refused(folder, train_file=train_file, **{flag: name})
            assert name.removeprefix("./") in error
    assert "is a file" in runs.call(runs.tiny_run(train_file, output_dir=train_file)).error
    error = runs.call(runs.tiny_run(train_file)).error
    assert "--output_dir FOLDER" in error


@pytest.fixture(scope="module")
def trained(train_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    runs.run(runs.tiny_run(train_file, output_dir=folder), folder.with_name("log")).succeeded()
    return folder


def test_a_folder_that_holds_another_run_or_other_files(
    folder: Path, trained: Path, train_file: Path
):
    shutil.copytree(trained, folder)
    error = refused(folder, train_file=train_file)
    assert "holds another run" in error
    assert f"--resume {folder}" in error
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    assert "thesis.txt" in refused(folder, train_file=train_file)


def test_a_vocabulary_larger_than_the_models(folder: Path, trained: Path, train_file: Path):
    tokenizer = folder.parent / "tokenizer"
    command = ["tokenizer", "train", "--train_file", train_file, "--vocab_size", "330"]
    runs.call([*command, "--output_dir", tokenizer]).succeeded()
    error = refused(
        folder, train_file=train_file, model_name_or_path=trained, tokenizer_name=tokenizer
    )
    assert "330" in error
    assert "290" in error


def test_windows_longer_than_the_pretrained_models_context(
    folder: Path, trained: Path, train_file: Path
):
    error = refused(folder, train_file=train_file, model_name_or_path=trained, block_size=64)
    assert "--block_size 64" in error
    assert "32" in error


CHANGES = {
    "data": ("data", lambda other: ["--train_file", other]),
    "seed": ("seed: the run has 42, now it is 7", lambda _: ["--seed", "7"]),
    "width": ("model.hidden_size: the run has 32, now it is 48", lambda _: ["--model.hidden_size", "48"]),
    "window": ("block_size: the run has 32", lambda _: ["--block_size", "16"]),
    "batch": ("examples in a step", lambda _: ["--per_device_train_batch_size", "3"]),
    "rate": ("optim.lr", lambda _: ["--optim.lr", "0.5"]),
    "average": ("ema_decay", lambda _: ["--ema_decay", "0.5"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGES)
def test_going_on_with_something_else_is_refused_with_what_differs(
    case: str, trained: Path, train_file: Path, tmp_path: Path
):
    other = tmp_path / "other.txt"
    other.write_text(train_file.read_text()[::-1])
    words, change = CHANGES[case]
    before = files(trained)
    error = runs.call(["train", "lm", "--resume", trained, *change(other)]).error
    assert words in error
    assert "another --output_dir" in error
    assert files(trained) == before


def test_going_on_with_another_tokenizer_is_refused(
    trained: Path, train_file: Path, tmp_path: Path
):
    tokenizer = tmp_path / "tokenizer"
    command = ["tokenizer", "train", "--train_file", train_file, "--vocab_size", "280"]
    runs.call([*command, "--output_dir", tokenizer]).succeeded()
    error = runs.call(["train", "lm", "--resume", trained, "--tokenizer_name", tokenizer]).error
    assert "tokenizer" in error
    assert str(tokenizer) in error


def test_the_second_of_two_runs_in_one_folder_is_refused(
    trained: Path, folder: Path, train_file: Path
):
    from filelock import FileLock

    with FileLock(trained / ".lock"):
        error = runs.call(["train", "lm", "--resume", trained]).error
        assert "Another process is working" in error
    folder.mkdir()
    with FileLock(folder / ".lock"):
        assert "Another process is working" in refused(folder, train_file=train_file)


def test_a_folder_that_cannot_be_written(folder: Path, train_file: Path, monkeypatch):
    from hf_genmodels.engine import run

    folder.mkdir()
    monkeypatch.setattr(run.os, "access", lambda path, _mode: Path(path) != folder)
    assert "not writable" in refused(folder, train_file=train_file)
