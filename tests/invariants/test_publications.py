"""A publication that failed is made up for when the run is started again."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tests import runs
from tests.invariants.conftest import by_family

pytestmark = pytest.mark.invariants
FAMILIES: dict[str, dict[str, Any]] = {
    "lm": {"model__residual_dropout": 0.1},
    "seq2seq": {"model__residual_dropout": 0.1},
    "gan": {"label_column": "label", "model__architecture": "dcgan"},  # with statistics to compute
    "pixels": {"model__residual_dropout": 0.1},
    "lm-adversarial": {"discriminator__dropout": 0.2},
    "clips": {"text_column": "caption", "model__architecture": "dcgan"},
}
COMMON = {"max_steps": 4, "eval_every": 2, "save_every": 1, "ema_decay": 0.9}


def fail_to_publish(*steps: int) -> None:
    """Let the disk be full where the model of some steps is published."""
    from hf_genmodels.engine import publishing

    original, publish = publishing.publish_folder, publishing.publish

    def publish_in(run: Any, *arguments: Any, **options: Any) -> None:
        def publish_folder(*given: Any, **named: Any) -> Any:
            if run.state.step in steps:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*given, **named)

        publishing.publish_folder = publish_folder
        publish(run, *arguments, **options)

    publishing.publish = publish_in
    for name in ("lm", "seq2seq", "gan", "lm_adversarial"):
        __import__(f"hf_genmodels.training.train_{name}", fromlist=["publish"]).publish = publish_in


@pytest.mark.parametrize("family", by_family(FAMILIES))
def test_at_the_end_of_a_run(family: str, data_of: dict[str, Path], tmp_path: Path):
    whole, parts, log = tmp_path / "whole", tmp_path / "parts", tmp_path / "log"
    options = {**COMMON, **FAMILIES[family], "publish": "last"}
    runs.run(runs.command_of(family, data_of[family], output_dir=whole, **options), log).succeeded()
    command = runs.command_of(family, data_of[family], output_dir=parts, **options)
    outcome = runs.run(command, log, prepare=fail_to_publish, prepare_arguments=(4,))
    assert "the model of step 4 could not be published" in outcome.error
    assert "3 of 4" in (parts / "README.md").read_text()
    resume = runs.resume_of(family, parts)
    assert resume[-1] in outcome.error
    output = runs.run(resume, log).succeeded().output
    assert "going on after step 4" in output
    assert runs.states(parts) == runs.states(whole)
    assert runs.losses(parts) == runs.losses(whole)
    assert "4 of 4" in (parts / "README.md").read_text()


def test_of_the_best_weights_which_are_gone(train_file: Path, tmp_path: Path):
    """They were those of step 2; the run said so, and what it has can be published instead."""
    folder, log = tmp_path / "run", tmp_path / "log"
    options = {**COMMON, "save_every": 4, "optim__lr": 1e-12, "ema_decay": None}
    command = runs.tiny_run(train_file, output_dir=folder, **options)
    outcome = runs.run(command, log, prepare=fail_to_publish, prepare_arguments=(2,))
    assert "The model of step 2 was not published" in outcome.output
    assert "the model of step 2, the best one, could not be published" in outcome.error
    assert not (folder / "config.json").exists()
    resume = ["train", "lm", "--resume", str(folder)]
    assert "--publish last" in runs.run(resume, log).error
    runs.run([*resume, "--publish", "last"], log).succeeded()
    assert "4 of 4" in (folder / "README.md").read_text()
