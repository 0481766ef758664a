"""A generator that draws clips, and a discriminator that sees clips and their frames."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError

from hf_genmodels.models.configuration_gan import GenGANConfig
from hf_genmodels.models.gan_video import over_time
from hf_genmodels.models.modeling_gan import GenGANDiscriminator, GenGANGenerator

FRAMES = 5
CONDITIONS = {
    "none": {},
    "class": {"class_labels": torch.tensor([0, 2, 1])},
    "attributes": {"class_labels": torch.tensor([[0.0, 1, 1], [1, 0, 0], [0, 0, 1]])},
    "text": {"input_ids": torch.tensor([[3, 4], [5, 0], [6, 7]])},
}


def make_config(**fields):
    sizes = {
        "num_frames": FRAMES,
        "image_size": 16,
        "latent_dim": 6,
        "motion_dim": 4,
        "motion_hidden_size": 8,
        "condition_dim": 8,
        "generator_width": 4,
        "discriminator_width": 4,
        "video_discriminator_width": 4,
        "num_labels": 3,
        "hidden_size": 16,
        "vocab_size": 20,
        "pad_token_id": 0,
        "text_dropout": 0.0,
    }
    return GenGANConfig(**(sizes | fields))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def refusal(**fields):
    with pytest.raises(StrictDataclassClassValidationError) as caught:
        make_config(**fields)
    return str(caught.value.__cause__)


@pytest.mark.parametrize("architecture", ["modern", "dcgan", "resnet"])
@pytest.mark.parametrize("conditioning", CONDITIONS)
def test_clips_are_drawn_and_judged_whole_and_by_frames(conditioning, architecture):
    config = make_config(conditioning=conditioning, architecture=architecture)
    generator, discriminator = GenGANGenerator(config).eval(), GenGANDiscriminator(config)
    condition = CONDITIONS[conditioning]
    latents = generator.draw_latents(3)
    assert latents.shape == (3, 6 + FRAMES * 4)
    clips = generator(latents, **condition).images
    assert clips.shape == (3, FRAMES, 1, 16, 16)
    torch.testing.assert_close(generator.sample(3, latents=latents, **condition), clips.detach())
    assert discriminator(clips, **condition).logits.shape == (3, 1 + FRAMES)
    frames = torch.tensor([[0, 3], [1, 4], [2, 2]])
    verdicts = discriminator(clips, frames=frames, **condition).logits
    assert verdicts.shape == (3, 3)
    verdicts.sum().backward()
    for name, parameter in (*generator.named_parameters(), *discriminator.named_parameters()):
        assert parameter.grad is not None, name


def test_a_frame_is_judged_as_it_is_among_all_frames():
    config = make_config()
    generator, discriminator = GenGANGenerator(config), GenGANDiscriminator(config).eval()
    clips = generator.sample(3)
    every = discriminator(clips).logits
    some = discriminator(clips, frames=torch.tensor([[4, 0], [1, 2], [3, 3]])).logits
    torch.testing.assert_close(some[:, 0], every[:, 0])
    torch.testing.assert_close(some[0, 1:], every[0, [5, 1]])
    torch.testing.assert_close(some[2, 1:], every[2, [4, 4]])


def test_the_order_of_frames_matters_to_the_verdict_on_the_clip_alone():
    config = make_config()
    generator, discriminator = GenGANGenerator(config), GenGANDiscriminator(config).eval()
    clips = generator.sample(3)
    forwards, backwards = discriminator(clips).logits, discriminator(clips.flip(1)).logits
    torch.testing.assert_close(backwards[:, 1:], forwards[:, 1:].flip(1))
    assert not torch.allclose(backwards[:, 0], forwards[:, 0], atol=1e-4)


def test_frames_alone_are_those_of_the_whole_clip():
    config = make_config(num_frames=6, conditioning="text", video_frame_step=2)
    generator, discriminator = GenGANGenerator(config).eval(), GenGANDiscriminator(config).eval()
    latents, condition = generator.draw_latents(3), CONDITIONS["text"]
    frames = torch.tensor([[0, 2, 4], [1, 3, 5], [0, 2, 4]])
    whole = generator(latents, **condition).images
    some = generator(latents, **condition, frames=frames).images
    torch.testing.assert_close(
        some, torch.stack([c[f] for c, f in zip(whole, frames, strict=True)])
    )
    verdicts = discriminator(some, **condition, frames=torch.tensor([[1], [1], [1]])).logits
    expected = discriminator(whole, **condition, frames=torch.tensor([[2], [3], [2]])).logits
    torch.testing.assert_close(verdicts[[0, 2]], expected[[0, 2]])
    torch.testing.assert_close(verdicts[1, 1], expected[1, 1])


def test_motion_goes_on_from_frame_to_frame_and_follows_the_condition():
    config = make_config(conditioning="class")
    generator = GenGANGenerator(config).eval()
    latents, label = generator.draw_latents(1), torch.tensor([1])
    clip = generator.sample(1, label, latents=latents)
    later = latents.clone()
    later[:, config.latent_dim + 2 * config.motion_dim :] += 1  # from the third frame on
    changed = generator.sample(1, label, latents=later)
    torch.testing.assert_close(changed[:, :2], clip[:, :2])
    assert not torch.allclose(changed[:, 2:], clip[:, 2:], atol=1e-3)
    noise = latents[:, config.latent_dim :].unflatten(1, (FRAMES, -1))
    one, other = (
        generator.motion(noise, generator.condition(torch.tensor([number]), None, None)[0])
        for number in (0, 1)
    )
    assert not torch.allclose(one, other, atol=1e-3)


def test_a_clip_does_not_depend_on_the_others_drawn_with_it():
    config = make_config(conditioning="text")
    generator = GenGANGenerator(config).eval()
    latents = generator.draw_latents(3)
    together = generator.sample(3, latents=latents, **CONDITIONS["text"])
    alone = generator.sample(
        1, latents=latents[1:2], input_ids=CONDITIONS["text"]["input_ids"][1:2]
    )
    torch.testing.assert_close(alone, together[1:2], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("way", ["projection", "concat"])
def test_verdicts_on_texts_of_others_are_those_of_these_texts(way):
    config = make_config(conditioning="text", discriminator_conditioning=way)
    generator, discriminator = GenGANGenerator(config), GenGANDiscriminator(config).eval()
    ids = CONDITIONS["text"]["input_ids"]
    clips = generator.sample(3, input_ids=ids)
    frames, others = torch.tensor([[0], [2], [4]]), torch.tensor([1, 2])
    found = discriminator(clips, input_ids=ids, mismatched=others, frames=frames)
    expected = discriminator(clips[:2], input_ids=ids[others], frames=frames[:2])
    torch.testing.assert_close(found.mismatched_logits, expected.logits)


def test_a_convolution_over_time_sees_each_pixel_of_its_own_clip():
    maps = torch.randn(2 * FRAMES, 3, 4, 4)
    layer = torch.nn.Conv2d(3, 6, (3, 1), stride=(2, 1), padding=(1, 0))
    found = over_time(layer, maps, 2).unflatten(0, (2, -1))
    volume = torch.nn.Conv3d(3, 6, (3, 1, 1), stride=(2, 1, 1), padding=(1, 0, 0))
    volume.weight.data, volume.bias.data = layer.weight[..., None], layer.bias
    expected = volume(maps.unflatten(0, (2, FRAMES)).transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_both_networks_survive_a_round_trip(tmp_path):
    config = make_config(conditioning="class", spectral_norm=True)
    generator, discriminator = GenGANGenerator(config).eval(), GenGANDiscriminator(config).eval()
    generator.save_pretrained(tmp_path / "g")
    discriminator.save_pretrained(tmp_path / "d")
    latents = generator.draw_latents(3)
    clips = generator.sample(3, latents=latents, **CONDITIONS["class"])
    again = GenGANGenerator.from_pretrained(tmp_path / "g")
    assert torch.equal(again.sample(3, latents=latents, **CONDITIONS["class"]), clips)
    judge = GenGANDiscriminator.from_pretrained(tmp_path / "d")
    expected = discriminator(clips, **CONDITIONS["class"]).logits
    torch.testing.assert_close(judge(clips, **CONDITIONS["class"]).logits, expected)


def test_what_cannot_move_is_refused():
    assert "architecture=mlp draws single images" in refusal(architecture="mlp")
    assert "video_downsampling=3 does not fit image_size=16. Choose from: 1, 2" in refusal(
        video_downsampling=3
    )
    assert "video_frame_step=2 does not fit num_frames=5. Choose from: 1" in refusal(
        video_frame_step=2
    )
    assert "num_frames=0" in refusal(num_frames=0)
    assert "motion_dim=0" in refusal(motion_dim=0)
