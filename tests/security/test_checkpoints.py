"""A training state that was tampered with ends in one clear error, or is passed over."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_genmodels.config.run import RunConfig
from hf_genmodels.engine.checkpoint import check_manifest, load_checkpoint, save_checkpoint
from hf_genmodels.engine.ema import EMA
from hf_genmodels.engine.run import Run, make_accelerator
from hf_genmodels.hub.loading import load_model
from tests.hub.conftest import byte_tokenizer, random_model
from tests.security.conftest import refusal
from tests.security.test_model_folders import FILES


class State:
    """A tiny training, and its checkpoint."""

    def __init__(self, folder: Path):
        config = RunConfig(output_dir=str(folder), mixed_precision="no")
        self.run = Run(config, make_accelerator(config), folder)
        model = random_model(byte_tokenizer())
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        model(input_ids=torch.ones(1, 4, dtype=torch.long)).logits.sum().backward()
        optimizer.step()
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        self.parts: Any = (model, optimizer, schedule, EMA(model, 0.9))
        self.run.state.step = 1
        saved = save_checkpoint(self.run, *self.parts, identity={"seed": 1})
        assert saved is not None
        self.folder = saved

    def load(self, folder: Path) -> Any:
        return load_checkpoint(self.run, folder, *self.parts, identity={"seed": 1})


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> State:
    return State(tmp_path_factory.mktemp("state"))


@pytest.fixture
def folder(state: State, tmp_path: Path) -> Path:
    return shutil.copytree(state.folder, tmp_path / "step-000001")


def test_what_was_saved_is_loaded(state: State, folder: Path):
    loop, _ = state.load(folder)
    assert loop.step == 1


FILES_OF_A_STATE = ("model", "optimizer", "ema", "rank-00000")


@pytest.mark.parametrize("name", FILES_OF_A_STATE)
@pytest.mark.parametrize("case", ["a header of 1 GB", "overlapping", "cut short", "a pickle", "overflowing"])  # fmt: skip
def test_tensors_that_lie_about_themselves(name: str, case: str, state: State, folder: Path):
    (folder / f"{name}.safetensors").write_bytes(FILES[case])
    refusal(state.load, folder)


def larger(tensor: torch.Tensor) -> torch.Tensor:
    return torch.zeros(1 << 12)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.int64) if tensor.is_floating_point() else tensor.float()


@pytest.mark.parametrize(
    ("name", "change"),
    [*((name, larger) for name in FILES_OF_A_STATE), ("model", whole), ("rank-00000", whole)],
)
def test_tensors_of_another_shape_or_type(
    name: str, change: Callable[[torch.Tensor], torch.Tensor], state: State, folder: Path
):
    file = folder / f"{name}.safetensors"
    tensors = load_file(file)
    last = sorted(tensors)[-1]
    save_file(tensors | {last: change(tensors[last])}, file)
    assert str(folder) in refusal(state.load, folder)


@pytest.mark.parametrize("name", ["model", "optimizer", "ema"])
def test_tensors_of_no_parameter(name: str, state: State, folder: Path):
    file = folder / f"{name}.safetensors"
    save_file({**load_file(file), "stranger|exp_avg": torch.ones(9)}, file)
    assert "stranger" in refusal(state.load, folder)


VALUES: dict[str, tuple[str, Any]] = {
    "step as text": ("loop.step", "9"),
    "step as fraction": ("loop.step", 0.5),
    "unknown loop": ("loop.run", "os.system"),
    "loop as list": ("loop", []),
    "aliases as list": ("aliases", [1]),
    "alias of nothing": ("aliases", {"lm_head.weight": "nothing"}),
    "groups as number": ("optimizer.param_groups", 3),
    "no groups": ("optimizer.param_groups", []),
    "rate as text": ("optimizer.param_groups.0.lr", "fast"),
    "betas": ("optimizer.param_groups.0.betas", [0.9]),
    "fused": ("optimizer.param_groups.0.fused", {"a": 1}),
    "schedule as null": ("schedule", None),
    "an attribute of the schedule": ("schedule.optimizer", {"a": 1}),
    "a function of the schedule": ("schedule.lr_lambdas", [{"__code__": "x"}]),
    "rates of the schedule": ("schedule.base_lrs", ["x"]),
    "identity": ("identity", {"seed": "__import__('os')"}),
}


@pytest.mark.parametrize("case", VALUES)
def test_values_of_another_type(case: str, state: State, folder: Path):
    place, value = VALUES[case]
    file = folder / "state.json"
    values = json.loads(file.read_text())
    inner = values
    *path, last = place.split(".")
    for name in path:
        inner = inner[int(name)] if name.isdigit() else inner[name]
    inner[last] = value
    file.write_text(json.dumps(values))
    refusal(state.load, folder)


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, "{}", "null"])
@pytest.mark.parametrize("name", ["state.json", "rank-00000.json"])
def test_json_that_is_none(text: str, name: str, state: State, folder: Path):
    (folder / name).write_text(text)
    refusal(state.load, folder)


@pytest.mark.parametrize("position", [-1, 1 << 40, "x", None])
def test_a_position_beyond_the_random_numbers(position: Any, state: State, folder: Path):
    file = folder / "rank-00000.json"
    values = json.loads(file.read_text())
    values["numpy"][1] = position
    file.write_text(json.dumps(values))
    refusal(state.load, folder)


@pytest.mark.parametrize(
    "files",
    [
        {"../secret": {"size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}},
        {"/etc/passwd": {"size": 1, "sha256": ""}},
        {"state.json": None},
        {"state.json": {"size": "x"}},
        [],
    ],
)
def test_a_manifest_that_lies(files: Any, folder: Path):
    (folder.parent / "secret").write_text("x")
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "files": files}))
    assert check_manifest(folder) is not None
    (folder / "manifest.json").write_text("[" * 100_000)
    assert "nested" in str(check_manifest(folder))


@pytest.mark.parametrize("aliases", [{"a": "b"}, [], 5, None, {"a": ["b"]}])
def test_a_checkpoint_that_is_loaded_as_a_model(aliases: Any, copy_of: Callable[[str], Path]):
    folder = copy_of("lm")
    checkpoint = folder / "checkpoints" / "step-000001"
    checkpoint.mkdir(parents=True)
    shutil.copy(folder / "model.safetensors", checkpoint)
    (checkpoint / "state.json").write_text(json.dumps({"aliases": aliases}))
    refusal(load_model, checkpoint)
