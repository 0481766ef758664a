"""The GAN's networks: shapes, gradients, round trips, drawing, and their equals in plain torch."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModel

import hf_genmodels  # noqa: F401
from hf_genmodels.models.configuration_gan import ARCHITECTURES, GenGANConfig
from hf_genmodels.models.gan_layers import SpectralConv2d, SpectralLinear
from hf_genmodels.models.modeling_gan import GenGANDiscriminator, GenGANGenerator

LABELS = 3
TINY: dict[str, Any] = {
    "image_size": 16,
    "latent_dim": 5,
    "condition_dim": 6,
    "generator_width": 3,
    "discriminator_width": 3,
    "num_labels": LABELS,
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 6,
    "pad_token_id": 0,
}
CONDITIONED = [
    *itertools.product(ARCHITECTURES, ["class", "attributes"], ["concat", "norm"],
                       ["projection", "classifier", "concat"]),
    *itertools.product(ARCHITECTURES, ["none"], ["concat", "norm"], ["projection"]),
    *itertools.product(["modern", "dcgan", "resnet"], ["text"], ["concat", "norm"],
                       ["projection", "concat"]),
]  # fmt: skip
MODES = pytest.mark.parametrize(
    ("architecture", "conditioning", "drawn_by", "judged_by"), CONDITIONED
)


def config_of(**fields: Any) -> GenGANConfig:
    return GenGANConfig(**{**TINY, **fields})


def conditions(config: GenGANConfig, count: int) -> dict[str, torch.Tensor]:
    if config.conditioning == "class":
        return {"class_labels": torch.arange(count) % LABELS}
    if config.conditioning == "attributes":
        return {"class_labels": (torch.arange(count * LABELS) % 2).view(count, LABELS).bool()}
    if config.conditioning == "text":
        ids = torch.arange(1, 1 + count * 5).remainder(19).add(1).view(count, 5)
        mask = torch.ones_like(ids)
        ids[0, 3:], mask[0, 3:] = 0, 0
        return {"input_ids": ids, "attention_mask": mask}
    return {}


def generator_of(**fields: Any) -> GenGANGenerator:
    """A generator whose running statistics are those of a few batches."""
    torch.manual_seed(0)
    config = config_of(**fields)
    model = GenGANGenerator(config).train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, config.latent_dim), **conditions(config, 8))
    return model.eval()


def discriminator_of(**fields: Any) -> GenGANDiscriminator:
    torch.manual_seed(1)
    return GenGANDiscriminator(config_of(**fields))


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Everything that a model holds, saved or not."""
    return {name: t.clone() for name, t in (*model.named_parameters(), *model.named_buffers())}


def assert_same_state(left: nn.Module, right: nn.Module) -> None:
    ours, theirs = state_of(left), state_of(right)
    assert ours.keys() == theirs.keys()
    differing = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert differing == []


@MODES
def test_shapes_and_gradients_that_reach_every_weight(
    architecture, conditioning, drawn_by, judged_by
):
    fields = {
        "architecture": architecture,
        "conditioning": conditioning,
        "generator_conditioning": drawn_by,
        "discriminator_conditioning": judged_by,
        "num_channels": 3,
        "dropout": 0.0,
    }
    generator, discriminator = generator_of(**fields).train(), discriminator_of(**fields).train()
    with torch.no_grad():  # what starts at zero lets no gradient through
        for parameter in (*generator.parameters(), *discriminator.parameters()):
            parameter.add_(torch.randn_like(parameter) * 0.1)
    condition = conditions(generator.config, 4)
    images = generator(torch.randn(4, 5), **condition).images
    assert images.shape == (4, 3, 16, 16)
    assert images.dtype == torch.float32
    assert images.abs().max() <= 1
    output = discriminator(images, **condition)
    assert output.logits.shape == (4,)
    loss = output.logits.square().sum()
    if judged_by == "classifier":
        assert output.class_logits.shape == (4, LABELS)
        loss = loss + output.class_logits.square().sum()
    else:
        assert output.class_logits is None
    loss.backward()
    unreached = [
        f"{type(network).__name__}.{name}"
        for network in (generator, discriminator)
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all() or not parameter.grad.any()
    ]
    # BatchNorm takes away whatever is the same everywhere, and softmax the bias of all keys.
    excused = (
        "conv.bias",
        "conv1.bias",
        "k_proj.bias",
        "layers.0.bias",
        "layers.1.bias",
        "input.bias",
        "GenGANGenerator.network.blocks.1.shortcut.bias",
    )
    assert [name for name in unreached if not name.endswith(excused)] == []


