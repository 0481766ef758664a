"""Runs that upload what they publish; the hub is `tests/hub/hub_server.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_genmodels.hub.folder import publish_folder, published_files
from hf_genmodels.hub.judge_card import publish_judge
from hf_genmodels.hub.push import push_folder
from hf_genmodels.models.configuration_judge import GenJudgeConfig
from hf_genmodels.models.modeling_judge import GenJudgeForImageClassification
from tests import runs
from tests.hub import generators
from tests.hub.conftest import model, published, tokenizer, translator
from tests.hub.hub_server import TOKEN, Faults, HubServer, lend_hub, use_failing_hub, use_hub

__all__ = ["model", "published", "tokenizer", "translator"]

ALWAYS = 10_000
EVERY = {"eval_every": 2, "save_every": 2, "publish": "last", "push_to_hub": "true"}


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture(autouse=True)
def patience(hub: HubServer) -> None:
    hub.faults = Faults()
    hub.large_files.clear()  # equal runs have equal weights


def run(arguments: list[str], folder: Path, hub: HubServer, prepare: Any = use_hub) -> str:
    """Train, or go on, and return what was printed."""
    new = [] if "--resume" in arguments else ["--output_dir", str(folder)]
    outcome = runs.run(
        [*arguments, *new],
        folder.with_suffix(".log"),
        prepare=prepare,
        prepare_arguments=(hub.url, str(folder.parent / "hf")),
        environment={"HF_HUB_OFFLINE": "0"},
    )
    output = outcome.succeeded().output
    assert TOKEN not in output
    for file in folder.rglob("*"):
        assert not file.is_file() or TOKEN.encode() not in file.read_bytes()
    return output


def contents(folder: Path) -> dict[str, bytes]:
    return {path.as_posix(): (folder / path).read_bytes() for path in published_files(folder)}


def test_a_language_model_goes_up_with_every_version(
    hub: HubServer, train_file: Path, tmp_path: Path
) -> None:
    output = run(
        runs.tiny_run(train_file, **EVERY, hub_model_id="ada/book", hub_private="true"),
        tmp_path / "run",
        hub,
    )

    assert hub.files("ada/book") == contents(tmp_path / "run")
    assert hub.repositories["ada/book"].private
    messages = hub.commits("ada/book")
    assert messages[0] == "Model after 2 steps"
    assert len(messages) > 1
    assert f"{hub.url}/ada/book" in output
    assert 'model="ada/book"' in hub.files("ada/book")["README.md"].decode()
    assert not (tmp_path / "run" / ".uploading").exists()
    assert "%|" not in output[: output.index("step 10/10")]  # no bars while it trains


@pytest.mark.parametrize("faults", [{"server_errors": ALWAYS}, {"cut_uploads": ALWAYS}])
def test_a_hub_that_fails_stops_nothing_and_gets_the_model_in_the_end(
    hub: HubServer, pair_file: Path, tmp_path: Path, faults: dict[str, int]
) -> None:
    name = f"ada/{next(iter(faults))}"
    hub.faults = Faults(**faults)

    output = run(
        runs.tiny_translation(pair_file, **EVERY, hub_model_id=name),
        tmp_path / "run",
        hub,
        use_failing_hub,
    )

    assert output.count("was not uploaded") == 1
    assert output.count("Retrying") == 0
    assert "step 10/10" in output
    assert hub.files(name) == contents(tmp_path / "run")
    assert hub.commits(name) == ["Upload the model"]


def test_a_hub_that_stays_away_costs_an_upload_which_the_same_run_makes_up_for(
    hub: HubServer, image_table: Path, tmp_path: Path
) -> None:
    hub.faults = Faults(server_errors=ALWAYS)
    folder = tmp_path / "run"
    arguments = runs.tiny_gan(image_table, **EVERY, hub_model_id="ada/bars", hub_private="true")

    output = run(arguments, folder, hub)

    assert f"genmodels push {folder} ada/bars --private" in output
    assert "ada/bars" not in hub.repositories
    assert (folder / "discriminator" / "model.safetensors").is_file()

    hub.faults = Faults()
    run(["train", "gan", "--resume", str(folder)], folder, hub)
    assert hub.files("ada/bars") == contents(folder)
    assert hub.repositories["ada/bars"].private
    hub.repositories.pop("ada/bars")


def test_a_finished_run_goes_up_when_it_is_started_again_with_a_repository(
    hub: HubServer, pair_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    run(runs.tiny_translation(pair_file, max_steps=2), folder, hub)
    weights = runs.weights(folder)
    options = ["--push_to_hub", "true", "--hub_model_id", "ada/later"]
    run(["train", "seq2seq", "--resume", str(folder), *options], folder, hub)
    assert hub.files("ada/later") == contents(folder)
    assert runs.weights(folder) == weights


def test_a_gan_goes_up_and_another_begins_with_it(
    hub: HubServer, image_table: Path, tmp_path: Path
) -> None:
    run(runs.tiny_gan(image_table, **EVERY, hub_model_id="ada/bars"), tmp_path / "run", hub)
    assert hub.files("ada/bars") == contents(tmp_path / "run")

    base = {"model_name_or_path": "ada/bars", "image_size": 16, "max_steps": 2}
    widths = dict.fromkeys(name for name in runs.TINY_GAN if name.startswith("model."))
    run(runs.tiny_gan(image_table, **{**widths, **base}), tmp_path / "next", hub)
    config = json.loads((tmp_path / "next" / "config.json").read_text())
    assert config["generator_width"] == 4


def test_a_judge_goes_up(hub: HubServer, image_table: Path, tmp_path: Path) -> None:
    arguments = ["train", "judge", "--train_file", str(image_table), "--image_size", "16"]
    arguments += ["--epochs", "1", "--max_steps", "2", "--width", "4"]

    run([*arguments, "--push_to_hub", "--hub_model_id", "ada/judge"], tmp_path / "judge", hub)

    assert hub.files("ada/judge") == contents(tmp_path / "judge")
    assert '"ada/judge"' in hub.files("ada/judge")["README.md"].decode()


def test_without_a_login_a_run_does_not_begin(
    hub: HubServer, train_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lend_hub(monkeypatch, hub.url, tmp_path / "hf")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    options = {"push_to_hub": "true", "hub_model_id": "ada/book", "output_dir": tmp_path / "run"}

    assert "Nobody is logged in" in runs.call(runs.tiny_run(train_file, **options)).error
    assert not (tmp_path / "run").exists()
    options["hub_model_id"] = "ada/../book"
    assert "no name of a repository" in runs.call(runs.tiny_run(train_file, **options)).error


def random_gan(folder: Path) -> Path:
    """Publish a generator and a discriminator of the pictures' size and classes."""
    fields = {"image_size": 16, "id2label": {0: "inside", 1: "left"}}
    critic = generators.discriminator(**fields)
    return publish_folder(
        generators.generator(**fields), None, folder, companions={"discriminator": critic}
    )


