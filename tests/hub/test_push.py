"""Uploads to a hub through the real client; the hub is `tests/hub/hub_server.py`."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.utils import tqdm as hub_bar
from tqdm import tqdm

from hf_genmodels.cli import main as genmodels
from hf_genmodels.config.hub import HubConfig
from hf_genmodels.engine.uploading import SNAPSHOTS, Uploads
from hf_genmodels.errors import UserError
from hf_genmodels.hub.folder import publish_folder, published_files
from hf_genmodels.hub.loading import (
    load_model,
)
from hf_genmodels.hub.push import plan_push, push_folder
from tests.hub.conftest import random_model
from tests.hub.folders import change_weights, contents, state_of
from tests.hub.hub_server import OTHER_TOKEN, HubServer


def test_what_belongs_to_the_model_goes_up_in_one_commit_and_nothing_is_touched(
    hub: HubServer, copy: Path
) -> None:
    expected = contents(copy)
    for name in (
        "checkpoints/step-3/optimizer.safetensors",
        "checkpoints/step-3/config.json",
        ".lock",
        ".env",
        "metrics.jsonl",
        "config.yaml",
        "report/results.json",
        "report/picture.png",
        "notes.md",
        "training.py",
    ):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("x")
    with (copy / "README.md").open("a") as card:
        card.write("\n![curve](report/picture.png) ![secret](.env) ![gone](report/none.png)\n")
    before = state_of(copy)

    report = push_folder(copy, "ada/toy", message="First of all")

    found = hub.files("ada/toy")
    assert set(found) == {*expected, "report/picture.png"}
    assert found == contents(copy)
    assert hub.commits("ada/toy") == ["First of all"]
    assert (report.address, report.is_new) == (f"{hub.url}/ada/toy", True)
    assert report.commit == hub.repositories["ada/toy"].branches["main"][-1].oid
    assert state_of(copy) == before


def test_a_second_upload_sends_only_what_changed(hub: HubServer, gan: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(gan, tmp_path / "gan")
    push_folder(folder, "ada/gan")
    assert len(hub.uploads()) == len(published_files(folder))

    hub.log.clear()
    assert not push_folder(folder, "ada/gan").is_new
    assert hub.uploads() == []
    assert len(hub.commits("ada/gan")) == 1

    change_weights(folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# another card\n")
    assert push_folder(folder, "ada/gan").is_new
    large = [path for path in hub.uploads() if path.startswith("/lfs/")]
    assert len(large) == 1
    assert [path for path in hub.uploads() if path not in large] == ["README.md"]
    assert hub.files("ada/gan") == contents(folder)


def test_weights_of_an_earlier_model_do_not_stay_beside_the_new_ones(
    hub: HubServer, copy: Path, model: Any, tmp_path: Path
) -> None:
    push_folder(copy, "ada/toy")
    sharded = shutil.copytree(copy, tmp_path / "sharded")
    (sharded / "model.safetensors").unlink()
    model.save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    parts = list((tmp_path / "parts").glob("model*"))
    assert len(parts) > 2
    for part in parts:
        shutil.copyfile(part, sharded / part.name)

    push_folder(sharded, "ada/toy")
    assert hub.files("ada/toy") == contents(sharded)
    push_folder(copy, "ada/toy")
    assert hub.files("ada/toy") == contents(copy)


def test_a_private_repository_and_a_branch_are_made(
    hub: HubServer, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_folder(published, "ada/secret", private=True, revision="tries/second")

    assert hub.repositories["ada/secret"].private
    assert hub.files("ada/secret", "tries/second") == contents(published)
    assert hub.files("ada/secret") == {}
    push_folder(published, "ada/secret", private=True, revision="tries/second")
    monkeypatch.setenv("HF_TOKEN", OTHER_TOKEN)
    with pytest.raises(UserError, match="hub does not give a model of that name"):
        load_model("ada/secret")


def test_what_shall_be_private_does_not_go_into_a_public_repository(
    hub: HubServer, published: Path, copy: Path
) -> None:
    push_folder(published, "ada/open")
    change_weights(copy)

    with pytest.raises(UserError, match=r"everybody can read it\. Nothing was uploaded"):
        push_folder(copy, "ada/open", private=True)

    assert hub.files("ada/open") == contents(published)


def test_the_command_line(
    hub: HubServer, published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    genmodels(["push", str(published), "ada/toy", "--dry_run"])
    listed = capsys.readouterr().out
    size = (published / "model.safetensors").stat().st_size
    assert f"{size:,}  model.safetensors" in listed
    assert f"{sum(map(len, contents(published).values())):,}  bytes in" in listed
    assert hub.log == []

    genmodels(["push", str(published), "ada/toy", "--private", "--message", "hello there"])
    assert f"{hub.url}/ada/toy (commit " in capsys.readouterr().out
    assert hub.commits("ada/toy") == ["hello there"]
    assert hub.repositories["ada/toy"].private
    genmodels(["push", str(published), "ada/toy"])
    assert "nothing to upload" in capsys.readouterr().out

    with pytest.raises(SystemExit):
        genmodels(["push", str(published), "ada/toy", "--token", "hf_x"])
    assert "--token" in capsys.readouterr().err


def test_a_run_uploads_each_version_as_it_was_and_leaves_out_what_is_superseded(
    hub: HubServer, tokenizer: Any, model: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "out"
    uploads = Uploads(folder, HubConfig(push_to_hub=True, hub_model_id="ada/run"))
    versions = []
    hub.gate.clear()
    for step in (1, 2, 3):
        torch.manual_seed(step)
        version = random_model(tokenizer)
        torch.nn.init.normal_(version.lm_head.weight, std=step)
        publish_folder(version, tokenizer, folder)
        versions.append((folder / "model.safetensors").read_bytes())
        uploads.begin(step)
        while step == 1 and not any(method == "PUT" for method, _ in hub.log):
            time.sleep(0.01)
    hub.gate.set()
    while uploads._thread is not None:
        time.sleep(0.01)

    report = uploads.finish()

    assert hub.commits("ada/run") == ["Model after 1 steps", "Model after 3 steps"]
    first, last = hub.repositories["ada/run"].branches["main"][1:]
    assert first.files["model.safetensors"] == versions[0]
    assert last.files["model.safetensors"] == versions[2]
    assert report is not None
    assert not report.is_new
    # One list of bars, one lock: else a bar of the client ends a run that is about to log a line.
    assert hub_bar.get_lock() is tqdm.get_lock()
    assert not (folder / SNAPSHOTS).exists()


def test_a_plan_counts_what_is_there(published: Path) -> None:
    plan = plan_push(published, "ada/toy", "v2")

    assert plan.sizes == {name: len(data) for name, data in contents(published).items()}
    assert plan.revision == "v2"
