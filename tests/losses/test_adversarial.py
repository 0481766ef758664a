import math

import pytest
import torch
from torch.autograd import gradcheck

from hf_genmodels.losses.adversarial import (
    KINDS,
    classification_loss,
    discriminator_loss,
    generator_loss,
)

REAL, FAKE = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])


def softplus(value):
    return math.log1p(math.exp(value))


def scores(seed, size=5):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("kind", "discriminator", "generator"),
    [
        (
            "non_saturating",
            (softplus(-2) + softplus(1) + softplus(0.5) + softplus(-3)) / 2,
            (softplus(-0.5) + softplus(3)) / 2,
        ),
        ("least_squares", ((1 + 4) / 2 + (0.25 + 9) / 2) / 2, (0.25 + 16) / 4),
        ("hinge", (0 + 2 + 1.5 + 0) / 2, 2.5 / 2),
        ("wasserstein", -2.5 / 2 - 1 / 2, 2.5 / 2),
        (
            "relativistic",
            (softplus(0.5 - 2) + softplus(-3 + 1)) / 2,
            (softplus(2 - 0.5) + softplus(-1 + 3)) / 2,
        ),
    ],
)
def test_two_scores_are_the_closed_forms(kind, discriminator, generator):
    assert discriminator_loss(kind, REAL, FAKE).item() == pytest.approx(discriminator)
    assert generator_loss(kind, FAKE, REAL).item() == pytest.approx(generator)


def test_non_saturating_is_the_cross_entropy_of_sigmoids():
    expected = -REAL.sigmoid().log().mean() - (1 - FAKE.sigmoid()).log().mean()

    torch.testing.assert_close(discriminator_loss("non_saturating", REAL, FAKE), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_agree_with_finite_differences(kind):
    real, fake = scores(0).requires_grad_(), scores(1).requires_grad_()

    assert gradcheck(lambda r, f: discriminator_loss(kind, r, f), (real, fake))
    assert gradcheck(lambda f: generator_loss(kind, f, real.detach()), (fake,))


@pytest.mark.parametrize("kind", KINDS)
def test_both_sides_pull_the_scores_apart_or_together(kind):
    real, fake = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)

    discriminator_loss(kind, real, fake).backward()
    # At 0 every kind wants real scores higher; least squares is content with drawn ones at 0.
    assert (real.grad < 0).all()
    assert (fake.grad >= 0).all()
    fake.grad = None
    generator_loss(kind, fake, real.detach()).backward()
    assert (fake.grad < 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_any_size_and_precision_give_finite_losses(kind):
    large = torch.tensor([60.0, -60.0], dtype=torch.bfloat16)

    for loss in (discriminator_loss(kind, large, -large), generator_loss(kind, large, -large)):
        assert loss.dtype == torch.float32
        assert loss.isfinite()


@pytest.mark.parametrize("kind", KINDS)
def test_micro_batches_have_the_mean_of_the_batch(kind):
    real, fake = scores(2, 6), scores(3, 6)
    parts = [
        discriminator_loss(kind, r, f) for r, f in zip(real.split(2), fake.split(2), strict=True)
    ]

    torch.testing.assert_close(torch.stack(parts).mean(), discriminator_loss(kind, real, fake))


def test_classes_and_attributes_have_the_loss_of_their_kind():
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])

    classes = classification_loss(logits, torch.tensor([1, 0]))
    assert classes.item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)
    attributes = classification_loss(logits, torch.tensor([[True, False], [True, True]]))
    assert attributes.item() == pytest.approx((3 * math.log(2) + math.log(4 / 3)) / 4)


def test_what_cannot_be_computed_is_refused():
    with pytest.raises(ValueError, match="kind='bce' is unknown"):
        discriminator_loss("bce", REAL, FAKE)
    with pytest.raises(ValueError, match="kind='bce' is unknown"):
        generator_loss("bce", FAKE)
    with pytest.raises(ValueError, match="give real_logits"):
        generator_loss("relativistic", FAKE)
    with pytest.raises(ValueError, match="shapes must be equal"):
        discriminator_loss("relativistic", REAL, FAKE[:1])
    with pytest.raises(ValueError, match="shapes must be equal"):
        classification_loss(torch.zeros(2, 3), torch.zeros(2, 2))
