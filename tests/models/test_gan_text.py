import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import BertConfig, BertModel, T5Config, T5Model, ViTConfig, ViTModel

from hf_genmodels.models.configuration_gan import GenGANConfig
from hf_genmodels.models.frozen_text import copy_text_encoder, frozen_fields, read_text_encoder
from hf_genmodels.models.gan_text import TextEncoder, WordAttention, Words
from hf_genmodels.models.modeling_gan import GenGANDiscriminator, GenGANGenerator

IDS = torch.tensor([[5, 6, 7, 8], [9, 4, 0, 0], [3, 0, 0, 0]])
MASK = (IDS != 0).long()
SMALL_BERT = {
    "vocab_size": 40,
    "hidden_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
HEADS = {"text_agreement": True, "masked_tokens": True, "image_reconstruction": True}


def make_config(**fields):
    sizes = {
        "conditioning": "text",
        "image_size": 16,
        "num_channels": 3,
        "latent_dim": 6,
        "condition_dim": 10,
        "generator_width": 4,
        "discriminator_width": 4,
        "hidden_size": 16,
        "vocab_size": 40,
        "max_position_embeddings": 9,
        "pad_token_id": 0,
    }
    return GenGANConfig(**(sizes | fields))


def randomised(model):
    """Draw every parameter that begins at zero, so that each of them matters."""
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.3)
    return model.eval()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def bert(tmp_path):
    BertModel(BertConfig(**SMALL_BERT)).save_pretrained(tmp_path / "bert")
    return read_text_encoder(str(tmp_path / "bert"))


@pytest.fixture(params=["trained", "frozen"])
def config(request, bert):
    return make_config(**(frozen_fields(bert) if request.param == "frozen" else {}))


@torch.no_grad()
def test_a_text_does_not_depend_on_its_padding(config):
    text = TextEncoder(config).eval()
    alone = text(torch.tensor([[9, 4]]))[0]
    right = text(torch.tensor([[9, 4, 0, 0]]), torch.tensor([[1, 1, 0, 0]]))[0]
    left = text(torch.tensor([[0, 0, 9, 4]]), torch.tensor([[0, 0, 1, 1]]))[0]
    in_batch = text(IDS, MASK)[0][1:2]
    for padded in (right, left, in_batch):
        torch.testing.assert_close(padded, alone)
    assert not torch.allclose(text(torch.tensor([[4, 9]]))[0], alone, atol=1e-3)


@torch.no_grad()
def test_without_a_mask_padding_is_what_the_configuration_calls_so(config):
    text = TextEncoder(config).eval()
    without, masked = text(IDS), text(IDS, MASK)
    assert torch.equal(without[0], masked[0])
    assert torch.equal(without[1].mask, MASK.bool())


@torch.no_grad()
def test_a_text_of_nothing_but_padding_is_a_text_too(config):
    generator = randomised(GenGANGenerator(config))
    latents = torch.randn(1, 6)
    images = [
        generator(latents, input_ids=torch.zeros(1, length, dtype=torch.long)).images
        for length in (1, 5)
    ]
    assert images[0].isfinite().all()
    torch.testing.assert_close(images[0], images[1])
    words = generator.condition.text(torch.zeros(1, 5, dtype=torch.long))[1]
    assert words.mask.tolist() == [[True, False, False, False, False]]


def test_vectors_of_texts_are_as_large_as_noise(config):
    sentence, words = TextEncoder(config).eval()(IDS, MASK)
    torch.testing.assert_close(sentence.square().mean(dim=1), torch.ones(3), atol=1e-2, rtol=1e-2)
    assert sentence.shape == (3, 10)
    assert words.states.shape == (3, 4, 16)


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        (torch.ones(4, dtype=torch.long), None, "batch, tokens"),
        (torch.ones(1, 10, dtype=torch.long), None, "max_position_embeddings=9"),
        (IDS, MASK[:, :2], "shape of input_ids"),
    ],
)
def test_texts_of_a_wrong_shape_are_refused(ids, mask, message):
    with pytest.raises(ValueError, match=message):
        TextEncoder(make_config())(ids, mask)


def test_pixels_that_look_at_words_begin_as_they_were():
    words = Words(torch.randn(2, 3, 16), torch.ones(2, 3, dtype=torch.bool))
    attention = GenGANGenerator(make_config(generator_width=8)).network.word_attention["0"]
    states = torch.randn(2, 16, 4, 4)
    assert torch.equal(attention(states, words), states)


