"""`genmodels train lm`: what it trains from, what it writes, and what it says."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests import runs


def train(train_file: Path | None, folder: Path, **options: Any) -> runs.Outcome:
    return runs.call(runs.tiny_run(train_file, output_dir=folder, **options)).succeeded()


def state_of(folder: Path) -> dict[str, Any]:
    """The loop's state in the newest checkpoint."""
    newest = max(folder.glob("checkpoints/step-*"))
    return json.loads((newest / "state.json").read_text())["loop"]


def test_the_same_command_writes_the_same_bytes(train_file: Path, tmp_path: Path):
    for name in ("one", "two"):
        train(train_file, tmp_path / name, model__residual_dropout=0.1)
    assert runs.weights(tmp_path / "one") == runs.weights(tmp_path / "two")
    assert runs.losses(tmp_path / "one") == runs.losses(tmp_path / "two")


@pytest.mark.verified
def test_a_finished_run_is_published_completely_and_proved_in_a_clean_process(
    train_file: Path, tmp_path: Path
):
    folder = tmp_path / "run"
    options = {"eval_every": 5, "sample__max_new_tokens": 8, "license": "cc-by-4.0"}
    output = train(train_file, folder, **options).output
    assert "a clean offline process without hf_genmodels loaded it" in output
    assert f"genmodels generate {folder}" in output
    names = {path.name for path in folder.iterdir()}
    assert {
        "model.safetensors", "config.json", "generation_config.json", "tokenizer.json",
        "tokenizer_config.json", "modeling_gpt.py", "configuration_gpt.py", "README.md",
        "metrics.jsonl", "config.yaml", "checkpoints", "report",
    } <= names  # fmt: skip
    assert not [name for name in names if name.startswith(".") and name != ".lock"]
    report = {path.name for path in (folder / "report").iterdir()}
    assert report == {
        "loss_curve.png",
        "learning_rate.png",
        "samples.md",
        "results.json",
        "card.json",
    }


def test_the_card_names_the_text_that_was_measured(
    train_file: Path, validation_file: Path, tmp_path: Path
):
    from huggingface_hub import ModelCard

    for options, name in (
        ({}, "last 5 % of train.txt"),
        ({"validation_split_percentage": 20}, "last 20 % of train.txt"),
        ({"validation_file": validation_file}, "validation.txt"),
    ):
        folder = tmp_path / name
        train(train_file, folder, **options)
        results = json.loads((folder / "report" / "results.json").read_text())
        card = ModelCard.load(folder / "README.md")
        measured = {r.metric_type: r for r in card.data.eval_results}
        assert {result.dataset_name for result in measured.values()} == {name}
        for metric in ("loss", "perplexity", "bits_per_byte"):
            assert measured[metric].metric_value == pytest.approx(
                results[f"eval_{metric}"], rel=1e-3
            )


def digest_of_weights(folder: Path) -> str:
    return hashlib.sha256(runs.weights(folder)).hexdigest()


@pytest.fixture
def validation_losses(monkeypatch: pytest.MonkeyPatch):
    """Give the validations of a run the losses of a list."""

    def script(values: list[float]) -> None:
        from hf_genmodels.engine import language

        left = iter(values)

        def measure(*_: Any) -> dict[str, float]:
            loss = next(left)
            return {
                "eval_loss": loss, "eval_perplexity": 1.0, "eval_bits_per_byte": 1.0,
                "eval_tokens": 10,
            }  # fmt: skip

        monkeypatch.setattr(language, "evaluate_language_model", measure)

    return script


@pytest.mark.parametrize(
    ("publish", "save_every", "published"), [("best", 3, 4), ("best", 4, 4), ("last", 3, 10)]
)
def test_best_or_last_weights_are_published(
    publish: str,
    save_every: int,
    published: int,
    train_file: Path,
    tmp_path: Path,
    validation_losses,
):
    validation_losses([3.0, 2.0, 2.5, 2.4, 2.6])
    train(train_file, tmp_path / "run", publish=publish, eval_every=2, save_every=save_every)
    validation_losses([9.0])
    train(
        train_file,
        tmp_path / "short",
        max_steps=published,
        publish="last",
        schedule__name="constant",
    )
    card = (tmp_path / "run" / "README.md").read_text()
    assert f"{published} of 10" in card
    assert state_of(tmp_path / "run")["best_step"] == 4


