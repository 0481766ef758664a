"""A judge of clips learns what is shown and where it moves, or whatever else is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hf_genmodels.config.images import ImageDataConfig
from hf_genmodels.config.judge import JudgeOptions
from hf_genmodels.data.images import ImageData, ImageSet
from hf_genmodels.data.sprites import with_moving_sprites
from hf_genmodels.errors import UserError
from hf_genmodels.metrics.image_extractors import JudgeFeatures
from hf_genmodels.metrics.image_features import extract
from hf_genmodels.metrics.judge_training import describe_accuracy, judge_accuracy, train_judge

NAMES = ["full", "hollow"]
CONFIG = ImageDataConfig(train_file=["sprites"], image_size=16, num_frames=8, sprite_size=6)
OPTIONS = JudgeOptions(width=16, feature_dim=16, max_steps=120, batch_size=32, learning_rate=2e-2)


def sprites(count, seed=0):
    """Squares, full or hollow, of any brightness."""
    generator = np.random.default_rng(seed)
    classes = np.arange(count) % 2
    pixels = np.zeros((count, 1, 6, 6), np.uint8)
    pixels[..., 1:5, 1:5] = generator.integers(120, 256, size=(count, 1, 1, 1))
    pixels[classes == 1, :, 2:4, 2:4] = 0
    return ImageSet(pixels, classes.astype(np.int64))


def clips(folder, kind=None):
    still = ImageData(
        train=sprites(96),
        validation=sprites(24, seed=1),
        kind="class",
        label_names=NAMES,
        num_channels=1,
        skipped=[],
        train_names="sprites",
        validation_name="sprites",
        path=folder / "decoded",
        fingerprint="abc",
    )
    return with_moving_sprites(still, CONFIG, kind)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def judge(data):
    return train_judge(data, CONFIG, OPTIONS, show_progress=False)


def test_what_moves_and_where_is_learned_together(judge):
    assert (judge.config.task, judge.config.backbone, judge.config.num_frames) == (
        "factors",
        "r2plus1d",
        8,
    )
    shares = judge.config.factor_accuracies
    assert shares["class"] > 0.9
    assert shares["direction"] > 0.9
    assert judge.config.accuracy == pytest.approx(np.mean(list(shares.values())))
    assert f"class of {100 * shares['class']:.1f} %" in describe_accuracy(judge.config)


def test_features_and_probabilities_are_taken_of_clips_made_on_the_fly(judge, data):
    seen = extract(JudgeFeatures(judge), data.validation.images, batch_size=20)

    assert seen.features.shape == (96, 16)
    for name, own in judge.config.factor_slices.items():
        shares = seen.probabilities[:, own]
        np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)
        right = (shares.argmax(axis=1) == data.validation.factors[name]).mean()
        assert right == pytest.approx(judge.config.factor_accuracies[name])


def test_a_clip_played_backwards_moves_the_other_way(judge, data):
    numbers = np.flatnonzero(data.validation.factors["direction"] == 0)[:8]  # left
    backwards = torch.from_numpy(data.validation.images[numbers][:, ::-1].copy())
    shares = extract(JudgeFeatures(judge), backwards).probabilities
    said = shares[:, judge.config.factor_slices["direction"]].argmax(axis=1)
    assert (said == 1).mean() > 0.8  # right


def test_the_same_arguments_give_the_same_weights(data):
    options = replace(OPTIONS, max_steps=2)
    first, second = (train_judge(data, CONFIG, options, show_progress=False) for _ in range(2))
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("task", ["matching", "rotation"])
def test_a_judge_of_clips_learns_captions_or_turns_too(task, data):
    options = replace(OPTIONS, task=task, max_steps=3)
    model = train_judge(data, CONFIG, options, show_progress=False)
    assert model.config.task == task
    assert 0 <= judge_accuracy(model, data.validation) <= 1


def test_a_judge_of_clips_refuses_images_and_clips_of_other_lengths(judge):
    for shape in ((2, 1, 16, 16), (2, 5, 1, 16, 16)):
        with pytest.raises(ValueError, match="looks at 8 frames"):
            extract(JudgeFeatures(judge), torch.zeros(shape, dtype=torch.uint8))


def test_a_backbone_for_images_is_refused_in_words(data):
    with pytest.raises(UserError, match="r2plus1d is for clips"):
        train_judge(data, CONFIG, replace(OPTIONS, backbone="lenet"), show_progress=False)
    with pytest.raises(UserError, match="does not look at images"):
        JudgeOptions(backbone="r2plus1d").backbone_for(32, 1)
