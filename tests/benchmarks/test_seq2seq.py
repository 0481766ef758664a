"""The benchmarks of sequence-to-sequence models run, at toy size; nothing here is timed."""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sacrebleu")
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPTS = ("seq2seq_common", "seq2seq_training", "seq2seq_quality", "seq2seq_decoding", "seq2seq")
COUNTS = {"one": "uno", "two": "dos", "three": "tres", "four": "cuatro", "five": "cinco"}


@pytest.fixture(scope="module")
def scripts():
    """The scripts as modules; they import each other, as scripts of one folder do."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield argparse.Namespace(**{name: importlib.import_module(name) for name in SCRIPTS})
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in SCRIPTS:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    words = list(COUNTS)
    pairs = [
        (" ".join(words[(i + j) % 5] for j in range(1 + i % 7)) + f" {i}.") for i in range(300)
    ]
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    with file.open("w", encoding="utf-8") as lines:
        for text in pairs:
            spanish = " ".join(COUNTS.get(word, word) for word in text.split())
            lines.write(json.dumps({"translation": {"en": text, "es": spanish}}) + "\n")
    names = ("train_file", "validation_file", "test_file")
    return [*(f"--{name}={file}" for name in names), "--size=toy", "--max_test=3"]


@pytest.fixture(scope="module")
def args(scripts, flags: list[str]) -> argparse.Namespace:
    args = scripts.seq2seq_common.parser("Toy.").parse_args(flags)
    options = {"steps": 3, "seed": 0, "marian_seconds": 0.01, "train_steps": 3, "save": None}
    args.ours = ["--model.hidden_size=32", "--batch_tokens=200"]
    return argparse.Namespace(**vars(args), **options)


@pytest.fixture(scope="module")
def pairs(scripts, args: argparse.Namespace):
    return scripts.seq2seq_common.Pairs(args)


def test_every_contestant_of_the_training_race_reports_a_time_and_its_tokens(scripts, args):
    race = scripts.seq2seq_training
    for train in race.CONTESTANTS.values():
        marks, counts = train(args)
        assert len(marks) == len(counts) == race.WARMUP + args.steps
        assert marks == sorted(marks)
        assert all(targets > 0 for targets, _, _ in counts)
        assert all(targets < real <= slots for targets, real, slots in counts if slots)


def test_the_training_table_holds_every_contestant_against_the_grouped_trainer(scripts):
    race = scripts.seq2seq_training
    slow, fast = ({"speed": s, "padding": 0.1, "megabytes": 100.0} for s in (50.0, 200.0))
    rows = race.table({race.BASELINE: [slow], "ours": [fast], "eole": [{**fast, "padding": None}]})
    assert "| 1.00 |" in rows[0]
    assert all("| 4.00 |" in row for row in rows[1:])


def test_both_recipes_of_the_quality_race_are_measured(scripts, pairs, args):
    race = scripts.seq2seq_quality
    marian, ours = race.run_marian(pairs, args), race.run_preset(pairs, args)
    for point in (*marian["curve"], *ours["curve"]):
        assert point["seconds"] > 0
        assert 0 < point["loss"] < 10
        assert 0 <= point["greedy"] <= 100
    args.marian_seconds = 0.01
    text = "\n".join(race.table({0: [marian, ours]}, args))
    assert f"{ours['curve'][-1]['loss']:.3f}" in text


def test_all_engines_have_the_weights_of_one_model(scripts, pairs, args, tmp_path: Path):
    race = scripts.seq2seq_decoding
    folder = race.trained_marian(pairs, args, tmp_path / "marian")
    engines = race.build_engines(folder, 1, tmp_path)
    seconds, outputs = race.race(engines, pairs.test.source_ids[:3], 1, rounds=1)
    assert set(seconds) >= {race.BASELINE, "hf_genmodels fp32", "hf_genmodels int8"}
    for name in ("transformers generate, sorted", "hf_genmodels fp32"):
        assert outputs[name] == outputs[race.BASELINE]


def test_one_command_runs_the_sections_into_one_report(flags: list[str], tmp_path: Path):
    out = tmp_path / "report.md"
    command = [sys.executable, BENCHMARKS / "seq2seq.py", *flags, "--only", "decoding"]
    few = ["--rounds=1", "--train_steps=2", f"--out={out}"]
    subprocess.run([*command, *few], check=True, capture_output=True, text=True)
    report = out.read_text(encoding="utf-8")
    assert report.startswith("# Sequence-to-sequence models")
    assert "| 5 | hf_genmodels fp32 |" in report
