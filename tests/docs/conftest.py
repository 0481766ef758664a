"""Small published models where the README and the pages expect those of runs."""

import pytest
import torch

from hf_genmodels import (
    GenGANConfig,
    GenGANGenerator,
    GenGPTConfig,
    GenGPTForCausalLM,
    GenSeq2SeqConfig,
    GenSeq2SeqForConditionalGeneration,
    GenTextDiscriminator,
    GenTextDiscriminatorConfig,
)
from hf_genmodels.hub.folder import publish_folder
from hf_genmodels.models.image_processing_pixels import GenPixelsImageProcessor
from hf_genmodels.tokenization import train_bpe
from hf_genmodels.tokenization.pairs import for_pairs
from hf_genmodels.tokenization.pixels import PixelVocabulary, train_pixel_tokenizer


def publish_pixels(folder):
    """Publish a language model that draws, with random weights."""
    labels, sizes, colours = ["Bag", "Sneaker"], [8, 4], [[0], [90], [170], [255]]
    tokenizer = train_pixel_tokenizer(labels, vocab_size=270, num_colours=4, model_max_length=128)
    vocabulary = PixelVocabulary.of(tokenizer, len(sizes))
    config = GenGPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=128,
        image_sizes=sizes,
        bos_token_id=vocabulary.begin,
        eos_token_id=vocabulary.end,
        pad_token_id=vocabulary.pad,
        **vocabulary.config_fields,
    )
    processor = GenPixelsImageProcessor(colours, sizes, labels=labels)
    publish_folder(GenGPTForCausalLM(config), tokenizer, folder, image_processor=processor)


@pytest.fixture(scope="session")
def published_demo(tmp_path_factory):
    """Folder with published models of every family in `runs`."""
    folder = tmp_path_factory.mktemp("readme")
    tokenizer = train_bpe(["She was here. It was a day."], vocab_size=300, model_max_length=64)
    ids = {
        name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")
    }
    shared = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_attention_heads": 2, **ids}
    torch.manual_seed(0)
    config = GenGPTConfig(num_hidden_layers=1, max_position_embeddings=64, **shared)
    publish_folder(GenGPTForCausalLM(config), tokenizer, folder / "runs" / "demo")
    judge = GenTextDiscriminator(GenTextDiscriminatorConfig(**shared))
    adversarial = folder / "runs" / "adversarial"
    beside = {"discriminator": judge}
    publish_folder(GenGPTForCausalLM(config), tokenizer, adversarial, companions=beside)
    translator = GenSeq2SeqForConditionalGeneration(
        GenSeq2SeqConfig(
            encoder_layers=1,
            decoder_layers=1,
            max_position_embeddings=64,
            decoder_start_token_id=tokenizer.bos_token_id,
            **shared,
        )
    )
    publish_folder(translator, for_pairs(tokenizer, 64), folder / "runs" / "demo_translator")
    gan = GenGANConfig(conditioning="class", generator_width=4, id2label={0: "Bag", 1: "Sneaker"})
    publish_folder(GenGANGenerator(gan), None, folder / "runs" / "demo_gan")
    texts = {name: shared[name] for name in ("vocab_size", "hidden_size", "num_attention_heads")}
    emoji = GenGANConfig(conditioning="text", generator_width=4, num_channels=3, **texts, **ids)
    publish_folder(GenGANGenerator(emoji), tokenizer, folder / "runs" / "emoji")
    clips = GenGANConfig(
        conditioning="text", num_frames=4, generator_width=4, motion_hidden_size=8, **texts, **ids
    )
    publish_folder(GenGANGenerator(clips), tokenizer, folder / "runs" / "sprites")
    publish_pixels(folder / "runs" / "clothes")
    return folder