@torch.no_grad()
def test_pixels_look_at_words_and_not_at_padding():
    attention = randomised(WordAttention(make_config(), 8))
    states = torch.randn(2, 8, 4, 4)
    words = Words(torch.randn(2, 3, 16), torch.tensor([[True, True, False], [True, True, True]]))
    seen = attention(states, words)
    words.states[0, 2] += 1
    assert torch.equal(attention(states, words), seen)
    words.states[0, 1] += 1
    changed = attention(states, words) != seen
    assert changed[0].any()
    assert not changed[1].any()


@torch.no_grad()
def test_one_word_is_found_whole_by_every_pixel():
    attention = randomised(WordAttention(make_config(), 8))
    states, words = torch.randn(1, 8, 4, 4), torch.randn(1, 1, 16)
    found = attention(states, Words(words, torch.ones(1, 1, dtype=torch.bool))) - states
    expected = attention.o_proj(attention.v_proj(words))[0, 0]
    torch.testing.assert_close(found, expected.view(1, 8, 1, 1).expand_as(found))


@pytest.mark.parametrize("architecture", ["modern", "dcgan", "resnet"])
@torch.no_grad()
def test_a_prompt_moves_the_image_through_words_and_sentence(architecture):
    generator = randomised(GenGANGenerator(make_config(architecture=architecture)))
    latents = torch.randn(1, 6).expand(3, 6)
    images = generator(latents, input_ids=IDS, attention_mask=MASK).images
    assert (images[0] - images[1]).abs().max() > 1e-3
    again = generator(latents[:1], input_ids=IDS[1:2, :2]).images
    torch.testing.assert_close(again, images[1:2], atol=1e-4, rtol=1e-4)


def test_the_same_prompt_and_seed_give_the_same_image_in_any_company():
    generator = randomised(GenGANGenerator(make_config(architecture="dcgan")))
    seeds = [torch.Generator().manual_seed(seed) for seed in range(3)]
    together = generator.sample(3, input_ids=IDS, attention_mask=MASK, generator=seeds)
    seed = torch.Generator().manual_seed(1)
    alone = generator.sample(1, input_ids=IDS[1:2], attention_mask=MASK[1:2], generator=seed)
    torch.testing.assert_close(alone, together[1:2], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_images_are_equal_to_the_last_bit_after_a_round_trip(config, tmp_path):
    generator = randomised(GenGANGenerator(config))
    latents = torch.randn(3, 6)
    before = generator(latents, input_ids=IDS, attention_mask=MASK).images
    generator.save_pretrained(tmp_path / "model")
    loaded = GenGANGenerator.from_pretrained(tmp_path / "model")
    assert torch.equal(loaded(latents, input_ids=IDS, attention_mask=MASK).images, before)


@torch.no_grad()
def test_a_discriminator_with_all_heads_comes_back_as_it_was(tmp_path):
    discriminator = randomised(GenGANDiscriminator(make_config(**HEADS)))
    discriminator.save_pretrained(tmp_path)
    loaded = GenGANDiscriminator.from_pretrained(tmp_path)
    for name, value in discriminator.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    images = torch.randn(3, 3, 16, 16)
    outputs = [
        model(images, input_ids=IDS, attention_mask=MASK, masked=MASK.bool())
        for model in (discriminator, loaded)
    ]
    for name, value in outputs[0].items():
        torch.testing.assert_close(outputs[1][name], value)


def test_a_frozen_encoder_reads_with_its_own_weights(bert):
    generator = GenGANGenerator(make_config(**frozen_fields(bert)))
    copy_text_encoder(generator, bert)
    own = generator.condition.text
    expected = own.words(bert.eval()(input_ids=IDS, attention_mask=MASK).last_hidden_state)
    torch.testing.assert_close(own(IDS, MASK)[1].states, expected)


@pytest.mark.parametrize("kind", [GenGANGenerator, GenGANDiscriminator])
def test_a_frozen_encoder_stays_frozen_and_in_eval_mode(kind, bert, tmp_path):
    model = kind(make_config(**frozen_fields(bert)))
    model.save_pretrained(tmp_path / "model")
    for frozen in (model, kind.from_pretrained(tmp_path / "model")):
        encoder = frozen.train().condition.text.encoder
        assert not encoder.training
        assert not any(parameter.requires_grad for parameter in encoder.parameters())
        first = torch.randn(3, 6) if kind is GenGANGenerator else torch.randn(3, 3, 16, 16)
        frozen.requires_grad_(True)  # as a careless loop would
        next(iter(frozen(first, input_ids=IDS).values())).sum().backward()
        assert all(parameter.grad is None for parameter in encoder.parameters())
        assert frozen.condition.text.sentence.weight.grad.any()


def test_a_trained_encoder_learns_from_the_images():
    generator = randomised(GenGANGenerator(make_config())).train()
    generator(torch.randn(3, 6), input_ids=IDS, attention_mask=MASK).images.sum().backward()
    encoder = generator.condition.text.encoder
    assert encoder.embed_tokens.weight.grad[IDS[0]].abs().sum(dim=1).all()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: ViTModel(
                ViTConfig(
                    hidden_size=8,
                    num_hidden_layers=1,
                    num_attention_heads=2,
                    intermediate_size=8,
                    image_size=16,
                    patch_size=8,
                )
            ),
            "reads pixel_values and no texts",
        ),
        (
            lambda: T5Model(
                T5Config(d_model=8, num_layers=1, num_heads=2, d_ff=8, d_kv=4, vocab_size=20)
            ),
            "is an encoder-decoder",
        ),
    ],
)
def test_what_reads_no_texts_is_refused_as_their_encoder(model, message, tmp_path):
    model().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        read_text_encoder(str(tmp_path))


