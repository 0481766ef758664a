"""The folder of a Space: what is in it, and that its app runs on a local model."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from hf_genmodels.demo.command import main
from hf_genmodels.demo.space import write_space
from hf_genmodels.errors import UserError
from hf_genmodels.hub import clean_process

gradio = pytest.importorskip("gradio")
ID = "ada/toy-model"
CALLS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "writer": ("write", ("Once", 8, 0.8, 0.9, 1)),
    "translator": ("rewrite", ("Good morning.", 3, 2)),
    "class": ("draw", (1, 2, 0, 1.0)),
    "attributes": ("draw", ([0, 2], 2, 0, 1.0)),
    "text": ("draw", ("a red heart", 2, 0, 1.0)),
    "none": ("draw", (2, 0, 1.0)),
    "pixels": ("draw", ("a red heart", 2, 0, 1.0, 2.0, 1.0)),
}


@pytest.fixture(scope="module")
def spaces(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("spaces")
    return {kind: write_space(models[kind], folder / kind, ID) for kind in CALLS}


@pytest.mark.parametrize("kind", CALLS)
def test_a_space_is_complete_and_its_app_runs(kind, models, spaces, monkeypatch):
    assert sorted(path.name for path in spaces[kind].iterdir()) == [
        "README.md",
        "app.py",
        "requirements.txt",
    ]
    _, header, _ = (spaces[kind] / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    fields = yaml.safe_load(header)
    assert fields["sdk"] == "gradio"
    assert fields["sdk_version"] == gradio.__version__
    assert fields["title"] == "toy-model"
    assert fields["models"] == [ID]
    source = (spaces[kind] / "app.py").read_text(encoding="utf-8")
    assert f'"{ID}"' in source
    assert "hf_genmodels" not in source
    assert len(source.splitlines()) < 70
    monkeypatch.setenv("MODEL_ID", str(models[kind]))
    app = runpy.run_path(str(spaces[kind] / "app.py"))
    name, inputs = CALLS[kind]
    made = app[name](*inputs)
    if kind == "writer":
        assert made.startswith("Once")
    else:
        assert len(made) == 2
    with pytest.raises(gradio.Error):
        app[name](*(["x" * 100_000, *inputs[1:]] if name != "draw" else [*inputs[:-1], 2.0]))


def test_apps_are_in_the_style_of_the_project(spaces):
    files = [str(spaces[kind] / "app.py") for kind in CALLS]
    for command in (["check", "--select", "E,F,I,UP,B"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--line-length=100", *files],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_requirements_have_the_floors_of_this_package(spaces):
    lines = (spaces["class"] / "requirements.txt").read_text(encoding="utf-8").splitlines()
    found = {Requirement(line).name: Requirement(line) for line in lines}
    assert list(found) == ["torch", "transformers", "gradio"]
    assert all(str(one.specifier).startswith(">=") for one in found.values())


def test_a_space_needs_a_new_folder_and_the_name_of_the_model(models, tmp_path, capsys):
    with pytest.raises(UserError, match="--hub_model_id user/name"):
        main([str(models["class"]), "--space", str(tmp_path / "space")])
    with pytest.raises(UserError, match="no name of a repository"):
        write_space(models["class"], tmp_path / "space", 'a/b"')
    assert not (tmp_path / "space").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        write_space(models["class"], tmp_path / "full", ID)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    with pytest.raises(UserError, match="is a file"):
        write_space(models["class"], tmp_path / "full" / "mine.txt", ID)
    (tmp_path / "empty").mkdir()
    main([str(models["class"]), "--space", str(tmp_path / "empty"), "--hub_model_id", ID])
    assert "app.py" in capsys.readouterr().out
    assert len(list((tmp_path / "empty").iterdir())) == 3


STRANGER = """\
import importlib.util, json, os, runpy, sys
spec = importlib.util.spec_from_file_location("clean_process", sys.argv[1])
clean = importlib.util.module_from_spec(spec)
spec.loader.exec_module(clean)
sys.meta_path.insert(0, clean.PackageBlocker())
for app, model, name, inputs in json.loads(sys.argv[2]):
    os.environ["MODEL_ID"] = model
    made = runpy.run_path(app)[name](*inputs)
    print(len(made))
assert "hf_genmodels" not in sys.modules
"""


@pytest.mark.slow
def test_apps_run_where_this_package_is_not(models, spaces, tmp_path):
    runs = [
        [str(spaces[kind] / "app.py"), str(models[kind]), name, inputs]
        for kind, (name, inputs) in CALLS.items()
    ]
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, clean_process.__file__, json.dumps(runs)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1:] == ["2"] * 6
