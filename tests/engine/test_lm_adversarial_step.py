"""What generator and discriminator of texts minimise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from hf_genmodels import GenTextDiscriminator
from hf_genmodels.config.lm_adversarial import AdversarialConfig, TrainLMAdversarialConfig
from hf_genmodels.engine.adversarial import frozen, update
from hf_genmodels.engine.lm_adversarial_models import AdversarialNetworks, build_optimizer
from hf_genmodels.engine.lm_adversarial_step import AdversarialObjective
from hf_genmodels.engine.run import Run
from tests.engine.test_text_writing import writer

METHODS = ("gumbel", "reinforce")


def objective_of(method: str, dropout: float = 0.0, **options: Any) -> AdversarialObjective:
    sizes = {"prompt_tokens": 4, "sample_tokens": 6, "method": method, **options}
    config = TrainLMAdversarialConfig(
        model_name_or_path="unused", train_file=["unused"], output_dir="unused", block_size=12,
        per_device_train_batch_size=4, adversarial=AdversarialConfig(**sizes),
    )  # fmt: skip
    config.discriminator.hidden_size, config.discriminator.num_attention_heads = 16, 2
    config.discriminator.dropout = config.discriminator.attention_dropout = 0.0
    torch.manual_seed(0)
    drop = {"residual_dropout": dropout, "attention_dropout": dropout, "embedding_dropout": dropout}
    networks = AdversarialNetworks(
        writer(**drop), GenTextDiscriminator(config.discriminator_config(12))
    )
    run = Run(config, Accelerator(cpu=True), Path())
    objective = AdversarialObjective(config, networks.train(), run)
    objective.networks = networks  # type: ignore[attr-defined]
    return objective


def batch(seed: int = 0) -> dict[str, torch.Tensor]:
    ids = torch.randint(1, 5, (4, 12), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "labels": ids}


def step(objective: AdversarialObjective, optimizer: torch.optim.Optimizer, number: int) -> Any:
    """Update both networks on one batch; return what was measured."""
    run = Run(objective.config, Accelerator(cpu=True), Path())
    texts = objective.write(batch(number), number, number, last_turn=True)
    found = objective.discriminator_losses(texts)
    found["d_loss"].backward()
    update(run, objective.discriminator, optimizer)
    with frozen(objective.discriminator):
        own = objective.generator_losses(texts)
        own["g_loss"].backward()
    update(run, objective.generator, optimizer)
    return {name: float(value.detach()) for name, value in {**found, **own}.items()}


@pytest.mark.parametrize("method", METHODS)
def test_each_network_learns_from_its_own_loss_only(method: str):
    objective = objective_of(method)
    texts = objective.write(batch(), 0, 0, last_turn=True)
    objective.discriminator_losses(texts)["d_loss"].backward()
    assert all(p.grad is not None for p in objective.discriminator.parameters())
    assert all(p.grad is None for p in objective.generator.parameters())
    objective.discriminator.zero_grad(set_to_none=True)
    with frozen(objective.discriminator):
        objective.generator_losses(texts)["g_loss"].backward()
    assert all(p.grad is None for p in objective.discriminator.parameters())
    assert all(p.grad is not None for p in objective.generator.parameters())
    assert all(p.grad is None for p in objective.reference.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_before_the_first_step_the_generator_is_its_start_even_with_dropout(method: str):
    objective = objective_of(method, dropout=0.3)
    texts = objective.write(batch(), 0, 0, last_turn=True)
    objective.discriminator_losses(texts)
    assert objective.generator_losses(texts)["kl"].item() == pytest.approx(0, abs=1e-5)
    assert objective.generator.training


@pytest.mark.parametrize("method", METHODS)
def test_the_discriminator_learns_to_tell_a_generator_that_stands_still(method: str):
    objective = objective_of(method, adversarial_weight=0.0, mle_weight=0.0, kl_weight=0.0)
    config = objective.config.optim
    config.discriminator_lr = 0.01
    optimizer = build_optimizer(objective.networks, config)  # type: ignore[attr-defined]
    own = [parameter.clone() for parameter in objective.generator.parameters()]
    found = [step(objective, optimizer, number)["d_loss"] for number in range(40)]
    assert sum(found[-10:]) < 0.8 * sum(found[:10])
    # Without a gradient only the decay of matrices is left.
    for before, after in zip(own, objective.generator.parameters(), strict=True):
        assert torch.allclose(before, after, rtol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_the_generator_learns_what_a_discriminator_that_stands_still_wants(method: str):
    """It likes one token; that token becomes likelier, by either method."""
    objective = objective_of(method, mle_weight=0.0, kl_weight=0.0)
    with torch.no_grad():
        for name, parameter in objective.discriminator.named_parameters():
            if "embed_tokens" not in name and "norm" not in name:
                parameter.zero_()
        embedding = objective.discriminator.embed_tokens.weight.zero_()
        embedding[5, 0], embedding[5, 1] = 1.0, -1.0
        objective.discriminator.head.weight[0, 0] = 3.0
        objective.discriminator.head.weight[0, 1] = -3.0
    config = objective.config.optim
    config.generator_lr, config.discriminator_lr = 0.01, 1e-12
    optimizer = build_optimizer(objective.networks, config)  # type: ignore[attr-defined]

    def liked() -> float:
        written = objective.write(batch(99), 10_000, 0, last_turn=False).written.ids
        return float((written == 5).float().mean())

    before = liked()
    for number in range(30):
        step(objective, optimizer, number)
    assert liked() > before + 0.3


@pytest.mark.parametrize("method", METHODS)
def test_the_leash_keeps_the_generator_near_its_start(method: str):
    found = {}
    for weight in (0.0, 10.0):
        objective = objective_of(method, mle_weight=0.0, kl_weight=weight)
        objective.config.optim.generator_lr = 0.003
        optimizer = build_optimizer(objective.networks, objective.config.optim)  # type: ignore[attr-defined]
        found[weight] = [step(objective, optimizer, number)["kl"] for number in range(20)][-1]
    assert found[10.0] < 0.5 * found[0.0]


def test_texts_follow_from_seed_and_place_alone():
    objective = objective_of("reinforce", dropout=0.3)
    first = objective.write(batch(), 3, 0, last_turn=True).written.ids
    torch.rand(5)
    assert torch.equal(objective.write(batch(), 3, 7, last_turn=False).written.ids, first)
    assert not torch.equal(objective.write(batch(), 4, 0, last_turn=True).written.ids, first)


def test_only_texts_that_the_generator_learns_from_have_gradients():
    objective = objective_of("gumbel", discriminator_first=2)
    assert objective.write(batch(), 0, 0, last_turn=True).written.probs is None
    assert objective.write(batch(), 0, 2, last_turn=False).written.probs is None
    assert objective.write(batch(), 0, 2, last_turn=True).written.probs is not None
    assert not objective.trains_generator(1)


def test_the_relaxation_goes_from_its_start_to_its_end_by_equal_factors():
    options = AdversarialConfig(relaxation_start=2.0, relaxation_end=0.5)
    found = [options.relaxation(step, 5) for step in range(6)]
    assert found[0] == 2.0
    assert found[4] == found[5] == pytest.approx(0.5)
    assert found[1] / found[0] == pytest.approx(found[3] / found[2])