@pytest.mark.parametrize("fields", [{"model_type": "of_my_own"}, {}])
def test_an_encoder_of_an_unknown_kind_is_refused(fields):
    with pytest.raises(ValueError, match="transformers does not know"):
        GenGANGenerator(make_config(text_encoder=fields))


def test_code_that_a_configuration_names_is_not_looked_for(bert):
    fields = frozen_fields(bert)
    fields["text_encoder"]["auto_map"] = {"AutoModel": "someone/else--modeling.Model"}
    generator = GenGANGenerator(make_config(**fields))
    assert type(generator.condition.text.encoder) is BertModel


@pytest.mark.parametrize("architecture", ["modern", "dcgan", "resnet"])
def test_heads_of_a_discriminator_and_their_shapes(architecture):
    discriminator = GenGANDiscriminator(make_config(architecture=architecture, **HEADS)).eval()
    masked = torch.zeros_like(MASK, dtype=torch.bool)
    masked[0, 2] = masked[1, 0] = True
    images = torch.randn(3, 3, 16, 16)
    output = discriminator(images, input_ids=IDS, attention_mask=MASK, masked=masked)
    assert output.image_embeds.shape == output.condition_embeds.shape == (3, 10)
    assert output.token_logits.shape == (2, 40)
    assert output.reconstruction.shape == (3, 3, 16, 16)
    assert output.reconstruction.abs().max() <= 1


def test_heads_that_were_not_asked_for_are_not_there():
    discriminator = GenGANDiscriminator(make_config())
    output = discriminator(torch.randn(3, 3, 16, 16), input_ids=IDS)
    assert set(output) == {"logits", "condition_embeds"}
    with pytest.raises(ValueError, match="masked_tokens=True"):
        discriminator(torch.randn(3, 3, 16, 16), input_ids=IDS, masked=MASK.bool())


@pytest.mark.parametrize("kind", ["projection", "concat"])
@torch.no_grad()
def test_a_mismatched_verdict_is_that_of_the_other_text(kind):
    discriminator = GenGANDiscriminator(make_config(discriminator_conditioning=kind)).eval()
    images, others = torch.randn(3, 3, 16, 16), torch.tensor([2, 0, 1])
    output = discriminator(images, input_ids=IDS, mismatched=others)
    expected = discriminator(images, input_ids=IDS[others]).logits
    torch.testing.assert_close(output.mismatched_logits, expected)
    assert not torch.allclose(output.mismatched_logits, output.logits)


@torch.no_grad()
def test_a_masked_word_is_not_seen():
    discriminator = GenGANDiscriminator(make_config(**HEADS)).eval()
    masked = torch.tensor([[False, True, False, False]])
    images = torch.randn(1, 3, 16, 16)
    scores = [
        discriminator(images, input_ids=torch.tensor([ids]), masked=masked).token_logits
        for ids in ([5, 6, 7, 8], [5, 1, 7, 8], [5, 6, 7, 9])
    ]
    assert torch.equal(scores[0], scores[1])
    assert not torch.allclose(scores[0], scores[2])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"conditioning": "class", "text_agreement": True}, "text_agreement=True needs texts"),
        ({"conditioning": "none", "masked_tokens": True}, "masked_tokens=True needs texts"),
        ({"masked_tokens": True, "text_encoder": {"model_type": "bert"}}, "frozen"),
        (
            {"conditioning": "none", "architecture": "mlp", "image_reconstruction": True},
            "no feature map",
        ),
    ],
)
def test_heads_that_have_nothing_to_work_on_are_refused(fields, message):
    with pytest.raises(StrictDataclassClassValidationError, match=message):
        make_config(**fields)
