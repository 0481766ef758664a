"""The benchmark of adversarial training runs, at toy size; nothing here is timed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_genmodels.data.language import load_text_data
from hf_genmodels.hub.loading import load_tokenizer
from tests import runs

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script() -> Iterator[Any]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("lm_adversarial")
    finally:
        sys.path.remove(str(BENCHMARKS))
        sys.modules.pop("lm_adversarial", None)


@pytest.mark.parametrize("name", ["mle", "reinforce"])
def test_a_trial_trains_is_measured_and_stands_in_the_table(
    script: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_GENMODELS_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "text.txt"
    text.write_text(runs.text(100), encoding="utf-8")
    start = runs.random_writer(tmp_path / "writer", max_position_embeddings=64)
    config = script.config_of(start, name, 0)
    config.train_file, config.validation_file = [str(text)], [str(text)]
    config.max_eval_windows, config.per_device_train_batch_size = 6, 2
    config.adversarial.discriminator_first = 0
    tokenizer = load_tokenizer(start)
    data = load_text_data(config, tokenizer, seed=0, show_progress=False)
    trial = script.Trial(config, name, tokenizer, data)
    trial.train(1e-9)
    assert (trial.steps, trial.generator_steps) == (1, 1)
    rows = script.measure(trial, tokenizer, data, [0.7, 1.0], 6)
    assert [row["temperature"] for row in rows] == [0.7, 1.0]
    assert rows[0]["perplexity"] == rows[1]["perplexity"]
    assert rows[0]["num_pairs"] == 6
    report = script.table(rows, script.limit(config, tokenizer, data), 6)
    assert report.count(f"| {script.NAMES[name]} |") == (2 if name == "mle" else 3)
