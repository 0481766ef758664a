"""Small models with random weights, published once for all tests, and a hub."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hf_genmodels import GenGPTConfig, GenGPTForCausalLM
from hf_genmodels.hub.folder import publish_folder
from hf_genmodels.hub.judge_card import publish_judge
from hf_genmodels.models.configuration_judge import GenJudgeConfig
from hf_genmodels.models.configuration_rnn_seq2seq import GenRNNSeq2SeqConfig
from hf_genmodels.models.modeling_judge import GenJudgeForImageClassification
from hf_genmodels.models.modeling_rnn_seq2seq import GenRNNSeq2SeqForConditionalGeneration
from tests.hub import generators, hub_server
from tests.hub.hub_server import TOKEN, HubServer
from tests.hub.translators import make_tokenizer, make_translator

IDS = ("pad_token_id", "bos_token_id", "eos_token_id")

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
    return shutil.copytree(published, tmp_path / "copy")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """An empty hub that this process's client talks to, logged in as ada."""
    with HubServer() as server:
        hub_server.lend_hub(monkeypatch, server.url, tmp_path / "hf")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture(scope="session")
def gan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published pair. Not to be changed."""
    return publish_folder(
        generators.generator(),
        None,
        tmp_path_factory.mktemp("gan") / "toy",
        companions={"discriminator": generators.discriminator()},
    )


@pytest.fixture(scope="session")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published translator with a vocabulary for each side. Not to be changed."""
    source, target = make_tokenizer(), make_tokenizer(more_tokens=2)
    ids = {name: getattr(target, name) for name in IDS}
    model = make_translator(vocab_size=len(target), source_vocab_size=len(source), **ids)
    folder = tmp_path_factory.mktemp("translator") / "toy"
    return publish_folder(model, source, folder, target_tokenizer=target)


@pytest.fixture(scope="session")
def recurrent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = make_tokenizer()
    ids = {name: getattr(tokenizer, name) for name in IDS}
    config = GenRNNSeq2SeqConfig(
        vocab_size=len(tokenizer), hidden_size=16, encoder_layers=1, decoder_layers=1, **ids
    )
    torch.manual_seed(0)
    model = GenRNNSeq2SeqForConditionalGeneration(config).eval()
    return publish_folder(model, tokenizer, tmp_path_factory.mktemp("recurrent") / "toy")


@pytest.fixture(scope="session")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = GenJudgeConfig(image_size=8, width=4, feature_dim=8, num_labels=3)
    model = GenJudgeForImageClassification(config).eval()
    return publish_judge(model, tmp_path_factory.mktemp("judge") / "toy", "noise")
