"""Checkpoints of networks whose tensors lie otherwise in memory than in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from hf_genmodels.config.gan import TrainGANConfig
from hf_genmodels.config.run import RunConfig
from hf_genmodels.engine.checkpoint import (
    check_identity,
    known_defaults,
    load_checkpoint,
    save_checkpoint,
)
from hf_genmodels.engine.ema import EMA
from hf_genmodels.engine.gan_models import GANPair
from hf_genmodels.engine.run import Run, make_accelerator
from hf_genmodels.errors import UserError
from hf_genmodels.models.configuration_gan import GenGANConfig
from hf_genmodels.models.modeling_gan import GenGANDiscriminator, GenGANGenerator

FIELDS: dict[str, Any] = {
    "image_size": 16,
    "num_channels": 3,
    "latent_dim": 5,
    "generator_width": 4,
    "discriminator_width": 4,
}


class Training:
    """Both networks with the channels side by side in memory, under the fused Adam."""

    def __init__(self, seed: int, architecture: str):
        torch.manual_seed(seed)
        config = GenGANConfig(architecture=architecture, **FIELDS)
        pair: Any = GANPair(GenGANGenerator(config), GenGANDiscriminator(config))
        self.pair = pair.to(memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.Adam(self.pair.parameters(), lr=1e-2, fused=True)
        self.schedule = LambdaLR(self.optimizer, lambda step: 1 / (1 + step))
        self.ema = EMA(self.pair.generator, 0.9)
        self.parts = (self.pair, self.optimizer, self.schedule, self.ema)

    def step(self, number: int) -> None:
        latents = torch.randn(4, 5, generator=torch.Generator().manual_seed(number))
        images = self.pair.generator(latents).images
        images = images.contiguous(memory_format=torch.channels_last)
        self.pair.discriminator(images).logits.square().sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        self.ema.update(self.pair.generator)


@pytest.mark.parametrize("architecture", ["modern", "dcgan", "resnet"])
def test_training_goes_on_to_the_bit_whatever_the_order_of_a_tensor_in_memory(
    architecture: str, tmp_path: Path
):
    config = RunConfig(output_dir=str(tmp_path), mixed_precision="no")
    run = Run(config, make_accelerator(config), tmp_path)
    whole = Training(0, architecture)
    for number in range(3):
        whole.step(number)
    run.state.step = 3
    folder = save_checkpoint(run, *whole.parts, identity={})
    assert folder is not None
    again = Training(1, architecture)
    load_checkpoint(run, folder, *again.parts, identity={})
    orders = [p.stride() for p in again.pair.parameters()]
    assert orders == [p.stride() for p in whole.pair.parameters()]
    assert any(p.ndim == 4 and not p.is_contiguous() for p in again.pair.parameters())
    for number in range(3, 6):
        whole.step(number)
        again.step(number)
    ours, theirs = again.pair.state_dict(), whole.pair.state_dict()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    ours, theirs = again.ema.state_dict(), whole.ema.state_dict()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_a_run_that_did_not_know_an_option_goes_on_with_its_default_only():
    config = TrainGANConfig(train_file=["a"])
    defaults = known_defaults(config, Training(0, "modern").pair)
    saved = {"seed": 1, "model.image_size": 16}
    newer = ("model.dropout", "loss.penalty_every", "flip")
    check_identity(saved, saved | {name: defaults[name] for name in newer}, defaults)
    for changed in (
        {"loss.penalty_every": 99},
        {"flip": True},
        {"model.dropout": 0.9},
        {"model.image_size": defaults["model.image_size"]},
        {"seed": 2},
    ):
        with pytest.raises(UserError, match=next(iter(changed))):
            check_identity(saved, saved | changed, defaults)
