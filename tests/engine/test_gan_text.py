from types import SimpleNamespace

import pytest
import torch
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

from hf_genmodels.config.gan import GANLossConfig, TrainGANConfig
from hf_genmodels.engine.gan_models import GANPair
from hf_genmodels.engine.gan_recipe import recipe_of
from hf_genmodels.engine.gan_step import GANObjective
from hf_genmodels.engine.gan_text import check_text_losses, frozen_encoder, heads_for
from hf_genmodels.errors import UserError
from hf_genmodels.models.configuration_gan import GenGANConfig
from hf_genmodels.models.modeling_gan import GenGANDiscriminator, GenGANGenerator

RUN = SimpleNamespace(accelerator=SimpleNamespace(process_index=0))
ALL = {
    "mismatch_weight": 0.5,
    "matching_penalty": 0.3,
    "masked_token_weight": 0.7,
    "agreement_weight": 0.2,
    "reconstruction_weight": 1.5,
    "paired_weight": 4.0,
}
NONE = dict.fromkeys(ALL, 0.0)


def batch(size=4):
    ids = torch.tensor([[5, 6, 7], [9, 4, 0], [3, 8, 0], [2, 0, 0]])[:size]
    images = torch.rand(size, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return {"images": images, "input_ids": ids, "attention_mask": (ids != 0).long()}


def objective(architecture="modern", kind="projection", **loss):
    torch.manual_seed(0)
    config = TrainGANConfig(
        output_dir="unused",
        train_file=["unused"],
        loss=GANLossConfig(**(NONE | {"penalty_every": 1} | loss)),
    )
    model = GenGANConfig(
        architecture=architecture,
        discriminator_conditioning=kind,
        conditioning="text",
        image_size=16,
        num_channels=3,
        latent_dim=6,
        condition_dim=10,
        generator_width=4,
        discriminator_width=4,
        hidden_size=16,
        vocab_size=20,
        pad_token_id=0,
        text_dropout=0.0,
        **heads_for(config.loss),
    )
    pair = GANPair(GenGANGenerator(model), GenGANDiscriminator(model)).train()
    return GANObjective(config, pair, recipe_of(config, architecture), RUN)


def one_step(trained, place=0):
    drawn = trained.draw(batch(), place)
    return trained.discriminator_losses(drawn, 0), trained.generator_losses(drawn)


@pytest.mark.parametrize("kind", ["projection", "concat"])
@pytest.mark.parametrize("architecture", ["modern", "dcgan", "resnet"])
def test_every_loss_is_reported_and_weighs_what_it_was_given(architecture, kind):
    on_d, on_g = one_step(objective(architecture, kind, **ALL))
    expected = on_d["d_adversarial"] + on_d["d_penalty"]
    for name, weight in ALL.items():
        key = "d_" + name.removesuffix("_weight")
        if key in on_d:
            expected = expected + weight * on_d[key]
    torch.testing.assert_close(on_d["d_loss"], expected)
    assert {"d_agreement", "d_masked_token", "d_reconstruction", "d_matching_penalty"} <= set(on_d)
    expected = on_g["g_adversarial"] + 0.2 * on_g["g_agreement"] + 4 * on_g["g_paired"]
    torch.testing.assert_close(on_g["g_loss"], expected)


def test_without_weights_only_the_adversarial_loss_and_its_penalty_are_there():
    on_d, on_g = one_step(objective())
    scores = {"real_score", "fake_score", "d_accuracy"}
    assert set(on_d) - scores == {"d_loss", "d_adversarial", "d_penalty"}
    assert set(on_g) == {"g_loss", "g_adversarial"}


def test_mismatched_texts_change_what_the_discriminator_minimises():
    plain, aware = (one_step(objective(mismatch_weight=w))[0]["d_adversarial"] for w in (0.0, 1.0))
    assert abs(plain - aware) > 1e-3


def test_random_choices_follow_from_the_place_of_a_batch():
    trained = objective(**ALL)
    first, again, other = (one_step(trained, place) for place in (3, 3, 4))
    assert all(torch.equal(first[0][name], again[0][name]) for name in first[0])
    assert first[0]["d_masked_token"] != other[0]["d_masked_token"]


@pytest.mark.parametrize("architecture", ["modern", "dcgan"])
def test_both_networks_learn_with_every_loss(architecture):
    trained = objective(architecture, **ALL)
    drawn = trained.draw(batch(), 0)
    trained.discriminator_losses(drawn, 0)["d_loss"].backward()
    missing = [n for n, p in trained.discriminator.named_parameters() if p.grad is None]
    assert not missing
    trained.discriminator.requires_grad_(False)
    trained.generator_losses(drawn)["g_loss"].backward()
    missing = [n for n, p in trained.generator.named_parameters() if p.grad is None]
    assert not missing


def test_the_generator_follows_its_pair():
    trained = objective(paired_weight=1.0)
    drawn = trained.draw(batch(), 0)
    trained.discriminator_losses(drawn, 0)
    found = trained.generator_losses(drawn)["g_paired"]
    torch.testing.assert_close(found, (drawn.fake - drawn.real).abs().mean())


@pytest.mark.parametrize("name", sorted(set(ALL) - {"mismatch_weight"}))
def test_losses_of_texts_without_texts_are_refused(name):
    loss = GANLossConfig(**{name: 1.0})
    config = TrainGANConfig(output_dir="unused", train_file=["unused"], loss=loss)
    with pytest.raises(UserError, match=f"--loss.{name} belongs to texts"):
        check_text_losses(config, GenGANConfig(conditioning="class"))


def test_a_trained_discriminator_without_the_head_is_refused():
    config = TrainGANConfig(
        output_dir="unused",
        train_file=["unused"],
        model_name_or_path="trained",
        loss=GANLossConfig(agreement_weight=1.0),
    )
    with pytest.raises(UserError, match="text_agreement, which trained was not"):
        check_text_losses(config, GenGANConfig(conditioning="text"))


def test_one_image_in_a_batch_has_no_other_text():
    config = TrainGANConfig(
        output_dir="unused", train_file=["unused"], per_device_train_batch_size=1
    )
    with pytest.raises(UserError, match="per_device_train_batch_size 1"):
        check_text_losses(config, GenGANConfig(conditioning="text"))


def test_a_share_of_mismatches_is_at_most_one():
    with pytest.raises(UserError, match="mismatch_weight"):
        GANLossConfig(mismatch_weight=1.2)


def named(name):
    return TrainGANConfig(output_dir="unused", train_file=["unused"], text_encoder_name=str(name))


def test_a_frozen_encoder_is_read_from_a_folder(tmp_path):
    config = BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
    )
    BertModel(config).save_pretrained(tmp_path)
    assert type(frozen_encoder(named(tmp_path), "text")) is BertModel
    with pytest.raises(UserError, match="--text_encoder_name reads captions"):
        frozen_encoder(named(tmp_path), "class")


def test_what_is_no_text_encoder_is_refused_with_its_option(tmp_path):
    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    ViTModel(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"--text_encoder_name .* reads pixel_values"):
        frozen_encoder(named(tmp_path), "text")
    with pytest.raises(UserError, match="--text_encoder_name"):
        frozen_encoder(named(tmp_path / "nothing"), "text")
