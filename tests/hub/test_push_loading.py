"""Models that were uploaded, loaded by strangers and by us; the hub is `tests/hub/hub_server.py`."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers.utils.hub import hf_api

from hf_genmodels.errors import UserError
from hf_genmodels.hub import clean_process
from hf_genmodels.hub.folder import companion_names
from hf_genmodels.hub.loading import (
    load_companion,
    load_model,
    load_target_tokenizer,
    load_tokenizer_if_any,
)
from hf_genmodels.hub.probe import output_of, probe_of
from hf_genmodels.hub.push import push_folder
from hf_genmodels.hub.verify import TEXT, same_bits
from hf_genmodels.models.modeling_gan import GenGANDiscriminator
from tests.hub.folders import contents
from tests.hub.hub_server import HubServer, lend_hub


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
        "calls": [dataclasses.asdict(call) for call in probe.calls],
        "inputs_file": str(scratch / f"{stem}-in"),
        "output": probe.output,
        "output_file": str(scratch / f"{stem}-out"),
        "text": TEXT if load_tokenizer_if_any(folder) is not None else None,
        "picture": None,
        "processors": [],
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


def test_a_hub_is_forgotten_with_its_test(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        lend_hub(patch, "http://127.0.0.1:9", tmp_path)
        assert hf_api().endpoint == constants.ENDPOINT == "http://127.0.0.1:9"
    assert hf_api().endpoint == constants.ENDPOINT != "http://127.0.0.1:9"


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
        requests.append(one | {"companions": [], "text": None, "calls": []})

    reports = ask_a_stranger(hub, requests, tmp_path)

    assert [report["error"] for report in reports] == [None] * len(requests)
    for request, report in zip(requests, reports, strict=True):
        expected = load_file(request["inputs_file"].replace("-in", "-expected"))["output"]
        assert same_bits(load_file(request["output_file"])["output"], expected)
        if request["folder"] in folders:
            folder = folders[request["folder"]]
            for name, data in contents(folder).items():
                assert (Path(report["snapshot"]) / name).read_bytes() == data
            assert bool(report["generated"]) == bool(request["calls"])


def test_a_stranger_loads_a_discriminator_that_was_uploaded_alone(
    hub: HubServer, gan: Path, tmp_path: Path
) -> None:
    discriminator = load_companion(gan, "discriminator")
    assert discriminator is not None
    images = torch.linspace(-1, 1, 2 * 8 * 8).view(2, 1, 8, 8)
    labels = torch.tensor([0, 2])
    inputs = {"images": images, "class_labels": labels}
    save_file(inputs, tmp_path / "in")
    request = request_for("ada/critic", gan, tmp_path) | {
        "companions": [],
        "text": None,
        "calls": [],
        "inputs_file": str(tmp_path / "in"),
        "output": "logits",
    }

    discriminator.push_to_hub("ada/critic")
    (report,) = ask_a_stranger(hub, [request], tmp_path)

    assert report["error"] is None
    with torch.no_grad():
        expected = discriminator(**inputs).logits
    assert same_bits(load_file(request["output_file"])["output"], expected)
    assert isinstance(load_model("ada/critic"), GenGANDiscriminator)


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
