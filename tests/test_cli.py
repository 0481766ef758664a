"""The `genmodels` command: help, typos, and how it ends."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from hf_genmodels import __version__
from hf_genmodels.cli import COMMANDS, run_command
from hf_genmodels.errors import UserError
from tests import runs


def test_help_lists_every_command():
    for arguments in ([], ["--help"], ["-h"], ["help"], ["train", "--help"]):
        output = runs.call(arguments).succeeded().output
        for name, (_, _, what) in COMMANDS.items():
            assert name in output
            assert what in output


def test_the_version_is_printed():
    assert runs.call(["--version"]).succeeded().output.strip() == __version__


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str):
    output = runs.call([*name.split(), "--help"]).succeeded().output
    assert "usage" in output.lower()
    assert f"genmodels {name}" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("verb", ["train", "import-gpt2", "inspect", "report"])
def test_every_verb_of_the_tokenizer_explains_itself(verb: str):
    assert "genmodels tokenizer" in runs.call(["tokenizer", verb, "--help"]).succeeded().output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "Did you mean 'train"),
        (["generat"], "Did you mean 'generate'?"),
        (["tokeniser"], "Did you mean 'tokenizer'?"),
        (["train"], "Choose from: lm"),
        (["train", "llm"], "Did you mean 'lm'?"),
        (["train", "--help-me"], "Choose from: lm"),
        (["quux"], "genmodels --help"),
        (["train", "lm", "--max_stepz", "3"], "Did you mean"),
        (["generate", "--temprature", "3"], "Did you mean"),
    ],
)
def test_typos_are_answered_with_what_was_meant(arguments: list[str], words: str):
    assert words in runs.call(arguments).error


def fail_with(error: BaseException):
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (UserError("The file is empty."), 2, "error: The file is empty."),
        (KeyboardInterrupt(), 130, "stopped"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.bin"), 2, "model.bin"),
    ],
)
def test_mistakes_and_interrupts_end_without_a_traceback(
    error: BaseException, status: int, words: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ending:
        run_command(fail_with(error))
    assert ending.value.code == status
    assert words in capsys.readouterr().err


def test_other_errors_keep_their_traceback():
    with pytest.raises(OSError, match="denied"):
        run_command(fail_with(OSError(errno.EACCES, "denied")))
    with pytest.raises(ZeroDivisionError):
        run_command(fail_with(ZeroDivisionError()))


def test_only_the_first_of_several_processes_says_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit):
        run_command(fail_with(UserError("no")))
    assert capsys.readouterr().err == "process 1: no\n"


def test_a_reader_that_goes_away_is_no_error():
    command = f"{sys.executable} -m hf_genmodels --help | head -n 1"
    process = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert process.stdout.startswith("genmodels")
    assert process.stderr == ""
