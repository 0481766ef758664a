"""Options of the commands that read a model, with values that cannot be: one clear error, soon."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_genmodels.config.evaluate import EvaluateOptions
from hf_genmodels.config.generate import GenerateOptions
from hf_genmodels.hub.export import ExportOptions
from tests import runs
from tests.security.conftest import bounded

COMMANDS: dict[str, Any] = {
    "generate": GenerateOptions,
    "evaluate": EvaluateOptions,
    "export": ExportOptions,
}
SECONDS = 20
HOSTILE = st.sampled_from(
    ["-1", "0", "-0.5", "1.5", "1e300", "nan", "inf", "-inf", str(1 << 40), str(10**30), "", " ", "x",
     "null", "true", "[1, 2", "{a: 1}", "[]", "!!python/object/apply:os.system ['touch mark']",
     "../../x", "/dev/null/x", "/proc/self/mem", "a\x1b[2Jb", "\u202e", "x" * 5000, "a\nb", "*", "~",
     "http://127.0.0.1:9/x", "--help", "-"]
)  # fmt: skip


def options_of(command: str) -> list[str]:
    places = {"model", "prompt", "source", "out", "file"}
    return [f.name for f in dataclasses.fields(COMMANDS[command]) if f.name not in places]


@contextmanager
def alarm(seconds: int) -> Iterator[None]:
    """Fail what takes longer."""

    def ring(*_: Any) -> None:
        pytest.fail(f"still at work after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("family", ["lm", "seq2seq", "gan"])
@pytest.mark.parametrize("command", COMMANDS)
def test_any_value_of_any_option_works_or_is_one_clear_error(
    command: str, family: str, families: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    model = str(families[family])
    (tmp_path / "rows.jsonl").write_text('{"text": "a b", "source": "a", "target": "b"}\n' * 9)
    given_always = {
        "generate": [model, *([] if family == "gan" else ["a"])],
        "evaluate": [model, "--file", "rows.jsonl"],
        "export": [model, "out"],
    }[command]
    names = st.sampled_from(options_of(command))

    @settings(max_examples=15, deadline=None, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.dictionaries(names, HOSTILE, min_size=1, max_size=2))
    def check(options: dict[str, str]) -> None:
        arguments = [f"--{name}={value}" for name, value in options.items()]
        with alarm(SECONDS), bounded():
            outcome = runs.call([command, *given_always, *arguments])
        assert "Traceback" not in outcome.output, outcome.output
        assert "\x1b" not in outcome.output
        if outcome.status:
            assert outcome.status == 2, outcome.output
            assert outcome.output.count("error: ") == 1, outcome.output

    check()
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("value", ["-1", str(1 << 40), str(10**30)])
@pytest.mark.parametrize("name", ["num_return_sequences", "n_best", "num_beams", "seed"])
@pytest.mark.parametrize("family", ["lm", "seq2seq"])
def test_numbers_that_would_claim_all_memory_are_refused(
    family: str, name: str, value: str, families: dict[str, Path]
):
    with alarm(SECONDS), bounded():
        error = runs.call(["generate", str(families[family]), "a", f"--{name}={value}"]).error
    assert name in error
