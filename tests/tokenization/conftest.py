"""A small corpus and tokenizers trained on it."""

import pytest

from hf_genmodels.tokenization import train_bpe
from tests.tokenization.samples import SENTENCES, SPECIAL


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    return [f"{sentence} {number}" for number in range(40) for sentence in SENTENCES]


@pytest.fixture(scope="session")
def tokenizers(corpus):
    """Tokenizers of every kind of pre-tokenisation, by name."""
    kinds = {
        "gpt2": {},
        "digits": {"split_digits": True},
        "whitespace": {"pretokenization": "whitespace"},
        "whitespace digits": {"pretokenization": "whitespace", "split_digits": True},
    }
    return {
        name: train_bpe(corpus, vocab_size=600, special_tokens=[SPECIAL], **options)
        for name, options in kinds.items()
    }


@pytest.fixture(scope="session")
def tokenizer(tokenizers):
    return tokenizers["gpt2"]