def test_training_ends_when_validation_no_longer_improves(
    train_file: Path, tmp_path: Path, validation_losses
):
    validation_losses([3.0, 2.0, 2.5, 2.4, 1.0])
    options = {"eval_every": 2, "early_stopping_patience": 2}
    output = train(train_file, tmp_path / "run", **options).output
    assert "has not improved since step 4" in output
    assert runs.saved_steps(tmp_path / "run")[-1] == 8
    assert "4 of 10" in (tmp_path / "run" / "README.md").read_text()


def test_a_run_stopped_before_its_first_validation_is_published_and_goes_on(
    train_file: Path, tmp_path: Path
):
    folder = tmp_path / "run"
    output = train(train_file, folder, max_time="0s").output
    assert "stopped after step 1: --max_time 0s is over" in output
    assert f"genmodels train lm --resume {folder}" in output
    assert (folder / "config.json").is_file()
    assert "1 of 10" in (folder / "README.md").read_text()
    runs.call(["train", "lm", "--resume", folder]).succeeded()


def test_a_finished_run_can_be_made_longer(train_file: Path, tmp_path: Path):
    folder = tmp_path / "run"
    train(train_file, folder)
    output = runs.call(["train", "lm", "--resume", folder, "--max_steps", "12"]).succeeded().output
    assert "going on after step 10" in output
    assert len([line for line in runs.losses(folder) if "loss" in dict(line)]) == 12


def test_a_dry_run_says_what_would_be_and_writes_nothing(train_file: Path, tmp_path: Path):
    folder = tmp_path / "run"
    output = train(train_file, folder, dry_run="true").output
    assert not folder.exists()
    for words in (
        "max_steps: 10",
        "hidden_size: 32",
        "parameters",
        "memory",
        "tokens/s",
        "estimated",
    ):
        assert words in output
    for part in ("weights", "gradients", "optimizer", "activations", "logits"):
        assert part in output
    assert runs.call([*runs.tiny_run(train_file), "--dry_run"]).status == 0


FORMATS = {
    "jsonl": lambda rows, path: path.write_text("".join(json.dumps(r) + "\n" for r in rows)),
    "csv": lambda rows, path: _frame(rows).to_csv(path, index=False),
    "parquet": lambda rows, path: _frame(rows).to_parquet(path),
}


def _frame(rows: list[dict[str, Any]]) -> Any:
    import pandas

    return pandas.DataFrame(rows)


@pytest.mark.parametrize("kind", FORMATS)
def test_tables_of_text_are_trained_on(kind: str, tmp_path: Path):
    rows = [{"story": runs.text(n % 7 + 2), "number": n} for n in range(40)]
    path = tmp_path / f"rows.{kind}"
    FORMATS[kind](rows, path)
    train(path, tmp_path / "run", text_column="story", max_steps=2)
    assert runs.saved_steps(tmp_path / "run") == [2]


def test_a_stream_is_validated_on_its_own_file(
    train_file: Path, validation_file: Path, tmp_path: Path
):
    folder = tmp_path / "run"
    train(train_file, folder, streaming="true", validation_file=validation_file, eval_every=5)
    assert [dict(line)["step"] for line in runs.losses(folder) if "eval_loss" in dict(line)] == [
        5,
        10,
    ]


def test_gradient_checkpointing_changes_no_loss(train_file: Path, tmp_path: Path):
    train(train_file, tmp_path / "plain", max_steps=4)
    train(train_file, tmp_path / "checkpointed", max_steps=4, gradient_checkpointing="true")
    for ours, theirs in zip(
        runs.losses(tmp_path / "plain"), runs.losses(tmp_path / "checkpointed"), strict=True
    ):
        assert dict(ours).get("loss", 0) == pytest.approx(dict(theirs).get("loss", 0), abs=1e-6)


def test_the_average_is_what_is_published(train_file: Path, tmp_path: Path):
    folder = tmp_path / "run"
    train(train_file, folder, ema_decay=0.9)
    average = load_file(max(folder.glob("checkpoints/step-*")) / "ema.safetensors")
    published = load_file(folder / "model.safetensors")
    for name, tensor in average.items():
        if name != "num_updates":
            assert torch.equal(published[name.removeprefix("average.")], tensor), name


