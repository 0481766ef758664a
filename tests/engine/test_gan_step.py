"""One step of a GAN: losses against plain computations, who is changed by whom, statistics."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from hf_genmodels.config.gan import GANLossConfig, GANOptimConfig, TrainGANConfig
from hf_genmodels.data.seeding import mix_seed
from hf_genmodels.engine.adversarial import frozen, update
from hf_genmodels.engine.ema import EMA
from hf_genmodels.engine.gan_models import GANPair
from hf_genmodels.engine.gan_recipe import build_gan_optimizer, recipe_of
from hf_genmodels.engine.gan_step import Drawn, GANObjective
from hf_genmodels.engine.gan_validation import mixed_places, recompute_statistics
from hf_genmodels.engine.run import Run, TrainingDivergedError
from hf_genmodels.losses.augmentation import draws, transform
from hf_genmodels.models.configuration_gan import GenGANConfig
from hf_genmodels.models.modeling_gan import GenGANDiscriminator, GenGANGenerator

LABELS = 3
SIZES: dict[str, Any] = {
    "image_size": 8,
    "latent_dim": 5,
    "condition_dim": 6,
    "generator_width": 3,
    "discriminator_width": 3,
    "num_labels": LABELS,
    "conditioning": "class",
    "dropout": 0.0,
}
NO_PENALTY = {"penalty": "none"}


def pair_of(**fields: Any) -> GANPair:
    torch.manual_seed(0)
    config = GenGANConfig(**{**SIZES, **fields})
    return GANPair(GenGANGenerator(config), GenGANDiscriminator(config)).train()


@pytest.fixture
def make(tmp_path: Path):
    """Makes an objective of new networks and options of the loss."""

    def made(pair: GANPair | None = None, optim: dict[str, Any] | None = None, **loss: Any):
        config = TrainGANConfig(
            output_dir=str(tmp_path),
            train_file=["images"],
            image_size=8,
            per_device_train_batch_size=4,
            mixed_precision="no",
            loss=GANLossConfig(**loss),
            optim=GANOptimConfig(**(optim or {})),
        )
        pair = pair or pair_of()
        run = Run(config, Accelerator(cpu=True), tmp_path)
        recipe = recipe_of(config, pair.config.architecture)
        return GANObjective(config, pair, recipe, run), run, pair, recipe

    return made


def batch_of(count: int = 4, seed: int = 3, conditioning: str = "class") -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    batch = {"images": torch.rand(count, 1, 8, 8, generator=random) * 2 - 1}
    if conditioning == "class":
        batch["class_labels"] = torch.randint(LABELS, (count,), generator=random)
    if conditioning == "attributes":
        batch["class_labels"] = torch.rand(count, LABELS, generator=random).round()
    return batch


def judge(pair: GANPair, images: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    return pair.discriminator(images, **drawn.condition).logits


def by_hand(kind: str, r: torch.Tensor, f: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The losses of the discriminator and of the generator, as the papers write them."""
    sigmoid = torch.sigmoid
    return {
        "non_saturating": (
            -sigmoid(r).log().mean() - (1 - sigmoid(f)).log().mean(),
            -sigmoid(f).log().mean(),
        ),
        "least_squares": (
            0.5 * ((r - 1) ** 2).mean() + 0.5 * (f**2).mean(),
            0.5 * ((f - 1) ** 2).mean(),
        ),
        "hinge": ((1 - r).clamp(min=0).mean() + (1 + f).clamp(min=0).mean(), -f.mean()),
        "wasserstein": (f.mean() - r.mean(), -f.mean()),
        "relativistic": (-sigmoid(r - f).log().mean(), -sigmoid(f - r).log().mean()),
    }[kind]