def random_judge(folder: Path) -> Path:
    """Publish a judge of the pictures' size."""
    torch.manual_seed(0)
    config = GenJudgeConfig(image_size=16, width=4, feature_dim=8, num_labels=2)
    return publish_judge(GenJudgeForImageClassification(config).eval(), folder, "bars")


def test_commands_take_the_name_of_a_repository(
    hub: HubServer,
    published: Path,
    translator: Path,
    image_table: Path,
    pair_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lend_hub(monkeypatch, hub.url, tmp_path / "hf")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    push_folder(random_gan(tmp_path / "gan"), "ada/painter")
    push_folder(random_judge(tmp_path / "judge"), "ada/expert")
    push_folder(published, "ada/writer")
    push_folder(translator, "ada/translator")

    drawn = runs.call(["generate", "ada/painter", "--num_images", "2", "--output", "images"])
    drawn.succeeded()
    assert len(list((tmp_path / "images").glob("*.png"))) >= 2
    measured = ["evaluate", "ada/painter", "--file", str(image_table), "--num_samples", "32"]
    runs.call([*measured, "--judge", "ada/expert"]).succeeded()
    runs.call(["generate", "ada/writer", "The river"]).succeeded()
    runs.call(["generate", "ada/translator", "the river"]).succeeded()
    runs.call(["evaluate", "ada/translator", "--file", str(pair_file)]).succeeded()
