"""`genmodels train gan`, from images to the folder and through interruptions."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from hf_genmodels import GenGANDiscriminator, GenGANGenerator
from hf_genmodels.engine import gan_validation
from hf_genmodels.engine.gan_step import Drawn, GANObjective
from tests import runs

COLUMNS: dict[str, dict[str, Any]] = {
    "none": {"model__conditioning": "none"},
    "class": {"label_column": "label"},
    "attributes": {"attribute_columns": ["is_left", "is_top"]},
    "text": {
        "text_column": "caption",
        "tokenizer_vocab_size": 290,
        "model__hidden_size": 8,
        "model__num_hidden_layers": 1,
        "model__num_attention_heads": 2,
    },
}
CASES = [
    ("mlp", "none", {}),
    ("mlp", "attributes", {"model__discriminator_conditioning": "concat"}),
    ("dcgan", "class", {"model__discriminator_conditioning": "classifier"}),
    ("resnet", "attributes", {"model__spectral_norm": "true", "loss__adversarial": "hinge"}),
    ("modern", "class", {"flip": "true", "balanced": "true"}),
]
RESUMES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mlp with dropout, two discriminator steps": (
        "mlp", "class", {"optim__discriminator_steps": 2, "ema_decay": 0.9},
    ),
    "dcgan, accumulation, published when stopped": (
        "dcgan", "text", {"gradient_accumulation_steps": 2, "model__text_dropout": 0.2},
    ),
    "resnet, spectral norm, gradient penalty, accumulation, two discriminator steps": (
        "resnet", "attributes",
        {"model__spectral_norm": "true", "gradient_accumulation_steps": 2, "model__dropout": 0.1,
         "optim__discriminator_steps": 2, "loss__adversarial": "wasserstein",
         "loss__penalty": "interpolated"},
    ),
    "modern, augmentation, consistency, bf16": (
        "modern", "class",
        {"loss__augment": ["color", "cutout"], "loss__consistency_weight": 1.0, "flip": "true",
         "mixed_precision": "bf16"},
    ),
}  # fmt: skip
STOPS = {2: signal.SIGTERM, 7: signal.SIGINT}


def options_of(architecture: str, kind: str, options: dict[str, Any]) -> dict[str, Any]:
    return {"model__architecture": architecture, **COLUMNS[kind], **options}


def condition_of(model: GenGANGenerator) -> dict[str, torch.Tensor]:
    return {
        "none": {},
        "class": {"class_labels": torch.tensor([1])},
        "attributes": {"class_labels": torch.tensor([[1, 0]])},
    }[model.config.conditioning]


def lines_of(folder: Path, name: str) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in map(json.loads, lines) if name in line]


@pytest.fixture(scope="session")
def small_judge(image_table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judge of eight features, for which sixty images are enough."""
    folder = tmp_path_factory.mktemp("judge") / "judge"
    command = ["train", "judge", "--train_file", image_table, "--label_column", "label"]
    command += ["--image_size", 16, "--width", 4, "--feature_dim", 8, "--max_steps", 30]
    runs.run([*map(str, command), "--output_dir", str(folder)], folder.with_name("log")).succeeded()
    return folder