def squared_gradient(pair: GANPair, images: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """E[|g|^2], one image after the other."""
    norms = []
    for index in range(len(images)):
        one = images[index : index + 1].detach().requires_grad_()
        condition = {name: rows[index : index + 1] for name, rows in drawn.condition.items()}
        logit = pair.discriminator(one, **condition).logits
        (gradient,) = torch.autograd.grad(logit.sum(), one, create_graph=True)
        norms.append(gradient.square().sum())
    return torch.stack(norms).mean()


def assert_same_loss_and_gradients(ours: torch.Tensor, theirs: torch.Tensor, network: nn.Module):
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    weights = list(network.parameters())
    pairs = zip(
        torch.autograd.grad(ours, weights, retain_graph=True, allow_unused=True),
        torch.autograd.grad(theirs, weights, retain_graph=True, allow_unused=True),
        strict=True,
    )
    for left, right in pairs:
        if left is None or right is None:
            assert left is None or not left.any()
            assert right is None or not right.any()
        else:
            torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("architecture", ["modern", "dcgan", "mlp", "resnet"])
@pytest.mark.parametrize(
    "kind", ["non_saturating", "least_squares", "hinge", "wasserstein", "relativistic"]
)
def test_adversarial_losses_are_those_of_the_papers(kind: str, architecture: str, make):
    objective, _, pair, _ = make(pair_of(architecture=architecture), adversarial=kind, **NO_PENALTY)
    drawn = objective.draw(batch_of(), 0)
    found = objective.discriminator_losses(drawn, 0)
    r, f = judge(pair, drawn.real, drawn), judge(pair, drawn.fake.detach(), drawn)
    expected = by_hand(kind, r, f)[0]
    assert_same_loss_and_gradients(found["d_loss"], expected, pair.discriminator)
    assert found["real_score"].item() == pytest.approx(r.mean().item(), abs=1e-5)
    assert found["fake_score"].item() == pytest.approx(f.mean().item(), abs=1e-5)
    assert found["d_accuracy"] == (r > f).float().mean()
    r, f = r.detach(), judge(pair, drawn.fake, drawn)
    with frozen(pair.discriminator):
        ours = objective.generator_losses(drawn)["g_loss"]
    assert_same_loss_and_gradients(ours, by_hand(kind, r, f)[1], pair.generator)


def test_noise_follows_from_the_seed_and_the_place_alone(make):
    objective, _, pair, _ = make()
    batch = batch_of()
    first = objective.draw(batch, 5).fake
    torch.manual_seed(123)
    assert torch.equal(objective.draw(batch, 5).fake, first)
    assert not torch.equal(objective.draw(batch, 6).fake, first)
    source = torch.Generator().manual_seed(mix_seed(42, 21, 5) >> 1)
    latents = torch.randn((4, 5), generator=source)
    assert torch.equal(first, pair.generator(latents, class_labels=batch["class_labels"]).images)


def test_every_micro_batch_of_a_run_has_a_place_of_its_own(make):
    places = []
    for rank in range(2):
        objective, _, _, _ = make(optim={"discriminator_steps": 2})
        objective.rank, objective.world_size = rank, 2
        object.__setattr__(objective, "config", SimpleNamespace(
            batches_per_step=6, optim=SimpleNamespace(discriminator_steps=2)))  # fmt: skip
        places += [
            objective.place(step, turn, number)
            for step in range(3)
            for turn in range(2)
            for number in range(3)
        ]
    assert sorted(places) == list(range(36))


@pytest.mark.parametrize("step", [0, 1, 3, 6])
@pytest.mark.parametrize(("r1", "r2"), [(0.7, 0.2), (0.7, 0.0), (0.0, 0.4)])
def test_lazy_penalties_weigh_as_much_more(r1: float, r2: float, step: int, make):
    objective, _, pair, _ = make(adversarial="hinge", r1=r1, r2=r2, penalty_every=3)
    drawn = objective.draw(batch_of(), 0)
    found = objective.discriminator_losses(drawn, step)
    r, f = judge(pair, drawn.real, drawn), judge(pair, drawn.fake.detach(), drawn)
    expected = by_hand("hinge", r, f)[0]
    if step % 3 == 0:
        penalty = r1 / 2 * squared_gradient(pair, drawn.real, drawn)
        penalty = penalty + r2 / 2 * squared_gradient(pair, drawn.fake, drawn)
        torch.testing.assert_close(found["d_penalty"], penalty)
        expected = expected + 3 * penalty
    else:
        assert "d_penalty" not in found
    assert_same_loss_and_gradients(found["d_loss"], expected, pair.discriminator)


def test_default_penalties_follow_from_loss_and_resolution(make):
    recipe = make()[3]
    assert recipe.r1 == recipe.r2 == 0.125 / 16
    other = make(adversarial="hinge")[3]
    assert (other.r1, other.r2) == (0.0, 0.0)
    given = make(adversarial="hinge", r1=2.0)[3]
    assert (given.r1, given.r2) == (2.0, 0.0)
    assert make(penalty="interpolated")[3].r1 == 0.0


@pytest.mark.parametrize("penalty", ["interpolated", "divergence"])
def test_penalties_between_real_and_drawn_images(penalty: str, make):
    objective, _, pair, _ = make(
        adversarial="wasserstein", penalty=penalty, interpolated_weight=4.0
    )
    drawn = objective.draw(batch_of(), 2)
    state = drawn.random.get_state()
    found = objective.discriminator_losses(drawn, 1)
    source = torch.Generator()
    source.set_state(state)
    mix = torch.rand((4, 1, 1, 1), generator=source)
    fake = drawn.fake.detach()
    points = (mix * drawn.real + (1 - mix) * fake).requires_grad_()
    logits = judge(pair, points, drawn)
    (gradient,) = torch.autograd.grad(logits.sum(), points, create_graph=True)
    norms = gradient.flatten(1).norm(dim=1)
    expected = 4 * ((norms - 1) ** 2).mean() if penalty == "interpolated" else 2 * (norms**6).mean()
    torch.testing.assert_close(found["d_penalty"], expected)
    whole = by_hand("wasserstein", judge(pair, drawn.real, drawn), judge(pair, fake, drawn))[0]
    assert_same_loss_and_gradients(found["d_loss"], whole + expected, pair.discriminator)


@pytest.mark.parametrize("conditioning", ["class", "attributes"])
def test_the_auxiliary_classifier_learns_from_real_images_and_teaches_the_generator(
    conditioning: str, make
):
    pair = pair_of(conditioning=conditioning, discriminator_conditioning="classifier")
    objective, _, _, _ = make(pair, classifier_weight=0.5, **NO_PENALTY)
    drawn = objective.draw(batch_of(conditioning=conditioning), 0)
    found = objective.discriminator_losses(drawn, 0)
    labels = drawn.condition["class_labels"]

    def by_definition(images: torch.Tensor) -> torch.Tensor:
        scores = pair.discriminator(images, **drawn.condition).class_logits
        if conditioning == "class":
            return -scores.softmax(1)[torch.arange(4), labels].log().mean()
        chance = scores.sigmoid()
        return -(labels * chance.log() + (1 - labels) * (1 - chance).log()).mean()

    r, f = judge(pair, drawn.real, drawn), judge(pair, drawn.fake.detach(), drawn)
    expected = by_hand("relativistic", r, f)[0] + 0.5 * by_definition(drawn.real)
    assert_same_loss_and_gradients(found["d_loss"], expected, pair.discriminator)
    expected = by_hand("relativistic", r.detach(), judge(pair, drawn.fake, drawn))[1]
    expected = expected + 0.5 * by_definition(drawn.fake)
    ours = objective.generator_losses(drawn)["g_loss"]
    assert_same_loss_and_gradients(ours, expected, pair.generator)


def test_augmentation_and_consistency(make):
    policies = ["color", "translation", "cutout"]
    objective, _, pair, _ = make(augment=policies, consistency_weight=3.0, **NO_PENALTY)
    drawn = objective.draw(batch_of(), 4)
    source = torch.Generator()
    source.set_state(drawn.random.get_state())
    found = objective.discriminator_losses(drawn, 0)
    both = torch.cat((drawn.real, drawn.fake.detach()))
    first, second = (transform(both, policies, draws(8, source)) for _ in range(2))
    r, f = (judge(pair, half, drawn) for half in first.chunk(2))
    r_again, f_again = (judge(pair, half, drawn) for half in second.chunk(2))
    expected = by_hand("relativistic", r, f)[0]
    consistency = ((r - r_again) ** 2).mean() + ((f - f_again) ** 2).mean()
    torch.testing.assert_close(found["d_consistency"], consistency)
    assert_same_loss_and_gradients(found["d_loss"], expected + 3 * consistency, pair.discriminator)
    fake = transform(drawn.fake, policies, draws(4, source))
    expected = by_hand("relativistic", r.detach(), judge(pair, fake, drawn))[1]
    ours = objective.generator_losses(drawn)["g_loss"]
    assert_same_loss_and_gradients(ours, expected, pair.generator)


def test_weights_are_clipped_after_an_update(make):
    objective, _, pair, _ = make(adversarial="wasserstein", clip_weights=0.01, **NO_PENALTY)
    before = copy.deepcopy(pair.generator.state_dict())
    objective.after_update()
    assert max(p.abs().max().item() for p in pair.discriminator.parameters()) <= 0.01
    assert all(torch.equal(before[name], t) for name, t in pair.generator.state_dict().items())
    untouched, _, pair, _ = make(pair_of(), **NO_PENALTY)
    untouched.after_update()
    assert max(p.abs().max().item() for p in pair.discriminator.parameters()) > 0.01


@pytest.mark.parametrize("architecture", ["modern", "dcgan"])
def test_each_turn_changes_one_network_only_also_once_adam_has_momentum(architecture: str, make):
    pair = pair_of(architecture=architecture)
    objective, run, _, recipe = make(pair, optim={"beta1": 0.5}, penalty_every=1)
    optimizer = build_gan_optimizer(pair, recipe)

    def weights(network: nn.Module) -> list[torch.Tensor]:
        return [parameter.detach().clone() for parameter in network.parameters()]

    def differ(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
        return any(not torch.equal(a, b) for a, b in zip(left, right, strict=True))

    for step in range(3):
        drawn = objective.draw(batch_of(seed=step), step)
        g_before, d_before = weights(pair.generator), weights(pair.discriminator)
        objective.discriminator_losses(drawn, step)["d_loss"].backward()
        assert all(p.grad is None for p in pair.generator.parameters())
        update(run, pair.discriminator, optimizer)
        assert differ(d_before, weights(pair.discriminator))
        assert not differ(g_before, weights(pair.generator))
        d_before = weights(pair.discriminator)
        with frozen(pair.discriminator):
            objective.generator_losses(drawn)["g_loss"].backward()
        assert all(p.grad is None for p in pair.discriminator.parameters())
        update(run, pair.generator, optimizer)
        assert not differ(d_before, weights(pair.discriminator))
        assert differ(g_before, weights(pair.generator))


def test_freezing_ends_as_it_began_also_after_an_error():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False))

    def fail() -> None:
        with frozen(network):
            assert not any(p.requires_grad for p in network.parameters())
            raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        fail()
    assert [p.requires_grad for p in network.parameters()] == [True, True, False, False]


