import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from hf_genmodels.losses.gradient_penalty import (
    clip_weights,
    interpolated,
    matching_aware,
    wasserstein_divergence,
    zero_centered,
)

SHAPE = (3, 2, 2, 2)
PENALTIES = ["zero_centered", "interpolated", "wasserstein_divergence", "matching_aware"]


def numbers(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def critic(weights, images):
    """A smooth D whose gradient depends on its input, (B,)."""
    return torch.tanh(images.flatten(1) @ weights).sum(dim=1)


def penalty(name, weights, real, fake):
    mix = torch.linspace(0.1, 0.9, len(real), dtype=real.dtype)[:, None, None, None]
    if name == "zero_centered":
        real = real.detach().requires_grad_()
        return zero_centered(critic(weights, real), real)
    if name == "matching_aware":
        real, fake = real.detach().requires_grad_(), fake.detach().requires_grad_()
        return matching_aware(critic(weights, real) * critic(weights, fake), real, fake)
    formula = interpolated if name == "interpolated" else wasserstein_divergence
    return formula(lambda images: critic(weights, images), real, fake, mix)


def by_finite_differences(score, point, step=1e-5):
    """Return the gradient of the score of one image, flat."""
    moves = step * torch.eye(point.numel(), dtype=point.dtype).view(-1, *point.shape)
    return torch.stack([(score(point + m) - score(point - m)) / (2 * step) for m in moves])


@pytest.mark.parametrize("name", PENALTIES)
def test_the_norms_agree_with_finite_differences(name):
    weights, real, fake = numbers(0, 8, 4), numbers(1, *SHAPE), numbers(2, *SHAPE)
    mix = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)[:, None, None, None]
    points = {"zero_centered": real, "matching_aware": torch.cat([real, fake], dim=1)}.get(
        name, mix * real + (1 - mix) * fake
    )

    def score(point):
        if name != "matching_aware":
            return critic(weights, point[None])[0]
        return critic(weights, point[None, :2])[0] * critic(weights, point[None, 2:])[0]

    norms = torch.stack([by_finite_differences(score, point).norm() for point in points])
    formulas = {"zero_centered": norms**2, "interpolated": (norms - 1) ** 2}
    expected = formulas.get(name, 2 * norms**6).mean()

    torch.testing.assert_close(penalty(name, weights, real, fake), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_are_differentiable_by_the_weights_of_the_discriminator(name):
    real, fake = numbers(1, *SHAPE), numbers(2, *SHAPE)
    weights = numbers(0, 8, 4).requires_grad_()

    assert gradcheck(lambda w: penalty(name, w, real, fake), (weights,))


@pytest.mark.parametrize("name", PENALTIES)
def test_a_discriminator_without_gradient_gives_finite_numbers(name):
    weights = torch.zeros(8, 4, dtype=torch.float64, requires_grad=True)

    value = penalty(name, weights, numbers(1, *SHAPE), numbers(2, *SHAPE))
    value.backward()

    assert value.item() == (1 if name == "interpolated" else 0)
    assert weights.grad.isfinite().all()


def test_a_linear_discriminator_has_closed_forms():
    weights = torch.tensor([[3.0], [4.0]])
    linear = lambda images: images.flatten(1) @ weights
    real, fake = torch.zeros(5, 1, 1, 2, requires_grad=True), torch.ones(5, 1, 1, 2)
    mix = torch.rand(5, 1, 1, 1)

    assert zero_centered(linear(real), real).item() == pytest.approx(25)
    assert interpolated(linear, real, fake, mix).item() == pytest.approx(16)
    divergence = wasserstein_divergence(linear, real, fake, mix, power=2, weight=3)
    assert divergence.item() == pytest.approx(75)
    sentences = torch.ones(5, 2, requires_grad=True)
    both = linear(real) + linear(sentences)
    assert matching_aware(both, real, sentences, power=2, weight=1).item() == pytest.approx(50)


def test_the_mix_says_where_between_the_images():
    seen = []

    def critic_of(images):
        seen.append(images)
        return images.flatten(1).sum(dim=1)

    real, fake = torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    interpolated(critic_of, real, fake, torch.tensor([1.0, 0.25]).view(2, 1, 1, 1))

    assert seen[0][0].eq(1).all()
    assert seen[0][1].eq(0.25).all()


def test_no_gradient_of_a_penalty_reaches_the_images():
    fake = numbers(2, *SHAPE).requires_grad_()
    weights = numbers(0, 8, 4).requires_grad_()

    penalty("interpolated", weights, numbers(1, *SHAPE), fake).backward()

    assert fake.grad is None
    assert weights.grad.any()


def test_clipping_keeps_every_parameter_within_the_bound():
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))

    clip_weights(module, 0.01)

    assert all(parameter.abs().max() <= 0.01 for parameter in module.parameters())
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_what_cannot_be_computed_is_refused():
    images = torch.ones(2, 1, 2, 2)
    scores = torch.ones(2, requires_grad=True) * 1
    mix = torch.ones(2, 1, 1, 1)
    asked = images.clone().requires_grad_()

    with pytest.raises(ValueError, match="requires_grad_"):
        zero_centered(scores, images)
    with pytest.raises(ValueError, match=r"real .* and fake"):
        interpolated(lambda x: x, images, images[:1], mix)
    with pytest.raises(ValueError, match=r"mix .* and images"):
        interpolated(lambda x: x, images, images, mix[:, 0])
    with pytest.raises(ValueError, match="power=1"):
        matching_aware(asked.flatten(1).sum(1), asked, asked, power=1)
    with pytest.raises(ValueError, match="bound=0"):
        clip_weights(nn.Linear(1, 1), 0)
