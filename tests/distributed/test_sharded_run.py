"""A fully sharded run saves, goes on and publishes like a run of one process."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import runs

pytestmark = pytest.mark.distributed
SETTINGS = Path(__file__).resolve().parents[2] / "training" / "accelerate" / "fsdp2.yaml"
# The same global batches for one process and for two.
ALONE: dict[str, Any] = {"gradient_accumulation_steps": 2}


def shard(then: Any = None, *arguments: Any) -> None:
    """Let this process shard as `fsdp2.yaml` says; accelerate itself does so on GPUs only."""
    for name, value in yaml.safe_load(SETTINGS.read_text())["fsdp_config"].items():
        os.environ[name.upper()] = str(value).lower() if isinstance(value, bool) else str(value)
    os.environ["ACCELERATE_USE_FSDP"] = "true"
    from accelerate import Accelerator, FullyShardedDataParallelPlugin, PartialState
    from accelerate.utils import DistributedType

    from hf_genmodels.engine import run
    from hf_genmodels.engine.precision import sharded_precision

    original = run.make_accelerator

    def make_accelerator(config: Any) -> Accelerator:
        accelerator = original(config)
        plugin = FullyShardedDataParallelPlugin()
        plugin.mixed_precision_policy = sharded_precision(accelerator.mixed_precision)
        # Every new AcceleratorState takes the type over from the PartialState.
        for state in (accelerator.state, PartialState()):
            state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = plugin
        assert accelerator.is_fsdp2
        return accelerator

    run.make_accelerator = make_accelerator
    if then is not None:
        then(*arguments)


def sharded(arguments: list[str], log: Path, **stops: Any) -> list[runs.Outcome]:
    stop = (runs.signal_at_step, stops["stop"], signal.SIGTERM) if stops else ()
    prepares = {0: (shard, *stop), 1: (shard,)}
    return [o.succeeded() for o in runs.run_group(arguments, log, 2, prepares=prepares)]


def test_a_sharded_translator_is_a_run(pair_file: Path, tmp_path: Path):
    options = {
        "optim__name": "muon",
        "optim__muon_precision": "float32",
        "ema_decay": 0.9,
        "eval_every": 3,
        "max_steps": 6,
        "translate__num_pairs": 3,
        "model__norm_position": "pre",
        **{f"model__{part}_dropout": 0.0 for part in ("attention", "residual", "embedding")},
    }
    alone, whole, parts, log = (tmp_path / n for n in ("alone", "whole", "parts", "log"))
    runs.run(
        runs.tiny_translation(pair_file, output_dir=alone, **ALONE, **options), log
    ).succeeded()
    sharded(runs.tiny_translation(pair_file, output_dir=whole, **options), log)
    for name in ("loss", "grad_norm", "eval_loss"):
        assert values(whole, name) == pytest.approx(values(alone, name), rel=1e-4)
    sharded(runs.tiny_translation(pair_file, output_dir=parts, **options), log, stop=4)
    sharded(["train", "seq2seq", "--resume", str(parts)], log)
    assert runs.losses(parts) == runs.losses(whole)
    assert runs.weights(parts) == runs.weights(whole)


def values(folder: Path, name: str) -> list[float]:
    return [dict(line)[name] for line in runs.losses(folder) if name in dict(line)]


@pytest.mark.parametrize(
    "options",
    [
        {
            "optim__name": "muon",
            "optim__muon_precision": "float32",
            "model__tie_word_embeddings": "false",
        },
        {"optim__name": "adamw", "model__tie_word_embeddings": "true"},
    ],
    ids=["muon-untied", "adamw-tied"],
)
def test_a_sharded_run_is_a_run(
    options: dict[str, Any], train_file: Path, validation_file: Path, tmp_path: Path
):
    import torch
    from safetensors.torch import load_file
    from torch.testing import assert_close

    options |= {
        "ema_decay": 0.9,
        "eval_every": 3,
        "max_steps": 8,
        "validation_file": validation_file,
        "sample__max_new_tokens": 4,
    }
    alone, whole, parts, log = (tmp_path / n for n in ("alone", "whole", "parts", "log"))
    single = tmp_path / "single"
    runs.run(runs.tiny_run(train_file, output_dir=alone, **ALONE, **options), log).succeeded()
    sharded(runs.tiny_run(train_file, output_dir=whole, **options), log)
    for name in ("loss", "grad_norm", "eval_loss"):
        assert values(whole, name) == pytest.approx(values(alone, name), rel=1e-4)
    assert_close(
        load_file(whole / "model.safetensors"),
        load_file(alone / "model.safetensors"),
        rtol=1e-2,
        atol=1e-3,
    )
    for name in ("model", "optimizer", "ema"):
        path = Path("checkpoints/step-000008") / f"{name}.safetensors"
        theirs, ours = load_file(whole / path), load_file(alone / path)
        if name == "model" and "lm_head.weight" not in ours:
            assert torch.equal(theirs.pop("lm_head.weight"), theirs["model.embed_tokens.weight"])
        assert_close(theirs, ours, rtol=1e-2, atol=1e-3)

    command = runs.tiny_run(train_file, output_dir=parts, **options)
    sharded(command, log, stop=4)
    assert runs.saved_steps(parts) == [4]
    shutil.copytree(parts, single)
    sharded(["train", "lm", "--resume", str(parts)], log)
    assert runs.losses(parts) == runs.losses(whole)
    assert runs.weights(parts) == runs.weights(whole)
    command = ["train", "lm", "--resume", str(single), "--num_processes", "1"]
    runs.run([*command, "--gradient_accumulation_steps", "2"], log).succeeded()
    assert values(single, "loss") == pytest.approx(values(whole, "loss"), rel=1e-4)