@MODES
def test_a_saved_pair_draws_and_judges_the_same_to_the_bit(
    architecture, conditioning, drawn_by, judged_by, tmp_path: Path
):
    fields = {
        "architecture": architecture,
        "conditioning": conditioning,
        "generator_conditioning": drawn_by,
        "discriminator_conditioning": judged_by,
    }
    generator, discriminator = generator_of(**fields), discriminator_of(**fields)
    condition = conditions(generator.config, 4)
    latents = torch.randn(4, 5)
    for _ in range(2):
        discriminator.train()(torch.randn(4, 1, 16, 16), **condition)
    discriminator.eval()
    generator.save_pretrained(tmp_path)
    discriminator.save_pretrained(tmp_path / "discriminator")
    with torch.no_grad():
        images = generator(latents, **condition).images
        logits = discriminator(images, **condition).logits
    torch.manual_seed(99)
    for _ in range(2):  # what the first load did must not change the second
        again = GenGANGenerator.from_pretrained(tmp_path)
        judge = GenGANDiscriminator.from_pretrained(tmp_path / "discriminator")
        assert_same_state(generator, again)
        assert_same_state(discriminator, judge)
        assert not again.training
        with torch.no_grad():
            assert torch.equal(again(latents, **condition).images, images)
            assert torch.equal(judge(images, **condition).logits, logits)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_auto_model_loads_both_networks_of_a_folder(architecture, tmp_path: Path):
    fields = {"architecture": architecture, "conditioning": "class"}
    generator_of(**fields).save_pretrained(tmp_path)
    discriminator_of(**fields).save_pretrained(tmp_path / "discriminator")
    assert type(AutoModel.from_pretrained(tmp_path)) is GenGANGenerator
    assert type(AutoModel.from_pretrained(tmp_path / "discriminator")) is GenGANDiscriminator


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("was_training", [True, False])
def test_sample_draws_in_eval_mode_and_leaves_the_mode_and_the_statistics(
    architecture, was_training
):
    model = generator_of(architecture=architecture, conditioning="class")
    labels, latents = torch.tensor([0, 2, 1]), torch.randn(3, 5)
    expected = model(latents, class_labels=labels).images
    model.train(was_training)
    before = state_of(model)
    images = model.sample(3, class_labels=labels, latents=latents)
    assert torch.equal(images, expected)
    assert not images.requires_grad
    assert all(module.training is was_training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in state_of(model).items())


def test_sample_restores_the_mode_also_when_drawing_fails():
    model = generator_of(conditioning="class").train()
    with pytest.raises(ValueError, match="give class_labels"):
        model.sample(2)
    assert model.training


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_image_does_not_depend_on_those_drawn_with_it(architecture):
    model = generator_of(architecture=architecture, conditioning="class").train()
    latents, labels = torch.randn(6, 5), torch.tensor([0, 1, 2, 0, 1, 2])
    together = model.sample(6, class_labels=labels, latents=latents)
    others = torch.cat((latents[:1], 9 * torch.randn(5, 5)))
    beside_others = model.sample(6, class_labels=torch.tensor([0, 2, 2, 2, 2, 2]), latents=others)
    assert torch.equal(beside_others[0], together[0])
    for index in range(6):
        alone = model.sample(
            1, class_labels=labels[index : index + 1], latents=latents[index : index + 1]
        )
        torch.testing.assert_close(alone[0], together[index], atol=1e-6, rtol=1e-5)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_seed_gives_the_same_image_alone_first_of_many_and_from_a_source_of_its_own():
    model = generator_of(architecture="dcgan")
    four = model.sample(4, generator=seeded(7))
    assert torch.equal(four, model.sample(4, generator=seeded(7)))
    assert not torch.equal(four, model.sample(4, generator=seeded(8)))
    torch.testing.assert_close(model.sample(1, generator=seeded(7)), four[:1])
    own = model.sample(3, generator=[seeded(5), seeded(7), seeded(5)])
    torch.testing.assert_close(own[1], four[0])
    torch.testing.assert_close(own[0], own[2])
    torch.manual_seed(3)
    first = model.sample(2)
    torch.manual_seed(3)
    assert torch.equal(first, model.sample(2))


