"""Small models with random weights, published once for all tests."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hf_genmodels import GenGPTConfig, GenGPTForCausalLM
from hf_genmodels.hub.folder import publish_folder

MODERN = {
    "position_embedding": "rotary",
    "norm": "rmsnorm",
    "qk_norm": True,
    "tie_word_embeddings": False,
    "logit_softcap": 15.0,
    "num_value_embeddings": 1,
}


def byte_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {character: index for index, character in enumerate(alphabet)}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|pad|>",
        model_max_length=64,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def random_model(tokenizer, **options) -> GenGPTForCausalLM:
    torch.manual_seed(0)
    config = GenGPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **options,
    )
    return GenGPTForCausalLM(config).eval()


@pytest.fixture(scope="session")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture(scope="session")
def model(tokenizer):
    """A model in GPT-2's form. Not to be changed."""
    return random_model(tokenizer)


@pytest.fixture(scope="session")
def modern_model(tokenizer):
    """A model with everything that GPT-2 does not have. Not to be changed."""
    return random_model(tokenizer, **MODERN)


@pytest.fixture(scope="session")
def published(model, tokenizer, tmp_path_factory):
    """A published folder. Not to be changed."""
    return publish_folder(model, tokenizer, tmp_path_factory.mktemp("published") / "toy")


@pytest.fixture
def copy(published, tmp_path):
    """A published folder that a test may damage."""
    import shutil

    return shutil.copytree(published, tmp_path / "copy")
