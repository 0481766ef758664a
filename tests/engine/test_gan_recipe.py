"""The numbers of a GAN's run that follow from architecture, resolution and number of images."""

import pytest

from hf_genmodels.config.gan import TrainGANConfig
from hf_genmodels.engine.gan_recipe import recipe_of

SAMPLE = ["sample:fashion_mnist/train.parquet"]


def config_of(**options):
    return TrainGANConfig(train_file=SAMPLE, **options)


def test_r1_grows_with_the_pixels_and_where_images_are_few():
    small, large = (recipe_of(config_of(image_size=size), "modern", 6000) for size in (32, 64))
    assert large.r1 == pytest.approx(4 * small.r1)
    few, very_few = (recipe_of(config_of(), "modern", count) for count in (1500, 10))
    assert few.r1 == pytest.approx(4 * small.r1)
    assert very_few.r1 == pytest.approx(8 * small.r1)
    assert recipe_of(config_of(), "modern", 60_000) == small
    assert small.r1 == small.r2


def test_learning_rate_and_batch_follow_the_resolution():
    sizes = 28, 32, 64, 128
    rates = [recipe_of(config_of(image_size=size), "modern").generator_lr for size in sizes]
    assert rates == pytest.approx([2e-3, 2e-3, 1e-3, 5e-4])
    assert [config_of(image_size=size).per_device_train_batch_size for size in sizes] == [
        32,
        32,
        64,
        64,
    ]


def test_what_is_given_wins():
    config = config_of(per_device_train_batch_size=7)
    config.optim.lr, config.optim.discriminator_lr, config.optim.beta1 = 1e-4, 3e-4, 0.5
    config.loss.r1 = 2.0
    recipe = recipe_of(config, "modern", 100)
    assert config.per_device_train_batch_size == 7
    assert (recipe.generator_lr, recipe.discriminator_lr, recipe.beta1) == (1e-4, 3e-4, 0.5)
    assert (recipe.r1, recipe.r2) == (2.0, 2.0)


def test_other_losses_have_no_penalty_unless_it_is_asked_for():
    config = config_of()
    config.loss.adversarial = "hinge"
    assert (recipe_of(config, "dcgan").r1, recipe_of(config, "dcgan").r2) == (0.0, 0.0)
    config.loss.r1 = 0.1
    assert (recipe_of(config, "dcgan").r1, recipe_of(config, "dcgan").r2) == (0.1, 0.0)
    config.loss.penalty = "none"
    assert recipe_of(config, "dcgan").r1 == 0.0