def test_the_noise_of_the_first_images_is_the_same_for_any_number():
    model = generator_of(latent_dim=64)
    many = model.draw_latents(33, seeded(1))
    assert torch.equal(model.draw_latents(2, seeded(1)), many[:2])
    assert many.mean().abs() < 0.1
    assert many.std() == pytest.approx(1, abs=0.1)


def test_truncation_scales_the_noise():
    model = generator_of()
    latents = torch.randn(2, 5)
    scaled = model.sample(2, latents=latents, truncation=0.25)
    assert torch.equal(scaled, model.sample(2, latents=latents * 0.25))
    assert not torch.equal(scaled, model.sample(2, latents=latents))


def test_one_condition_serves_all_images():
    model = generator_of(conditioning="attributes")
    latents, row = torch.randn(3, 5), torch.tensor([[1, 0, 1]])
    once = model.sample(3, class_labels=row, latents=latents)
    assert torch.equal(once, model.sample(3, class_labels=row.repeat(3, 1), latents=latents))


@pytest.mark.parametrize(
    ("conditioning", "arguments", "words"),
    [
        ("none", {"num_images": 0}, ["num_images=0", "at least 1"]),
        ("none", {"truncation": 0.0}, ["truncation=0", "(0, 1]"]),
        ("none", {"truncation": 1.5}, ["1.5", "(0, 1]"]),
        ("none", {"latents": torch.zeros(2, 5)}, ["(1, 5)", "(2, 5)"]),
        ("none", {"latents": torch.zeros(1, 4)}, ["(1, 5)", "(1, 4)"]),
        ("none", {"class_labels": torch.zeros(1).long()}, ["class_labels", "no condition"]),
        ("none", {"generator": [torch.Generator()] * 2}, ["2 generators", "1 images"]),
        ("class", {}, ["give class_labels"]),
        ("class", {"input_ids": torch.ones(1, 3).long()}, ["give class_labels"]),
        ("none", {"input_ids": torch.ones(1, 3).long()}, ["no input_ids", "no condition"]),
        ("class", {"class_labels": torch.zeros(1, 3)}, ["ids of shape", "(1, 3)"]),
        ("class", {"class_labels": torch.zeros(1)}, ["ids of shape", "float32"]),
        ("class", {"class_labels": torch.tensor([3])}, ["3", "0", "2"]),
        ("class", {"class_labels": torch.tensor([-1])}, ["-1"]),
        ("class", {"num_images": 3, "class_labels": torch.zeros(2).long()}, ["2 rows", "3"]),
        ("attributes", {"class_labels": torch.zeros(1, 4)}, ["3 attributes", "(1, 4)"]),
        ("attributes", {"class_labels": torch.tensor([1])}, ["3 attributes"]),
        ("text", {"class_labels": torch.zeros(1).long()}, ["no class_labels", "input_ids"]),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_words(conditioning, arguments, words):
    model = generator_of(conditioning=conditioning)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are checked below
        model.sample(**{"num_images": 1, **arguments})
    for word in words:
        assert word in str(caught.value), caught.value


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_pictures_have_the_colours_of_the_tensor(channels, mode):
    model = generator_of(num_channels=channels)
    images = torch.linspace(-1, 1, channels * 256).view(1, channels, 16, 16)
    (picture,) = model.to_pil(images)
    assert (picture.mode, picture.size) == (mode, (16, 16))
    corner = picture.getpixel((0, 0))
    expected = [round(float((value + 1) * 127.5)) for value in images[0, :, 0, 0]]
    assert list(corner if channels > 1 else [corner]) == expected
    white, black = model.to_pil(
        torch.ones(2, channels, 16, 16) * torch.tensor([1, -1]).view(2, 1, 1, 1)
    )
    assert white.tobytes() == b"\xff" * 256 * channels
    assert black.tobytes() == b"\x00" * 256 * channels


@pytest.mark.parametrize("layer", [SpectralConv2d(3, 8, 3, padding=1), SpectralLinear(12, 5)])
def test_spectral_norm_finds_the_largest_singular_value(layer):
    torch.manual_seed(0)
    with torch.no_grad():
        layer.weight.normal_()
        layer.bias.zero_()
        layer.left_vector.normal_()
    inputs = torch.randn(2, 3, 6, 6) if layer.weight.ndim == 4 else torch.randn(2, 12)
    layer.train()
    for _ in range(200):
        output = layer(inputs)
    exact = torch.linalg.svdvals(layer.weight.detach().flatten(1))[0]
    torch.testing.assert_close(layer.largest_singular_value().detach(), exact)
    reference = nn.Conv2d(3, 8, 3, padding=1) if layer.weight.ndim == 4 else nn.Linear(12, 5)
    reference.load_state_dict({"weight": layer.weight, "bias": layer.bias})
    reference = nn.utils.parametrizations.spectral_norm(reference, n_power_iterations=200).train()
    torch.testing.assert_close(output, reference(inputs), atol=1e-5, rtol=1e-4)
    layer.zero_grad()
    layer(inputs).square().sum().backward()
    reference(inputs).square().sum().backward()
    theirs = reference.parametrizations.weight.original.grad
    torch.testing.assert_close(layer.weight.grad, theirs, atol=1e-4, rtol=1e-3)


def test_spectral_norm_moves_its_estimate_only_while_training():
    layer = SpectralLinear(12, 5)
    with torch.no_grad():
        layer.left_vector.normal_()
    before = layer.left_vector.clone()
    layer.eval()(torch.randn(2, 12))
    assert torch.equal(layer.left_vector, before)
    layer.train()(torch.randn(2, 12))
    assert not torch.equal(layer.left_vector, before)


def test_spectral_norm_travels_with_its_estimate(tmp_path: Path):
    model = discriminator_of(architecture="resnet", conditioning="class", spectral_norm=True)
    images, condition = torch.randn(4, 1, 16, 16), conditions(model.config, 4)
    for _ in range(2):
        model.train()(images, **condition)
    model.eval().save_pretrained(tmp_path)
    loaded = GenGANDiscriminator.from_pretrained(tmp_path)
    assert_same_state(model, loaded)
    # Loaded weights begin anywhere in memory, on which the rounding of their sums depends.
    theirs = loaded(images, **condition).logits
    torch.testing.assert_close(theirs, model(images, **condition).logits, atol=1e-6, rtol=1e-5)


def test_with_spectral_norm_every_layer_of_the_discriminator_has_it():
    for architecture in ARCHITECTURES:
        model = discriminator_of(
            architecture=architecture, conditioning="class", spectral_norm=True
        )
        plain = [
            name
            for name, module in model.named_modules()
            if isinstance(module, (nn.Conv2d, nn.Linear, nn.BatchNorm2d))
            and not isinstance(module, (SpectralConv2d, SpectralLinear))
        ]
        assert plain == ["projection"], architecture


def test_dcgan_at_64_pixels_has_the_layers_of_the_paper():
    """Radford et al. 2016, figure 1, with the channels of the well-known implementations halved to 64."""
    config = GenGANConfig(
        architecture="dcgan", image_size=64, num_channels=3, latent_dim=100,
        generator_width=64, discriminator_width=64, generator_conditioning="concat",
    )  # fmt: skip
    generator, discriminator = GenGANGenerator(config), GenGANDiscriminator(config)
    assert generator.network.base_shape == (512, 4, 4)
    up = [block.conv for block in generator.network.blocks]
    assert [(c.in_channels, c.out_channels) for c in up] == [
        (512, 256), (256, 128), (128, 64), (64, 3),
    ]  # fmt: skip
    down = [block.conv for block in discriminator.network.blocks]
    assert [(c.in_channels, c.out_channels) for c in down] == [
        (3, 64), (64, 128), (128, 256), (256, 512),
    ]  # fmt: skip
    assert {(c.kernel_size, c.stride, c.padding) for c in (*up, *down)} == {
        ((4, 4), (2, 2), (1, 1))
    }
    norms = [type(block.norm) for block in discriminator.network.blocks]
    assert norms == [nn.Identity, nn.BatchNorm2d, nn.BatchNorm2d, nn.BatchNorm2d]


def reference_dcgan(width: int, latent_dim: int, channels: int) -> nn.Sequential:
    """The generator as most people write it, for 32 pixels."""
    return nn.Sequential(
        nn.ConvTranspose2d(latent_dim, 4 * width, 4),
        nn.BatchNorm2d(4 * width),
        nn.ReLU(),
        nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.ConvTranspose2d(2 * width, width, 4, 2, 1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.ConvTranspose2d(width, channels, 4, 2, 1),
        nn.Tanh(),
    )


@pytest.mark.parametrize("training", [True, False])
def test_dcgan_draws_what_the_plain_sequential_draws_with_its_weights(training):
    torch.manual_seed(0)
    config = config_of(
        architecture="dcgan", image_size=32, num_channels=3, generator_conditioning="concat"
    )
    ours, plain = GenGANGenerator(config), reference_dcgan(3, 5, 3)
    layers, network = list(plain), ours.network
    norms, convs = layers[1::3], layers[3::3]
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
        first = layers[0]
        network.input.weight.copy_(first.weight.permute(1, 2, 3, 0).reshape(-1, 5))
        network.input.bias.copy_(first.bias.repeat_interleave(16))
        for block, norm, conv in zip(network.blocks, norms[:3], convs, strict=True):
            block.norm.norm.load_state_dict(norm.state_dict())
            block.conv.load_state_dict(conv.state_dict())
    ours.train(training)
    plain.train(training)
    for _ in range(2):  # running statistics move alike
        latents = torch.randn(6, 5)
        drawn, expected = ours(latents).images, plain(latents[:, :, None, None])
        torch.testing.assert_close(drawn, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("size", [16, 64])
def test_logits_begin_at_the_size_of_one_and_images_are_not_saturated(architecture, size):
    torch.manual_seed(0)
    fields = {"architecture": architecture, "image_size": size, "generator_width": 16,
              "discriminator_width": 16, "latent_dim": 64, "condition_dim": 64}  # fmt: skip
    config = config_of(conditioning="class", **fields)
    generator, discriminator = GenGANGenerator(config).train(), GenGANDiscriminator(config).train()
    labels = torch.arange(32) % LABELS
    with torch.no_grad():
        images = generator(torch.randn(32, 64), class_labels=labels).images
        spread = discriminator(torch.randn(32, 1, size, size).clamp(-1, 1), class_labels=labels)
    assert (images.abs() > 0.99).float().mean() < 0.2
    assert images.std() > 1e-3
    assert spread.logits.abs().mean() < 5
    # Small fixed weights of mlp and dcgan shrink signals, as they do in the papers.
    assert spread.logits.std() > (0.05 if architecture in ("modern", "resnet") else 1e-4)


def test_initial_weights_follow_from_the_architecture():
    torch.manual_seed(0)
    dcgan = GenGANGenerator(config_of(architecture="dcgan", generator_width=32))
    assert dcgan.network.blocks[0].conv.weight.detach().std().item() == pytest.approx(
        0.02, rel=0.05
    )
    modern = GenGANGenerator(config_of(architecture="modern", generator_width=32))
    conv = modern.network.blocks[0].conv
    fan_in = conv.in_channels * 16 / 4
    assert conv.weight.detach().std().item() == pytest.approx(
        math.sqrt(2 / 1.04 / fan_in), rel=0.05
    )
    for model in (dcgan, modern):
        assert not model.network.input.bias.any()