def test_a_gradient_that_is_not_finite_leaves_the_weights_as_they_were(make):
    objective, run, pair, recipe = make()
    optimizer = build_gan_optimizer(pair, recipe)
    before = copy.deepcopy(pair.state_dict())
    drawn = objective.draw(batch_of(), 0)
    (objective.discriminator_losses(drawn, 0)["d_loss"] * float("nan")).backward()
    with pytest.raises(TrainingDivergedError):
        update(run, pair.discriminator, optimizer)
    assert all(torch.equal(before[name], t) for name, t in pair.state_dict().items())


def test_gradients_are_clipped_to_the_norm_that_was_asked_for(make):
    _, run, pair, _ = make(optim={"max_grad_norm": 0.5})
    for parameter in pair.discriminator.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = [p.detach().clone() for p in pair.discriminator.parameters()]
    norm = update(run, pair.discriminator, torch.optim.SGD(pair.parameters(), lr=1.0))
    assert norm == pytest.approx(sum(p.numel() for p in before) ** 0.5)
    after = [p.detach() for p in pair.discriminator.parameters()]
    moved = [(new - old).norm() for new, old in zip(after, before, strict=True)]
    assert float(torch.stack(moved).norm()) == pytest.approx(0.5, rel=1e-3)


def joined(parts: list[Drawn]) -> Drawn:
    condition = {
        name: torch.cat([part.condition[name] for part in parts]) for name in parts[0].condition
    }
    known = [part.real_logits for part in parts if part.real_logits is not None]
    return Drawn(
        torch.cat([part.real for part in parts]),
        torch.cat([part.fake for part in parts]),
        condition,
        parts[0].random,
        torch.cat(known) if known else None,
    )