def test_a_tracker_that_fails_stops_nothing(
    train_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from accelerate import Accelerator

    from hf_genmodels.engine import run as run_module

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the server is gone")

    monkeypatch.setattr(run_module, "check_trackers", lambda _names: None)
    monkeypatch.setattr(Accelerator, "init_trackers", lambda *_, **__: None)
    monkeypatch.setattr(Accelerator, "log", fail)
    output = train(train_file, tmp_path / "run", report_to="tensorboard").output
    assert output.count("the server is gone") == 1
    assert len(runs.losses(tmp_path / "run")) == 11
    monkeypatch.setattr(Accelerator, "init_trackers", fail)
    output = train(train_file, tmp_path / "other", report_to="tensorboard").output
    assert "the server is gone" in output


@pytest.fixture(scope="module")
def base(train_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trained model."""
    folder = tmp_path_factory.mktemp("base") / "model"
    runs.run(
        runs.tiny_run(train_file, output_dir=folder, max_steps=4), folder.with_name("log")
    ).succeeded()
    return folder


def test_fine_tuning_starts_from_the_given_weights_with_its_tokenizer(
    base: Path, train_file: Path, tmp_path: Path
):
    folder = tmp_path / "run"
    train(train_file, folder, model_name_or_path=base, max_steps=2)
    last = [dict(line)["loss"] for line in runs.losses(base) if "loss" in dict(line)][-1]
    first = dict(runs.losses(folder)[0])["loss"]
    assert abs(first - last) < 0.3
    assert (folder / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert "fine-tuned from" in (folder / "README.md").read_text()


def test_a_gpt2_checkpoint_of_transformers_is_fine_tuned(
    base: Path, train_file: Path, tmp_path: Path
):
    from transformers import GPT2Config, GPT2LMHeadModel

    from hf_genmodels.tokenization.saving import load_tokenizer, save_tokenizer

    gpt2 = tmp_path / "gpt2"
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=300, n_positions=64, n_embd=32, n_layer=2, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(gpt2)
    save_tokenizer(load_tokenizer(base), gpt2)
    folder = tmp_path / "run"
    train(train_file, folder, model_name_or_path=gpt2, max_steps=3)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "gen_gpt"
    runs.call(["train", "lm", "--resume", folder, "--max_steps", "4"]).succeeded()


def test_frozen_parameters_stay_as_they_are(base: Path, train_file: Path, tmp_path: Path):
    folder = tmp_path / "run"
    patterns = ["model.embed_tokens.*", "model.layers.0.*"]
    train(train_file, folder, model_name_or_path=base, freeze=patterns, max_steps=2)
    before, after = load_file(base / "model.safetensors"), load_file(folder / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not [n for n in changed if n.startswith(("model.embed_tokens.", "model.layers.0."))]


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_adapters_are_trained_resumed_and_published_merged(
    precision: str, base: Path, train_file: Path, tmp_path: Path
):
    from hf_genmodels.hub.loading import load_model

    options = {"model_name_or_path": base, "lora__r": 2, "mixed_precision": precision}
    options |= {"lora__dropout": 0.1, "max_steps": 4}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(train_file, whole, **options)
    train(train_file, parts, **options, max_time="0s")
    runs.call(["train", "lm", "--resume", parts, "--max_time", "1h"]).succeeded()
    assert runs.losses(parts) == runs.losses(whole)
    assert runs.weights(parts) == runs.weights(whole)
    before, after = load_file(base / "model.safetensors"), load_file(whole / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert all("_proj.weight" in name for name in changed)
    assert (whole / "adapter" / "adapter_config.json").is_file()
    code = "import sys; sys.modules['peft'] = None\nfrom hf_genmodels.hub.loading import load_model"
    subprocess.run([sys.executable, "-c", f"{code}; load_model({str(whole)!r})"], check=True)
    assert load_model(whole).num_parameters() == load_model(base).num_parameters()


@pytest.mark.slow
def test_a_compiled_model_trains_and_goes_on(train_file: Path, tmp_path: Path):
    folder = tmp_path / "run"
    train(train_file, folder, compile="true", max_steps=3)
    runs.call(["train", "lm", "--resume", folder, "--max_steps", "4"]).succeeded()
    train(train_file, tmp_path / "eager", max_steps=3)
    compiled = [dict(line)["loss"] for line in runs.losses(folder) if "loss" in dict(line)][:3]
    eager = [dict(line)["loss"] for line in runs.losses(tmp_path / "eager") if "loss" in dict(line)]
    assert compiled == pytest.approx(eager, abs=1e-4)