@pytest.mark.parametrize(("architecture", "kind", "options"), CASES)
def test_a_run_leaves_networks_that_load_and_draw(
    architecture: str, kind: str, options: dict[str, Any], image_table: Path, tmp_path: Path
):
    folder = tmp_path / "run"
    options = {**options_of(architecture, kind, options), "max_steps": 3, "grid__columns": 2}
    command = runs.tiny_gan(image_table, output_dir=folder, **options)
    output = runs.call(command).succeeded().output
    assert "health" in output
    measured = lines_of(folder, "d_loss")
    assert [line["step"] for line in measured] == [1, 2, 3]
    assert measured[-1]["images"] == 12
    generator = AutoModel.from_pretrained(folder)
    assert type(generator) is GenGANGenerator
    assert (generator.config.architecture, generator.config.conditioning) == (architecture, kind)
    names = {"class": ["inside", "left"], "attributes": ["is_left", "is_top"]}
    if kind in names:
        assert list(generator.config.id2label.values()) == names[kind]
    source = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    images = generator.sample(2, generator=source, **condition_of(generator))
    assert images.shape == (2, 1, 16, 16)
    assert images.isfinite().all()
    assert not torch.equal(images[0], images[1])
    discriminator = AutoModel.from_pretrained(folder / "discriminator")
    assert type(discriminator) is GenGANDiscriminator
    rows = {name: torch.cat((row, row)) for name, row in condition_of(generator).items()}
    assert discriminator(images, **rows).logits.isfinite().all()
    for name in ("grid.png", "real.png", "curves.png", "results.json"):
        assert (folder / "report" / name).stat().st_size > 0
    assert (folder / "README.md").read_text(encoding="utf-8").startswith("---")


def test_published_weights_are_the_average_and_the_discriminator_is_the_trained_one(
    image_table: Path, tmp_path: Path
):
    folder = tmp_path / "run"
    command = runs.tiny_gan(image_table, output_dir=folder, ema_decay=0.9, **COLUMNS["class"])
    runs.call(command).succeeded()
    newest = folder / "checkpoints" / "step-000008"
    average = load_file(newest / "ema.safetensors")
    trained = load_file(newest / "model.safetensors")
    published = load_file(folder / "model.safetensors")
    for name, tensor in published.items():
        assert torch.equal(tensor, average[f"average.{name}"])
        assert not torch.equal(tensor, trained[f"generator.{name}"])
    for name, tensor in load_file(folder / "discriminator" / "model.safetensors").items():
        assert torch.equal(tensor, trained[f"discriminator.{name}"])


def test_the_same_command_gives_the_same_bytes_whoever_trained_the_judge(
    image_table: Path, tmp_path: Path
):
    """The first run trains the judge that the second one finds."""
    found = []
    for number in range(2):
        folder = tmp_path / str(number)
        command = runs.tiny_gan(
            image_table, output_dir=folder, judge__features="auto", judge__max_steps=3,
            judge__num_samples=80, cache_dir=tmp_path / "cache", eval_every=2, max_steps=4,
            **options_of("dcgan", "class", {}),
        )  # fmt: skip
        runs.run(command, tmp_path / "log").succeeded()
        found.append((runs.losses(folder), runs.states(folder)))
    assert found[0] == found[1]


@pytest.mark.parametrize("case", RESUMES)
def test_losses_weights_and_averages_after_stops_are_those_of_a_run_without(
    case: str, image_table: Path, tmp_path: Path
):
    options = options_of(*RESUMES[case])
    whole, parts, log = tmp_path / "whole", tmp_path / "parts", tmp_path / "log"
    runs.run(runs.tiny_gan(image_table, output_dir=whole, **options), log).succeeded()
    command = runs.tiny_gan(image_table, output_dir=parts, **options)
    for step, number in STOPS.items():
        stop = {"prepare": runs.signal_at_step, "prepare_arguments": (step, number)}
        outcome = runs.run(command, log, **stop).succeeded()
        assert f"stopped after step {step}: {number.name}" in outcome.output
        assert runs.saved_steps(parts)[-1] == step
        command = ["train", "gan", "--resume", str(parts)]
    assert "going on after step 7" in runs.run(command, log).succeeded().output
    assert runs.losses(parts) == runs.losses(whole)
    ours, theirs = runs.states(parts), runs.states(whole)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


