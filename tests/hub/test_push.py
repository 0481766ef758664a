"""Uploads to a hub through the real client; the hub is `tests/hub/hub_server.py`."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import _http
from huggingface_hub.utils import tqdm as hub_bar
from safetensors.torch import load_file, save_file
from tqdm import tqdm
from transformers.utils.hub import hf_api

from hf_genmodels.cli import main as genmodels
from hf_genmodels.config.hub import HubConfig
from hf_genmodels.engine.uploading import SNAPSHOTS, Uploads
from hf_genmodels.errors import UserError
from hf_genmodels.hub import clean_process
from hf_genmodels.hub.folder import companion_names, publish_folder, published_files
from hf_genmodels.hub.judge_card import publish_judge
from hf_genmodels.hub.loading import (
    load_companion,
    load_model,
    load_target_tokenizer,
    load_tokenizer_if_any,
)
from hf_genmodels.hub.probe import output_of, probe_of
from hf_genmodels.hub.push import plan_push, push_folder
from hf_genmodels.hub.repository import explain
from hf_genmodels.hub.verify import TEXT, same_bits
from hf_genmodels.models.configuration_judge import GenJudgeConfig
from hf_genmodels.models.configuration_rnn_seq2seq import GenRNNSeq2SeqConfig
from hf_genmodels.models.modeling_judge import GenJudgeForImageClassification
from hf_genmodels.models.modeling_rnn_seq2seq import GenRNNSeq2SeqForConditionalGeneration
from tests.hub import generators, hub_server
from tests.hub.conftest import random_model
from tests.hub.hub_server import OTHER_TOKEN, TOKEN, Faults, HubServer
from tests.hub.translators import make_tokenizer, make_translator

ALWAYS = 10_000
IDS = ("pad_token_id", "bos_token_id", "eos_token_id")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """An empty hub that this process's client talks to, logged in as ada."""
    with HubServer() as server:
        cache = tmp_path / "hf"
        for name, value in hub_server.client_settings(server.url, cache).items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(_http, "time", hub_server.hurried())
        monkeypatch.setattr(hf_api(), "endpoint", server.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published pair. Not to be changed."""
    return publish_folder(
        generators.generator(),
        None,
        tmp_path_factory.mktemp("gan") / "toy",
        companions={"discriminator": generators.discriminator()},
    )


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published translator with a vocabulary for each side. Not to be changed."""
    source, target = make_tokenizer(), make_tokenizer(more_tokens=2)
    ids = {name: getattr(target, name) for name in IDS}
    model = make_translator(vocab_size=len(target), source_vocab_size=len(source), **ids)
    folder = tmp_path_factory.mktemp("translator") / "toy"
    return publish_folder(model, source, folder, target_tokenizer=target)


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = make_tokenizer()
    ids = {name: getattr(tokenizer, name) for name in IDS}
    config = GenRNNSeq2SeqConfig(
        vocab_size=len(tokenizer), hidden_size=16, encoder_layers=1, decoder_layers=1, **ids
    )
    torch.manual_seed(0)
    model = GenRNNSeq2SeqForConditionalGeneration(config).eval()
    return publish_folder(model, tokenizer, tmp_path_factory.mktemp("recurrent") / "toy")


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = GenJudgeConfig(image_size=8, width=4, feature_dim=8, num_labels=3)
    model = GenJudgeForImageClassification(config).eval()
    return publish_judge(model, tmp_path_factory.mktemp("judge") / "toy", "noise")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.as_posix(): (folder / path).read_bytes() for path in published_files(folder)}


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Every entry of a folder with its time and number, to see that nothing was touched."""
    entries = sorted(folder.rglob("*"))
    return {str(entry): (entry.stat().st_mtime_ns, entry.stat().st_ino) for entry in entries}


def change_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    name = min(weights)
    weights[name] = weights[name] + 1
    staged = file.with_suffix(".new")
    save_file(weights, staged, {"format": "pt"})
    staged.replace(file)


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


FAILURES: dict[str, tuple[dict[str, Any], str]] = {
    "wrong token": ({"token": "hf_wrongTokenOfNobody"}, "does not accept the token that was given"),
    "no such user": ({"repo_id": "carl/toy"}, "no user or organisation 'carl'"),
    "no right": ({"repo_id": "bob/toy"}, "may not write to bob/toy.*rights.*hf auth whoami"),
    "cut": ({"faults": Faults(cut_uploads=ALWAYS)}, "connection to the hub failed.*try again"),
    "server error": ({"faults": Faults(server_errors=ALWAYS)}, "status 500.*Try again later"),
    "no space": ({"faults": Faults(no_space=1)}, "no room left.*storage limit.*Delete"),
    "echo": ({"faults": Faults(echoes_token=ALWAYS)}, r"failed for Bearer \*\*\*"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_is_one_line_that_says_what_to_do(
    hub: HubServer, published: Path, case: str, capfd: pytest.CaptureFixture[str]
) -> None:
    options, words = FAILURES[case]
    options = dict(options)
    hub.faults = options.pop("faults", Faults())
    before = state_of(published)

    with pytest.raises(UserError, match=words) as refusal:
        push_folder(published, options.pop("repo_id", "ada/toy"), **options)

    printed = "".join(capfd.readouterr())
    for secret in (TOKEN, "hf_wrongTokenOfNobody"):
        assert secret not in str(refusal.value) + printed
    assert "\n" not in str(refusal.value)
    assert state_of(published) == before
    hub.faults = Faults()
    push_folder(published, "ada/toy")
    assert hub.files("ada/toy") == contents(published)


def test_a_connection_that_is_cut_once_costs_nothing(hub: HubServer, published: Path) -> None:
    hub.faults = Faults(cut_uploads=1)

    push_folder(published, "ada/toy")

    assert hub.faults.cut_uploads == 0
    assert hub.files("ada/toy") == contents(published)


def test_without_a_login_or_a_network_nothing_is_asked(
    hub: HubServer, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE"):
        push_folder(published, "ada/toy")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match=r"Nobody is logged in.*hf auth login"):
        push_folder(published, "ada/toy")
    assert hub.log == []


def test_a_full_disk_and_a_proxy_have_words_of_their_own() -> None:
    full = RuntimeError("upload")
    full.__cause__ = OSError(errno.ENOSPC, "No space left on device", "/cache/part")
    assert explain(full, "ada/toy") == (
        "No space left on device: /cache/part. Make room and try again."
    )
    assert "no hub" in explain(json.JSONDecodeError("Expecting value", "<html>", 0), "ada/toy")


@pytest.mark.parametrize(
    "name",
    ["toy", "ada/../toy", "ada/to y", "ada/a--b", "../toy", "ada/toy/x", "ada/", "ada/toy.git", ""],
)
def test_names_that_no_hub_takes_are_refused_before_it_is_asked(
    hub: HubServer, published: Path, name: str
) -> None:
    with pytest.raises(UserError, match="Write user/name"):
        push_folder(published, name)
    with pytest.raises(UserError, match="Write user/name"):
        HubConfig(push_to_hub=True, hub_model_id=name or " ").check_hub()
    assert hub.log == []


@pytest.mark.parametrize("name", ["a b", "../x", "a//b", "-x", "x.lock", ".x", "x/"])
def test_names_that_no_branch_has_are_refused(hub: HubServer, published: Path, name: str) -> None:
    with pytest.raises(UserError, match="--revision"):
        push_folder(published, "ada/toy", revision=name)
    assert hub.log == []


def test_what_is_no_published_folder_is_refused(hub: HubServer, copy: Path, tmp_path: Path) -> None:
    def refused(folder: Path) -> str:
        with pytest.raises(UserError) as refusal:
            push_folder(folder, "ada/toy")
        return str(refusal.value)

    assert "There is no folder" in refused(tmp_path / "none")
    assert "config.json is missing" in refused(tmp_path)
    (copy / "modeling_gpt.py").rename(copy / "kept")
    assert "modeling_gpt.py is missing" in refused(copy)
    (copy / "kept").rename(copy / "modeling_gpt.py")
    checkpoint = copy / "checkpoints" / "step-3"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.json").write_text("{}")
    assert "is a training state" in refused(checkpoint)
    (checkpoint / "x.png").write_bytes(b"x")
    card = (copy / "README.md").read_text()
    (copy / "README.md").write_text(f"{card}\n![x](checkpoints/step-3/x.png)\n")
    assert "has no place on a hub" in refused(copy)
    (copy / "README.md").unlink()
    assert "no model card" in refused(copy)
    (copy / "model.safetensors").write_bytes(b"cut")
    assert "damaged or cut short" in refused(copy)
    assert hub.log == []


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


def test_a_folder_that_changes_meanwhile_is_told(
    hub: HubServer, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = hub_server.Handler._commit

    def publishing(self: Any, **fields: str) -> None:
        change_weights(copy)
        create(self, **fields)

    monkeypatch.setattr(hub_server.Handler, "_commit", publishing)
    with pytest.raises(UserError, match="written to while it was uploaded"):
        push_folder(copy, "ada/toy")


def request_for(repo_id: str, folder: Path, scratch: Path) -> dict[str, Any]:
    """What a stranger shall do with a repository, and what is expected of it."""
    model = load_model(folder)
    probe = probe_of(model)
    stem = repo_id.replace("/", "-")
    save_file(
        {name: value.contiguous() for name, value in probe.inputs.items()}, scratch / f"{stem}-in"
    )
    save_file({"output": output_of(model, probe).contiguous()}, scratch / f"{stem}-expected")
    return {
        "folder": repo_id,
        "remote_code": True,
        "companions": companion_names(folder),
        "auto_classes": probe.auto_classes,
        "head": probe.auto_classes[-1],
        "task": probe.task,
        "inputs_file": str(scratch / f"{stem}-in"),
        "output": probe.output,
        "output_file": str(scratch / f"{stem}-out"),
        "text": TEXT if load_tokenizer_if_any(folder) is not None else None,
        "prompt": probe.prompt,
        "options": dict(probe.options),
        "num_threads": torch.get_num_threads(),
    }


def ask_a_stranger(hub: HubServer, requests: list[dict[str, Any]], scratch: Path) -> list[Any]:
    """Load models in a new interpreter that has neither this package nor a token."""
    file = scratch / "requests.json"
    file.write_text(json.dumps(requests))
    script = Path(__file__).with_name("stranger.py")
    environment = {name: value for name, value in os.environ.items() if "TOKEN" not in name}
    environment |= {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(scratch / "home"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    process = subprocess.run(
        [sys.executable, "-I", str(script), str(file), clean_process.__file__],
        env=environment,
        cwd=scratch,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    reports: list[Any] = json.loads((scratch / "reports.json").read_text())
    return reports


def test_strangers_load_every_family_from_the_hub(
    hub: HubServer,
    published: Path,
    translator: Path,
    recurrent: Path,
    gan: Path,
    judge: Path,
    tmp_path: Path,
) -> None:
    folders = {
        "ada/writer": published,
        "ada/translator": translator,
        "ada/recurrent": recurrent,
        "ada/painter": gan,
        "ada/judge": judge,
    }
    requests = [request_for(name, folder, tmp_path) for name, folder in folders.items()]
    for name, folder in folders.items():
        push_folder(folder, name)
        by_method = f"{name}-by-method"
        load_model(folder).push_to_hub(by_method)
        one = request_for(by_method, folder, tmp_path)
        requests.append(one | {"companions": [], "text": None, "task": ""})

    reports = ask_a_stranger(hub, requests, tmp_path)

    assert [report["error"] for report in reports] == [None] * len(requests)
    for request, report in zip(requests, reports, strict=True):
        expected = load_file(request["inputs_file"].replace("-in", "-expected"))["output"]
        assert same_bits(load_file(request["output_file"])["output"], expected)
        if request["folder"] in folders:
            folder = folders[request["folder"]]
            for name, data in contents(folder).items():
                assert (Path(report["snapshot"]) / name).read_bytes() == data
            assert bool(report["generated"]) == bool(request["task"])


def test_our_own_loading_takes_the_name_of_a_repository(
    hub: HubServer, gan: Path, translator: Path, published: Path
) -> None:
    push_folder(gan, "ada/painter")
    push_folder(translator, "ada/translator")
    push_folder(published, "ada/writer")

    companion = load_companion("ada/painter", "discriminator")
    assert companion is not None
    for name, weights in load_companion(gan, "discriminator").state_dict().items():  # type: ignore[union-attr]
        assert same_bits(companion.state_dict()[name], weights)
    target = load_target_tokenizer("ada/translator")
    assert len(target) == load_model("ada/translator").config.vocab_size
    assert load_target_tokenizer("ada/writer") is None
    assert load_companion("ada/writer", "discriminator") is None
    with pytest.raises(UserError, match="the hub does not give a model of that name"):
        load_companion("ada/nothing", "discriminator")


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
