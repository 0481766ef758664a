"""The small published models of the hub tests."""

from tests.hub.conftest import model, published, tokenizer

__all__ = ["model", "published", "tokenizer"]
