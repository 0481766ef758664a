"""Uploads that fail or are refused, through the real client; the hub is `tests/hub/hub_server.py`."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from hf_genmodels.config.hub import HubConfig
from hf_genmodels.errors import UserError
from hf_genmodels.hub.push import push_folder
from hf_genmodels.hub.repository import explain
from tests.hub import hub_server
from tests.hub.folders import change_weights, contents, state_of
from tests.hub.hub_server import TOKEN, Faults, HubServer

ALWAYS = 10_000
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
