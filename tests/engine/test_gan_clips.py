"""One step of a GAN of clips: which frames are seen, and losses against plain computations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator

from hf_genmodels.config.gan import GANLossConfig, TrainGANConfig
from hf_genmodels.config.generate import NOT_OF_VIDEOS, OF_VIDEOS
from hf_genmodels.data.image_set import ImageSet
from hf_genmodels.data.images import ImageData
from hf_genmodels.engine.gan import example_of
from hf_genmodels.engine.gan_models import GANPair
from hf_genmodels.engine.gan_recipe import recipe_of
from hf_genmodels.engine.gan_step import GANObjective
from hf_genmodels.engine.run import Run
from hf_genmodels.losses.augmentation import draws, transform
from hf_genmodels.models.configuration_gan import GenGANConfig
from hf_genmodels.models.modeling_gan import GenGANDiscriminator, GenGANGenerator

FRAMES, STEP, CLIPS = 6, 2, 4
MODEL: dict[str, Any] = {
    "num_frames": FRAMES,
    "video_frame_step": STEP,
    "image_size": 16,
    "latent_dim": 5,
    "motion_dim": 3,
    "motion_hidden_size": 4,
    "condition_dim": 6,
    "generator_width": 3,
    "discriminator_width": 3,
    "video_discriminator_width": 3,
    "num_labels": 3,
    "conditioning": "class",
}


@pytest.mark.parametrize("num_frames", [1, FRAMES])
def test_what_a_run_says_to_try_is_an_option_of_what_it_draws(num_frames: int):
    images = ImageSet(np.zeros((2, 1, 16, 16), np.uint8), labels=np.array([0, 1]))
    data = ImageData(
        train=images,
        validation=None,
        kind="class",
        label_names=["left", "right"],
        num_channels=1,
        skipped=[],
        train_names="",
        validation_name="",
        path=Path(),
        fingerprint="",
    )
    config = GenGANConfig(**{**MODEL, "num_frames": num_frames, "num_labels": 2})

    line = example_of(data, config)

    assert line[:2] == ["--label", "left"]
    of_others = OF_VIDEOS if num_frames == 1 else NOT_OF_VIDEOS
    assert not {f"--{name}" for name in of_others} & set(line)


@pytest.fixture
def make(tmp_path: Path):
    """Makes an objective of new networks and options of the loss."""

    def made(**loss: Any) -> GANObjective:
        torch.manual_seed(0)
        config = TrainGANConfig(
            output_dir=str(tmp_path),
            train_file=["clips"],
            num_frames=FRAMES,
            image_size=16,
            per_device_train_batch_size=CLIPS,
            mixed_precision="no",
            loss=GANLossConfig(**loss),
        )
        model = GenGANConfig(**MODEL)
        pair = GANPair(GenGANGenerator(model), GenGANDiscriminator(model)).train()
        run = Run(config, Accelerator(cpu=True), tmp_path)
        return GANObjective(config, pair, recipe_of(config, "modern"), run)

    return made


def batch() -> dict[str, torch.Tensor]:
    """Clips whose frames have the value of their number."""
    values = torch.arange(FRAMES).view(1, FRAMES, 1, 1, 1) / 10
    images = values.expand(CLIPS, FRAMES, 1, 16, 16).contiguous()
    return {"images": images, "class_labels": torch.tensor([0, 1, 2, 0])}


def test_real_and_drawn_clips_consist_of_the_same_frames_at_even_distances(make):
    objective = make(frames_judged=2)
    phases = set()
    for place in range(6):
        drawn = objective.draw(batch(), place)
        assert drawn.real.shape == drawn.fake.shape == (CLIPS, FRAMES // STEP, 1, 16, 16)
        numbers = (drawn.real[:, :, 0, 0, 0] * 10).round().long()
        assert (numbers.diff(dim=1) == STEP).all()
        phases |= set(numbers[:, 0].tolist())
        assert drawn.frames.shape == (CLIPS, 2)
        assert (drawn.frames[:, 0] != drawn.frames[:, 1]).all()
    assert phases == {0, 1}
    again = objective.draw(batch(), 5)
    assert torch.equal(again.real, drawn.real)
    assert torch.equal(again.fake, drawn.fake)
    assert torch.equal(again.frames, drawn.frames)


def test_each_verdict_has_its_loss_and_its_penalty(make):
    objective = make(r1=0.3, r2=0.2)
    drawn = objective.draw(batch(), 0)
    found = objective.discriminator_losses(drawn, 0)

    judge = lambda clips: (
        objective.discriminator(clips, **drawn.condition, frames=drawn.frames).logits
    )
    real, fake = (clips.detach().clone().requires_grad_() for clips in (drawn.real, drawn.fake))
    verdicts = judge(real), judge(fake)
    assert verdicts[0].shape == (CLIPS, 2)
    expected = F.softplus(verdicts[1] - verdicts[0]).mean()
    torch.testing.assert_close(found["d_adversarial"], expected)
    penalty = torch.zeros(())
    for weight, clips, logits in ((0.3, real, verdicts[0]), (0.2, fake, verdicts[1])):
        for column in logits.unbind(dim=1):
            (gradient,) = torch.autograd.grad(column.sum(), clips, retain_graph=True)
            penalty = penalty + weight / 2 * gradient.square().flatten(1).sum(1).mean() / 2
    torch.testing.assert_close(found["d_penalty"], penalty, atol=1e-6, rtol=1e-4)
    generator = objective.generator_losses(drawn)["g_loss"]
    torch.testing.assert_close(generator, F.softplus(verdicts[0] - verdicts[1]).mean())


def test_the_frames_of_a_clip_are_augmented_alike():
    clips = torch.rand(3, 1, 1, 16, 16).expand(3, 4, 1, 16, 16) * 2 - 1
    numbers = draws(3, torch.Generator().manual_seed(0))
    found = transform(clips, ["color", "translation", "cutout"], numbers)
    assert found.shape == clips.shape
    for frame in range(4):
        assert torch.equal(found[:, frame], found[:, 0])
    alone = transform(clips[:, 0], ["color", "translation", "cutout"], numbers)
    torch.testing.assert_close(found[:, 0], alone)
    assert not torch.equal(found[0, 0] - clips[0, 0], found[1, 0] - clips[1, 0])


@pytest.mark.parametrize("penalty", ["interpolated", "divergence"])
def test_penalties_between_real_and_drawn_clips_are_finite(make, penalty):
    objective = make(adversarial="wasserstein", penalty=penalty, augment=["translation"])
    drawn = objective.draw(batch(), 0)
    found = objective.discriminator_losses(drawn, 0)
    found["d_loss"].backward()
    assert torch.isfinite(found["d_penalty"])
    assert all(
        p.grad is not None and torch.isfinite(p.grad).all()
        for p in objective.discriminator.video.network.parameters()
    )
