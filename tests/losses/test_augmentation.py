import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from hf_genmodels.losses.augmentation import DRAWS, POLICIES, augment, draws, transform


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def uniform(channels, size=8, number=16, seed=0):
    return torch.rand(number, channels, size, size, generator=seeded(seed)) * 2 - 1


def numbers(row, count=1):
    """Numbers of which only some are not those of the transformation that changes nothing."""
    middle = {"brightness": 0.5, "saturation": 0.5, "contrast": 0.5, "down": 0.5, "right": 0.5}
    columns = [*middle, "row", "column"]
    values = [row.get(name, middle.get(name, 0.5)) for name in columns]
    return torch.tensor([values] * count, dtype=torch.float64)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("policies", [[policy] for policy in POLICIES] + [list(POLICIES)])
def test_shape_range_and_type_stay_and_the_images_change(channels, policies):
    images = uniform(channels)

    moved = augment(images, policies, seeded(0))

    assert moved.shape == images.shape
    assert moved.dtype == images.dtype
    assert moved.abs().max() <= 1
    assert not torch.equal(moved, images)
    assert augment(images.bfloat16(), policies, seeded(0)).dtype == torch.bfloat16


def test_equal_seeds_transform_real_and_drawn_images_alike():
    real, fake = uniform(3, seed=1), uniform(3, seed=2)
    half = torch.cat([real[:8], fake[:8]])

    mixed = augment(half, POLICIES, seeded(3))

    assert torch.equal(mixed[:8], augment(real, POLICIES, seeded(3))[:8])
    assert torch.equal(augment(real, POLICIES, seeded(3)), augment(real, POLICIES, seeded(3)))
    assert not torch.equal(augment(real, POLICIES, seeded(3)), augment(real, POLICIES, seeded(4)))


def test_draws_dealt_out_to_micro_batches_are_those_of_the_batch():
    images, dealt = uniform(3), draws(16, seeded(5))

    parts = [
        transform(part, POLICIES, rows)
        for part, rows in zip(images.split(4), dealt.split(4), strict=True)
    ]

    assert torch.equal(torch.cat(parts), augment(images, POLICIES, seeded(5)))


def test_the_order_and_the_choice_of_policies_do_not_change_one_another():
    images = uniform(3)
    steps = images
    for policy in POLICIES:
        steps = augment(steps, [policy], seeded(1))

    assert torch.equal(augment(images, ["cutout", "translation", "color"], seeded(1)), steps)


@pytest.mark.parametrize("policy", POLICIES)
def test_gradients_agree_with_finite_differences_twice(policy):
    inside = (uniform(3, size=4, number=2).double() * 0.1).requires_grad_()
    function = lambda images: transform(images, [policy], draws(2, seeded(0)))

    assert gradcheck(function, (inside,))
    assert gradgradcheck(lambda images: function(images).square(), (inside,))


def test_color_follows_the_formulas_of_the_paper():
    images = torch.tensor([0.2, -0.4, 0.2]).double().view(1, 3, 1, 1).expand(1, 3, 2, 2)
    change = lambda **row: transform(images, ["color"], numbers(row))[0, :, 0, 0]

    close = lambda values, expected: torch.testing.assert_close(
        values, torch.tensor(expected, dtype=torch.float64)
    )
    close(change(), [0.2, -0.4, 0.2])
    close(change(brightness=0.75), [0.45, -0.15, 0.45])
    close(change(brightness=0.0), [-0.3, -0.9, -0.3])
    close(change(saturation=0.0), [0.0, 0.0, 0.0])
    close(change(saturation=1.0), [0.4, -0.8, 0.4])
    close(change(contrast=0.0), [0.1, -0.2, 0.1])


def test_grey_images_have_no_saturation_and_opacity_has_no_color():
    grey, transparent = uniform(1), uniform(4)
    vivid = numbers({"saturation": 0.0}, 16)

    torch.testing.assert_close(transform(grey, ["color"], vivid), grey)
    assert torch.equal(augment(transparent, ["color"], seeded(0))[:, 3], transparent[:, 3])


def test_translation_moves_by_up_to_an_eighth_and_fills_with_zeros():
    images = torch.arange(1, 257).double().view(1, 1, 16, 16) / 256
    move = lambda **row: transform(images, ["translation"], numbers(row))[0, 0]

    assert torch.equal(move(), images[0, 0])
    down = move(down=0.999)
    assert torch.equal(down[2:], images[0, 0, :-2])
    assert not down[:2].any()
    left = move(right=0.0)
    assert torch.equal(left[:, :-2], images[0, 0, :, 2:])
    assert not left[:, -2:].any()


def test_cutout_is_a_square_of_half_the_side_anywhere():
    images = torch.ones(1, 2, 8, 8).double()
    cut = lambda **row: transform(images, ["cutout"], numbers(row))[0] == 0

    middle = cut(row=0.5, column=0.5)
    assert middle[:, 2:6, 2:6].all()
    assert middle.sum() == 2 * 16
    assert cut(row=0.0, column=0.0)[0].sum() == 4  # centred on a corner
    share = (augment(torch.ones(4000, 1, 8, 8), ["cutout"], seeded(0)) == 0).float().mean(dim=0)
    assert (share > 0.1).all()


def test_what_cannot_be_augmented_is_refused():
    with pytest.raises(ValueError, match="policy='colour' is unknown"):
        augment(uniform(3), ["colour"], seeded(0))
    with pytest.raises(ValueError, match="16 images needs 7 numbers"):
        transform(uniform(3), ["color"], torch.zeros(2, DRAWS))
