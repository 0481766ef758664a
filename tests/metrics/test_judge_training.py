"""A judge is trained deterministically on any kind of images, and found again."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hf_genmodels.config.images import ImageDataConfig
from hf_genmodels.config.judge import JudgeOptions
from hf_genmodels.data.images import ImageData, ImageSet
from hf_genmodels.errors import UserError
from hf_genmodels.metrics import judge_training
from hf_genmodels.metrics.judge_training import (
    find_judge,
    judge_accuracy,
    rate_at,
    train_judge,
)

OPTIONS = JudgeOptions(width=4, feature_dim=8, max_steps=60, batch_size=16)
CONFIG = ImageDataConfig(train_file=["images"])
NAMES = ["left", "right", "top"]


def images(count, kind, seed=0):
    """Grey images with a bright half: its place is the class, an attribute, or said by a caption."""
    generator = np.random.default_rng(seed)
    classes = generator.integers(3, size=count)
    if kind == "none":
        classes[:] = 2  # otherwise nobody could tell how an image was turned
    pixels = generator.integers(80, size=(count, 1, 16, 16), dtype=np.uint8)
    halves = np.zeros((3, 16, 16), np.uint8)
    halves[0, :, :8] = halves[1, :, 8:] = halves[2, :8] = 150
    pixels += halves[classes][:, None]
    labels = {
        "class": classes.astype(np.int64),
        "attributes": np.eye(3, dtype=np.uint8)[classes],
    }.get(kind)
    captions = None
    if kind == "text":
        captions = [[f"bright {NAMES[c]}", NAMES[c]] for c in classes]
    return ImageSet(pixels, labels, captions)


def data(folder, kind="class", validation=True):
    return ImageData(
        train=images(96, kind),
        validation=images(40, kind, seed=1) if validation else None,
        kind=kind,
        label_names=NAMES,
        num_channels=1,
        skipped=[],
        train_names="images",
        validation_name="images",
        path=folder / "decoded",
        fingerprint="abc",
    )


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize(
    ("kind", "task", "least"),
    [("class", "class", 0.9), ("attributes", "attributes", 0.85), ("text", "matching", 0.8)],
)
def test_each_kind_of_images_gets_a_judge_that_learns(kind, task, least, tmp_path):
    judge = train_judge(data(tmp_path, kind), CONFIG, OPTIONS, show_progress=False)

    assert judge.config.task == task
    assert judge.config.accuracy >= least
    assert judge.config.backbone == "lenet"
    if kind != "text":
        assert list(judge.config.id2label.values()) == NAMES
    assert not judge.training


def test_images_of_which_nothing_is_known_are_turned(tmp_path):
    judge = train_judge(data(tmp_path, "none"), CONFIG, OPTIONS, show_progress=False)

    assert judge.config.task == "rotation"
    assert judge.config.accuracy > 0.8


def test_the_same_arguments_give_the_same_weights_and_others_do_not(tmp_path):
    before = torch.random.get_rng_state()
    options = replace(OPTIONS, max_steps=3)

    first, second, other = (
        weights(train_judge(data(tmp_path), CONFIG, options, seed=seed, show_progress=False))
        for seed in (0, 0, 1)
    )

    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_second_run_finds_the_judge(tmp_path, monkeypatch):
    options = replace(OPTIONS, max_steps=3)
    first = find_judge(data(tmp_path), CONFIG, options, show_progress=False)
    trained = []
    original = judge_training.train_judge
    monkeypatch.setattr(
        judge_training, "train_judge", lambda *a, **k: trained.append(a) or original(*a, **k)
    )

    second = find_judge(data(tmp_path), CONFIG, options, show_progress=False)
    assert not trained
    assert torch.equal(weights(first), weights(second))
    assert second.config.accuracy == first.config.accuracy

    find_judge(replace(data(tmp_path), fingerprint="other"), CONFIG, options, show_progress=False)
    find_judge(data(tmp_path), CONFIG, options, seed=1, show_progress=False)
    find_judge(data(tmp_path), replace(CONFIG, flip=True), options, show_progress=False)
    assert len(trained) == 3


def test_a_damaged_judge_is_trained_again(tmp_path):
    options = replace(OPTIONS, max_steps=3)
    first = find_judge(data(tmp_path), CONFIG, options, show_progress=False)
    (file,) = tmp_path.glob("judge-*/model.safetensors")
    cut = file.read_bytes()[:100]
    file.unlink()  # its bytes are mapped
    file.write_bytes(cut)

    second = find_judge(data(tmp_path), CONFIG, options, show_progress=False)

    assert torch.equal(weights(first), weights(second))


def test_without_validation_images_some_are_kept_apart(tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        judge_training, "judge_accuracy", lambda _, held_out: sizes.append(len(held_out)) or 0.5
    )

    judge = train_judge(
        data(tmp_path, validation=False), CONFIG, replace(OPTIONS, max_steps=1), show_progress=False
    )

    assert sizes == [10]
    assert judge.config.accuracy == 0.5


def test_accuracy_is_the_share_that_is_right(tmp_path):
    found = data(tmp_path)
    judge = train_judge(found, CONFIG, replace(OPTIONS, max_steps=2), show_progress=False)
    held_out = found.validation

    with torch.no_grad():
        said = judge(torch.from_numpy(held_out.images).float() / 127.5 - 1).logits.argmax(-1)

    expected = (said.numpy() == held_out.labels).mean()
    assert judge_accuracy(judge, held_out) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("kind", "task", "message"),
    [
        ("none", "class", "nothing but the pixels"),
        ("text", "class", "their captions"),
        ("class", "matching", "class or rotation"),
    ],
)
def test_a_task_that_needs_other_data_is_refused(kind, task, message, tmp_path):
    with pytest.raises(UserError, match=message):
        train_judge(data(tmp_path, kind), CONFIG, JudgeOptions(task=task), show_progress=False)


def test_any_task_can_be_replaced_by_rotation(tmp_path):
    options = replace(OPTIONS, task="rotation", max_steps=1)
    judge = train_judge(data(tmp_path), CONFIG, options, show_progress=False)
    assert judge.config.task == "rotation"


@pytest.mark.parametrize("steps", [1, 2, 4, 900])
def test_the_learning_rate_rises_to_its_height_and_falls_towards_zero(steps):
    rates = [rate_at(step, steps) for step in range(steps + 1)]

    assert max(rates) == 1
    assert all(0 < rate <= 1 for rate in rates[:steps])
    top = rates.index(1)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[steps] < 0.01 or steps == 1


def test_few_images_are_not_learned_by_heart_and_many_do_not_take_for_ever():
    options = JudgeOptions()

    steps = [options.steps_for("class", size) for size in (100, 20_000, 10**6)]

    assert steps == [200, 600, 900]
    assert options.steps_for("matching", 3000) == 600
    assert JudgeOptions(epochs=10, max_steps=5000).steps_for("class", 20_000) == 2000