def test_a_run_that_collapses_ends_with_its_best_at_the_root_and_says_what_happened(
    image_table: Path, small_judge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """BCE without a penalty, at a hundred times the learning rate; from step 30 on all turns black."""
    real = GANObjective.generator_losses

    def darker(self: GANObjective, drawn: Drawn) -> dict[str, torch.Tensor]:
        losses = real(self, drawn)
        norms = [m for m in self.generator.modules() if hasattr(m, "num_batches_tracked")]
        if norms[0].num_batches_tracked > 30:
            losses["g_loss"] = 100 * drawn.fake.mean()
        return losses

    monkeypatch.setattr(GANObjective, "generator_losses", darker)
    folder = tmp_path / "run"
    options = {
        **options_of("dcgan", "class", {}), "loss__adversarial": "non_saturating",
        "loss__penalty": "none", "optim__lr": 2e-2, "schedule__name": "constant", "ema_decay": 0.2,
        "judge__features": small_judge, "judge__num_samples": 60, "grid__columns": 1,
    }  # fmt: skip
    command = runs.tiny_gan(image_table, output_dir=folder, eval_every=10, max_steps=60, **options)
    output = runs.call(command).succeeded().output
    distances = {line["step"]: line["eval_fid"] for line in lines_of(folder, "eval_fid")}
    best = min(distances, key=distances.__getitem__)
    assert best <= 30
    assert distances[60] > 1.5 * distances[best]
    assert f"at step {best}." in output
    results = json.loads((folder / "report" / "results.json").read_text())
    assert results["step"] == 60
    assert results["health"].startswith("collapsed")
    assert results["health"] in output
    until_best = tmp_path / "until_best"
    command = runs.tiny_gan(
        image_table, output_dir=until_best, eval_every=10, max_steps=best, publish="last", **options
    )
    runs.call(command).succeeded()
    assert runs.weights(folder) == runs.weights(until_best)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"{best} of 60" in card


@pytest.mark.parametrize("part", ["extract", "frechet_distance"])
def test_a_judge_or_a_metric_that_raises_stops_nothing(
    part: str,
    image_table: Path,
    small_judge: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    real, calls = getattr(gan_validation, part), iter(range(99))

    def fails_later(*arguments: Any, **options: Any) -> Any:
        if next(calls) in (1, 2):  # not when it looks at the real images
            raise ValueError("no square root")
        return real(*arguments, **options)

    monkeypatch.setattr(gan_validation, part, fails_later)
    options = options_of("dcgan", "class", {"judge__features": small_judge})
    command = runs.tiny_gan(image_table, output_dir=tmp_path / "run", judge__num_samples=60,
                            max_steps=3, eval_every=1, **options)  # fmt: skip
    output = runs.call(command).succeeded().output
    assert output.count("were not measured: no square root") == 2
    assert [line["step"] for line in lines_of(tmp_path / "run", "eval_fid")] == [3]
    assert "3 of 3" in (tmp_path / "run" / "README.md").read_text(encoding="utf-8")


def test_training_moves_the_distance_towards_the_real_images(
    image_table: Path, small_judge: Path, tmp_path: Path
):
    folder = tmp_path / "run"
    options = {**options_of("modern", "class", {}), "judge__features": small_judge}
    command = runs.tiny_gan(
        image_table, output_dir=folder, max_steps=150, eval_every=50, optim__lr=4e-3, ema_decay=0.9,
        model__generator_width=8, model__discriminator_width=8, judge__num_samples=60,
        per_device_train_batch_size=16, **options,
    )  # fmt: skip
    runs.call(command).succeeded()
    first, *_, last = lines_of(folder, "eval_fid")
    assert last["eval_fid"] < 0.5 * first["eval_fid"]


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(image_table: Path, tmp_path: Path):
    folder = tmp_path / "run"
    command = runs.tiny_gan(image_table, output_dir=folder, **COLUMNS["class"])
    output = runs.call([*command, "--dry_run"]).succeeded().output
    for words in ("generator", "discriminator", "learning rate", "images/s", "estimated time"):
        assert words in output
    assert not folder.exists()


@pytest.fixture(scope="module")
def trained(image_table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run. Not to be changed."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    options = options_of("dcgan", "class", {"max_steps": 2})
    command = runs.tiny_gan(image_table, output_dir=folder, **options)
    runs.run(command, folder.with_name("log")).succeeded()
    return folder


def test_training_goes_on_from_a_published_pair(trained: Path, image_table: Path, tmp_path: Path):
    folder = tmp_path / "run"
    source = shutil.copytree(trained, tmp_path / "source", ignore=lambda *_: ["checkpoints"])
    command = runs.tiny_gan(
        image_table, output_dir=folder, model_name_or_path=source, optim__lr=1e-9, max_steps=3,
        save_every=1, **COLUMNS["class"],
    )  # fmt: skip
    stop = {"prepare": runs.signal_at_step, "prepare_arguments": (1, signal.SIGTERM)}
    runs.run(command, tmp_path / "log", **stop).succeeded()
    shutil.rmtree(source)  # a run that goes on has all it needs
    runs.run(["train", "gan", "--resume", str(folder)], tmp_path / "log").succeeded()
    for name in ("model.safetensors", "discriminator/model.safetensors"):
        before, after = load_file(trained / name), load_file(folder / name)
        for key, tensor in before.items():
            if "running" not in key and "batches" not in key:
                torch.testing.assert_close(after[key], tensor, atol=1e-6, rtol=0)


def files(folder: Path) -> dict[Path, bytes | None]:
    return {
        path: path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path.name != ".lock"
    }


def refused(folder: Path, train_file: Any, **options: Any) -> str:
    """The error of a run that cannot begin, after checking that it left nothing behind."""
    before = files(folder.parent)
    error = runs.call(runs.tiny_gan(train_file, output_dir=folder, **options)).error
    assert files(folder.parent) == before
    return error


OPTIONS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown option": ({"max_stepz": 3}, ["max_stepz", "Did you mean"]),
    "unknown model option": ({"model__latent_dims": 3}, ["latent_dims", "model.latent_dim"]),
    "unknown loss option": ({"loss__r3": 3}, ["loss.r3", "Did you mean"]),
    "option of the data": ({"model__num_channels": 3}, ["num_channels"]),
    "fp16": ({"mixed_precision": "fp16"}, ["fp16", "bf16"]),
    "compile": ({"compile": "true"}, ["--compile"]),
    "loss": ({"loss__adversarial": "hing"}, ["Did you mean 'hinge'?"]),
    "penalty": ({"loss__penalty": "r1"}, ["--loss.penalty", "zero_centered"]),
    "augmentation": ({"loss__augment": ["colour"]}, ["Did you mean 'color'?"]),
    "consistency of what": ({"loss__consistency_weight": 1}, ["--loss.augment"]),
    "clip": ({"loss__clip_weights": 0}, ["--loss.clip_weights", "positive"]),
    "share of mismatches": ({"loss__mismatch_weight": 2}, ["--loss.mismatch_weight", "0 to 1"]),
    "lazy": ({"loss__penalty_every": 0}, ["--loss.penalty_every", "at least 1"]),
    "rate": ({"optim__lr": 2}, ["--optim.lr", "(0, 1]"]),
    "decay": ({"optim__beta2": 1}, ["--optim.beta2", "[0, 1)"]),
    "turns": ({"optim__discriminator_steps": 0}, ["--optim.discriminator_steps", "at least 1"]),
    "average": ({"ema_decay": 1}, ["--ema_decay"]),
    "samples": ({"judge__num_samples": 2}, ["--judge.num_samples", "16"]),
    "truncation": ({"grid__truncation": 0}, ["--grid.truncation", "(0, 1]"]),
    "architecture": ({"model__architecture": "biggan"}, ["biggan", "dcgan"]),
    "conditioning": ({"model__conditioning": "clas"}, ["Did you mean 'class'?"]),
    "size of dcgan": ({"model__architecture": "dcgan", "image_size": 28}, ["28", "32"]),
    "size of modern": ({"image_size": 27}, ["27", "28"]),
    "two columns": ({"label_column": "label", "text_column": "caption"}, ["label", "text"]),
    "column and conditioning": (
        {"label_column": "label", "model__conditioning": "text"}, ["text", "--label_column"],
    ),
    "missing column": ({"label_column": "kind"}, ["kind", "label"]),
    "losses of texts": ({**COLUMNS["class"], "loss__agreement_weight": 1}, ["agreement_weight"]),
    "texts of mlp": ({**COLUMNS["text"], "model__architecture": "mlp"}, ["mlp", "modern"]),
    "classifier of nothing": (
        {"model__conditioning": "none", "model__discriminator_conditioning": "classifier"},
        ["classifier"],
    ),
    "judge": ({**COLUMNS["class"], "judge__features": "./nowhere"}, ["nowhere"]),
    "model": ({**COLUMNS["class"], "model_name_or_path": "./nowhere"}, ["nowhere"]),
    "preset": ({"config": "modern-fashon"}, ["modern-fashon", "Did you mean 'modern-fashion'?"]),
}  # fmt: skip


@pytest.mark.parametrize("case", OPTIONS)
def test_options_that_cannot_work(case: str, image_table: Path, tmp_path: Path):
    options, words = OPTIONS[case]
    (tmp_path / "out").mkdir()
    error = refused(tmp_path / "out" / "run", image_table, **options)
    for word in words:
        assert word in error, error
    assert len(error.strip().splitlines()) <= 3, error


def test_conditions_that_the_images_lack(image_table: Path, tmp_path: Path):
    folder = tmp_path / "out" / "run"
    folder.parent.mkdir()
    pictures = image_table.parent / "0*.png"
    for kind in ("class", "text", "attributes"):
        error = refused(folder, pictures, model__conditioning=kind)
        assert "nothing is known about them" in error, error
    assert "missing.parquet" in refused(folder, image_table.with_name("missing.parquet"))


def test_a_folder_that_holds_another_run(trained: Path, image_table: Path, tmp_path: Path):
    folder = tmp_path / "out" / "run"
    shutil.copytree(trained, folder)
    error = refused(folder, image_table, **COLUMNS["class"])
    assert "holds another run" in error
    assert f"--resume {folder}" in error


def test_a_trained_model_that_does_not_fit_the_images(
    trained: Path, image_table: Path, tmp_path: Path
):
    folder = tmp_path / "out" / "run"
    folder.parent.mkdir()
    given = {"model_name_or_path": trained}
    error = refused(folder, image_table, **given, image_size=32, **COLUMNS["class"])
    assert "--image_size 16" in error
    error = refused(folder, image_table, **given, num_channels=3, **COLUMNS["class"])
    assert "1 channels" in error
    error = refused(folder, image_table, **given, **COLUMNS["attributes"])
    assert "conditioned on class" in error
    error = refused(folder, image_table, **given, label_column="caption")
    assert "inside, left" in error
    alone = shutil.copytree(trained, tmp_path / "alone", ignore=lambda *_: ["discriminator"])
    error = refused(folder, image_table, model_name_or_path=alone, **COLUMNS["class"])
    assert "no discriminator/ folder" in error


CHANGES = {
    "seed": ["--seed", "7"],
    "model.latent_dim": ["--model.latent_dim", "7"],
    "images in a step": ["--per_device_train_batch_size", "5"],
    "generator_lr": ["--optim.generator_lr", "0.5"],
    "loss.adversarial": ["--loss.adversarial", "hinge"],
    "optim.discriminator_steps": ["--optim.discriminator_steps", "2"],
    "flip": ["--flip", "true"],
    "ema_decay": ["--ema_decay", "0.5"],
    "data": ["--max_train_images", "50"],
}


@pytest.mark.parametrize("case", CHANGES)
def test_going_on_with_something_else_is_refused_with_what_differs(
    case: str, trained: Path, tmp_path: Path
):
    before = files(trained)
    error = runs.call(["train", "gan", "--resume", trained, *CHANGES[case]]).error
    assert f"{case}: the run has" in error, error
    assert "another --output_dir" in error
    assert files(trained) == before