@pytest.mark.parametrize("architecture", ["modern", "mlp"])
@pytest.mark.parametrize("kind", ["relativistic", "non_saturating", "hinge"])
def test_micro_batches_are_one_large_batch(kind: str, architecture: str, make):
    """Both turns of a step, with penalties and a classifier, but without BatchNorm."""
    fields = {"architecture": architecture, "discriminator_conditioning": "classifier"}
    found = []
    for is_joined in (False, True):
        pair = pair_of(**fields)
        pair.generator.eval()  # BatchNorm of the mlp generator takes its running statistics
        objective, run, _, _ = make(pair, adversarial=kind, r1=0.3, r2=0.2)
        optimizer = torch.optim.SGD(pair.parameters(), lr=0.1)
        parts = [objective.draw(batch_of(seed=number), number) for number in range(4)]
        parts = [joined(parts)] if is_joined else parts
        for part in parts:
            (objective.discriminator_losses(part, 0)["d_loss"] / len(parts)).backward()
        d_norm = update(run, pair.discriminator, optimizer)
        with frozen(pair.discriminator):
            for part in parts:
                (objective.generator_losses(part)["g_loss"] / len(parts)).backward()
        g_norm = update(run, pair.generator, optimizer)
        found.append((pair, d_norm, g_norm))
    (parts_pair, *norms), (whole_pair, *whole_norms) = found
    assert norms == pytest.approx(whole_norms, rel=1e-5)
    for ours, theirs in zip(parts_pair.parameters(), whole_pair.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_the_average_follows_weights_and_takes_statistics_as_they_are(make):
    pair = pair_of(architecture="dcgan")
    objective, run, _, recipe = make(pair)
    optimizer = build_gan_optimizer(pair, recipe)
    ema = EMA(pair.generator, 0.9)
    start = {name: p.detach().clone() for name, p in pair.generator.named_parameters()}
    drawn = objective.draw(batch_of(), 0)
    objective.discriminator_losses(drawn, 0)
    objective.generator_losses(drawn)["g_loss"].backward()
    update(run, pair.generator, optimizer)
    ema.update(pair.generator)
    average = ema.state_dict()
    for name, parameter in pair.generator.named_parameters():
        expected = 0.1 * start[name] + 0.9 * parameter.detach()  # the first decay is 1 / 10
        torch.testing.assert_close(average[f"average.{name}"], expected)
    buffers = dict(pair.generator.named_buffers())
    assert any(name.endswith("running_var") for name in buffers)
    for name, buffer in buffers.items():
        assert torch.equal(average[f"average.{name}"], buffer)


def labelled(count: int) -> SimpleNamespace:
    """A set of images sorted by class, of which only the labels are looked at."""
    labels = np.repeat(np.arange(LABELS), -(-count // LABELS))[:count]

    class Images(SimpleNamespace):
        def __len__(self) -> int:
            return count

    return Images(labels=labels)


def test_conditions_of_a_sorted_set_are_mixed():
    images = labelled(3000)
    chosen = images.labels[mixed_places(images, np.arange(100))]
    assert np.bincount(chosen, minlength=LABELS).min() > 15
    everything = mixed_places(images, np.arange(3000))
    assert sorted(everything.tolist()) == list(range(3000))
    assert mixed_places(images, np.array([3001]))[0] == everything[1]


@pytest.mark.parametrize("architecture", ["dcgan", "mlp", "resnet"])
def test_recomputed_statistics_are_the_mean_of_the_batches_and_forget_the_old(architecture: str):
    generator = pair_of(architecture=architecture).generator
    images = labelled(50)
    seen: list[torch.Tensor] = []
    norms = [m for m in generator.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        norms[0].running_mean.fill_(100.0)
    weights = [p.detach().clone() for p in generator.parameters()]
    hook = norms[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    state = torch.get_rng_state()
    recompute_statistics(generator, images, None, seed=1)
    hook.remove()
    assert torch.equal(torch.get_rng_state(), state)
    axes = (0, 2, 3) if seen[0].ndim == 4 else (0,)
    mean = torch.stack([states.mean(axes) for states in seen]).mean(0)
    variance = torch.stack([states.var(axes) for states in seen]).mean(0)
    torch.testing.assert_close(norms[-1].running_mean, mean, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(norms[-1].running_var, variance, atol=1e-5, rtol=1e-4)
    assert all(module.training for module in generator.modules())
    assert all(norm.momentum == 0.1 for norm in norms)
    assert all(torch.equal(a, b) for a, b in zip(weights, generator.parameters(), strict=True))
    again = copy.deepcopy(generator).eval()
    recompute_statistics(again, images, None, seed=1)
    assert not again.training
    for name, buffer in generator.named_buffers():
        assert torch.equal(dict(again.named_buffers())[name], buffer)


def test_recomputing_has_no_dropout_and_leaves_the_random_stream_alone():
    """A run that publishes because it was stopped must go on with the same random numbers."""
    torch.manual_seed(0)
    config = GenGANConfig(**{
        **SIZES, "architecture": "dcgan", "conditioning": "text", "vocab_size": 20, "hidden_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 2, "pad_token_id": 0, "text_dropout": 0.5,
    })  # fmt: skip
    generator = GenGANGenerator(config).train()
    rows = {"input_ids": torch.ones(100, 4).long(), "attention_mask": torch.ones(100, 4).long()}
    captions: Any = SimpleNamespace(starts=np.arange(11), rows=lambda _chosen: rows)
    state = torch.get_rng_state()
    recompute_statistics(generator, labelled(10), captions, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in generator.modules())
