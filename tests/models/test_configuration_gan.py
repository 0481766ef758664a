"""The GAN's configuration: what it derives, keeps and refuses."""

import pytest
from transformers import AutoConfig

import hf_genmodels  # noqa: F401
from hf_genmodels.models.configuration_gan import ARCHITECTURES, GenGANConfig


def test_the_defaults_are_a_model_without_conditions_that_loads_by_auto_config(tmp_path):
    config = GenGANConfig()
    assert (config.architecture, config.conditioning) == ("modern", "none")
    assert config.architectures == ["GenGANGenerator"]
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is GenGANConfig
    assert {**loaded.to_dict(), "_name_or_path": ""} == config.to_dict()


def test_names_of_classes_survive_a_round_trip(tmp_path):
    names = {0: "shirt", 1: "bag", 2: "T-shirt/top"}
    GenGANConfig(conditioning="class", id2label=names).save_pretrained(tmp_path)
    loaded = GenGANConfig.from_pretrained(tmp_path)
    assert loaded.id2label == names
    assert loaded.label2id == {"shirt": 0, "bag": 1, "T-shirt/top": 2}
    assert loaded.num_labels == 3


@pytest.mark.parametrize(
    ("size", "base", "stages"), [(8, 4, 1), (28, 7, 2), (40, 5, 3), (64, 4, 4), (256, 4, 6)]
)
def test_an_image_is_halved_down_to_four_to_seven_pixels(size, base, stages):
    config = GenGANConfig(image_size=size)
    assert (config.base_size, config.num_stages) == (base, stages)
    assert config.base_size * 2**config.num_stages == size


def test_channels_double_from_map_to_map_up_to_eight_times():
    config = GenGANConfig(image_size=256)
    assert [config.channels_at(stage, 16) for stage in range(1, 7)] == [16, 32, 64, 128, 128, 128]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("size", [8, 16, 32, 64, 128, 256])
def test_every_architecture_draws_powers_of_two(architecture, size):
    assert GenGANConfig(architecture=architecture, image_size=size).image_size == size


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"architecture": "dcgan", "image_size": 28}, ["dcgan", "28", "nearest size is 32"]),
        ({"architecture": "resnet", "image_size": 512}, ["512", "256"]),
        ({"image_size": 30}, ["30", "nearest size is 28", "32"]),
        ({"image_size": 4}, ["4", "8"]),
        ({"image_size": 0}, ["image_size"]),
        ({"architecture": "biggan"}, ["biggan", "modern, dcgan, resnet, mlp"]),
        ({"conditioning": "label"}, ["label", "class", "attributes", "text"]),
        ({"num_channels": 2}, ["num_channels", "2", "1, 3, 4"]),
        ({"generator_conditioning": "film"}, ["film", "concat, norm"]),
        ({"discriminator_conditioning": "both"}, ["both", "projection, classifier, concat"]),
        ({"latent_dim": 0}, ["latent_dim"]),
        ({"dropout": 1.5}, ["dropout", "1.5"]),
        ({"discriminator_conditioning": "classifier"}, ["classifier", "projection"]),
        ({"architecture": "mlp", "conditioning": "text"}, ["mlp", "modern, dcgan, resnet"]),
        ({"masked_tokens": True}, ["masked_tokens", "conditioning=none"]),
        ({"text_agreement": True, "conditioning": "class"}, ["text_agreement", "conditioning=class"]),
        ({"image_reconstruction": True, "architecture": "mlp"}, ["mlp", "image_reconstruction"]),
        ({"conditioning": "text", "hidden_size": 10, "num_attention_heads": 4}, ["hidden_size", "10"]),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_with_what_can(fields, words):
    with pytest.raises(Exception, match=r".") as caught:
        GenGANConfig(**fields)
    said = str(caught.value.__cause__ or caught.value)
    assert isinstance(caught.value.__cause__ or caught.value, ValueError)
    for word in words:
        assert word in said, said
