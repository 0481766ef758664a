"""A run that is stopped and resumed is, to the last bit, the run that was not stopped."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import runs
from tests.invariants.conftest import CROSSINGS, by_family

pytestmark = pytest.mark.invariants
HARD = {"model__residual_dropout": 0.1, "model__attention_dropout": 0.1}
FAMILIES: dict[str, dict[str, Any]] = {
    "lm": HARD,
    "seq2seq": HARD,
    "gan": {"label_column": "label", "model__architecture": "mlp"},  # which has dropout
    "pixels": {"model__residual_dropout": 0.1, "pixels__flip": "true", "pixels__prompt_dropout": 0.3},
    "lm-adversarial": {"discriminator__dropout": 0.2},
    "clips": {
        "text_column": "caption", "clips_per_image": 1, "validation_split_percentage": 20,
        "model__video_frame_step": 2, "loss__augment": ["translation"], "loss__penalty_every": 2,
    },
}  # fmt: skip
# Of an epoch of three steps: within it, at its end, and in the next one.
STOPS = {2: signal.SIGTERM, 3: signal.SIGINT, 5: signal.SIGTERM}
STEPS = 6
# What one forward pass takes, so that an epoch is three steps of 1, 2 or 4 passes.
THIRDS: dict[str, tuple[str, dict[int, int]]] = {
    "lm": ("per_device_train_batch_size", {1: 16, 2: 8, 4: 4}),
    "seq2seq": ("batch_tokens", {1: 400, 2: 200, 4: 100}),
    "gan": ("per_device_train_batch_size", {1: 20, 2: 10, 4: 5}),
    "pixels": ("per_device_train_batch_size", {1: 16, 2: 8, 4: 4}),
    "lm-adversarial": ("per_device_train_batch_size", {1: 32, 2: 16, 4: 8}),
    "clips": ("per_device_train_batch_size", {1: 16, 2: 8, 4: 4}),
}
# Processes, accumulation, average, workers: every two of their values meet in one of these.
WAYS = [(1, 1, False, 0), (1, 2, True, 2), (2, 1, True, 2), (2, 2, False, 2), (2, 2, True, 0)]
EXAMPLES = {"lm": 48, "gan": 60, "pixels": 48, "lm-adversarial": 96, "clips": 48}


def run(
    command: Sequence[str], log: Path, size: int = 1, stop: tuple[int, int] | None = None
) -> str:
    """Run a command on so many processes, one of which gets a signal; return what the first says."""
    prepares = {size - 1: (runs.signal_at_step, *stop)} if stop else {}
    if size > 1:
        outcomes = runs.run_group(command, log, size, prepares=prepares)
    else:
        function, *values = prepares.get(0, (None,))
        outcomes = [runs.run(command, log, prepare=function, prepare_arguments=tuple(values))]
    outputs = [outcome.succeeded().output for outcome in outcomes]
    return outputs[0]


def check_resumes(
    family: str,
    data: Path,
    folder: Path,
    stops: dict[int, signal.Signals],
    size: int = 1,
    **options: Any,
) -> Path:
    """Compare a run that is stopped after some steps with one that is not; return its folder."""
    whole, parts, log = folder / "whole", folder / "parts", folder / "log"
    run(runs.command_of(family, data, output_dir=whole, **options), log, size)
    command = runs.command_of(family, data, output_dir=parts, **options)
    last = 0
    for step, number in stops.items():
        output = run(command, log, size, (step, number))
        assert f"stopped after step {step}: " in output
        assert size > 1 or number.name in output
        assert runs.saved_steps(parts)[-1] == step
        command, last = runs.resume_of(family, parts), step
    assert f"going on after step {last}" in run(command, log, size)
    check_same(parts, whole)
    return parts


def check_same(ours: Path, theirs: Path) -> None:
    """Check that two runs measured the same and left the same."""
    assert runs.losses(ours) == runs.losses(theirs)
    tensors, expected = runs.states(ours), runs.states(theirs)
    assert tensors.keys() == expected.keys()
    assert [name for name in tensors if tensors[name] != expected[name]] == []


@pytest.fixture(scope="module")
def data_in_thirds(data_of: dict[str, Path], tmp_path_factory: pytest.TempPathFactory):
    """What each family is trained on; 48 windows of text, or 96 of bytes."""
    text, of_bytes = (tmp_path_factory.mktemp(name) / "train.txt" for name in ("text", "bytes"))
    text.write_text(runs.text(66), encoding="utf-8")
    of_bytes.write_text(runs.text(40)[:-20], encoding="utf-8")
    return {**data_of, "lm": text, "lm-adversarial": of_bytes}


@pytest.mark.parametrize(
    ("family", "size", "accumulation", "average", "workers"),
    [
        pytest.param(*family.values, *way, marks=pytest.mark.slow if way[0] > 1 else family.marks)
        for way in WAYS
        for family in by_family(FAMILIES, quick=CROSSINGS if way == WAYS[1] else ())
    ],
)
def test_in_an_epoch_at_its_border_and_in_a_later_one(
    family: str, size: int, accumulation: int, average: bool, workers: int,
    data_in_thirds: dict[str, Path], tmp_path: Path,
):  # fmt: skip
    name, values = THIRDS[family]
    options = {
        **FAMILIES[family], name: values[size * accumulation], "max_steps": STEPS,
        "gradient_accumulation_steps": accumulation, "num_workers": workers,
        "ema_decay": 0.9 if average else (0.0 if family in ("gan", "clips") else None),
        "keep_checkpoints": STEPS,
    }  # fmt: skip
    parts = check_resumes(family, data_in_thirds[family], tmp_path, STOPS, size, **options)
    assert epochs_of(family, parts) == {2: (0, False), 3: (1, True), 5: (1, False), 6: (2, True)}


def epochs_of(family: str, folder: Path) -> dict[int, tuple[int, bool]]:
    """Return for each checkpoint in which epoch it stands, and whether at its beginning."""
    found = {}
    for step in runs.saved_steps(folder):
        checkpoint = folder / "checkpoints" / f"step-{step:06d}"
        if family == "seq2seq":
            place = json.loads((checkpoint / "rank-00000.json").read_text())["data"]
            found[step] = (place["epoch"], place["batch"] == 0)
        else:
            examples = json.loads((checkpoint / "state.json").read_text())["loop"]["examples"]
            epoch, rest = divmod(examples, EXAMPLES[family])
            found[step] = (epoch, rest == 0)
    return found


CASES: dict[str, dict[str, Any]] = {
    "muon, bf16": {"optim__name": "muon", "mixed_precision": "bf16"},
    "stream": {"streaming": "true"},
    "shuffled stream": {"streaming": "true", "shuffle_buffer": 3, "sample_by": "line"},
}


@pytest.fixture
def lines(train_file: Path, tmp_path: Path) -> Path:
    """The text with many documents: a sentence a line."""
    file = tmp_path / "lines.txt"
    file.write_text(train_file.read_text(encoding="utf-8").replace(". ", ".\n"), encoding="utf-8")
    return file


@pytest.mark.parametrize("case", CASES)
def test_of_a_language_model_in_other_ways(case: str, lines: Path, tmp_path: Path):
    stops = {3: signal.SIGTERM, 8: signal.SIGINT}
    check_resumes("lm", lines, tmp_path, stops, **HARD, **CASES[case])


@pytest.mark.slow
def test_a_shuffled_stream_on_two_processes(lines: Path, tmp_path: Path):
    options = {**HARD, **CASES["shuffled stream"], "gradient_accumulation_steps": 2}
    check_resumes("lm", lines, tmp_path, {3: signal.SIGTERM}, 2, **options)


@pytest.mark.parametrize("family", ["lm", "seq2seq"])
@pytest.mark.parametrize("size", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_within_the_patience_of_early_stopping(
    family: str, size: int, data_of: dict[str, Path], tmp_path: Path
):
    """Also when it is started once more after its end."""
    options = {
        **FAMILIES[family],
        "early_stopping_patience": 4,
        "eval_every": 1,
        "optim__lr": 1e-12,
    }
    parts = check_resumes(family, data_of[family], tmp_path, {3: signal.SIGTERM}, size, **options)
    last = runs.saved_steps(parts)[-1]
    assert 4 < last < 10
    output = run(["train", family, "--resume", str(parts)], tmp_path / "log", size)
    assert f"ended after step {last}: validation has not improved" in output
    check_same(parts, tmp_path / "whole")


def test_of_a_gan_within_the_patience_of_early_stopping(image_table: Path, tmp_path: Path):
    judge = tmp_path / "judge"
    command = ["train", "judge", "--train_file", image_table, "--label_column", "label"]
    command += ["--image_size", 16, "--width", 4, "--feature_dim", 8, "--max_steps", 3]
    run([*map(str, command), "--output_dir", str(judge)], tmp_path / "log")
    options = {
        **FAMILIES["gan"], "judge__features": judge, "judge__num_samples": 40, "eval_every": 1,
        "early_stopping_patience": 2, "optim__lr": 1e-12, "max_steps": 20,
    }  # fmt: skip
    stops = {2: signal.SIGTERM}
    parts = check_resumes("gan", image_table, tmp_path, stops, **options)
    assert runs.saved_steps(parts)[-1] < 20
