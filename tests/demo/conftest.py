"""Small models with random weights, one of each kind that the demo shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_genmodels.hub.folder import publish_folder
from tests.hub import generators
from tests.hub.conftest import byte_tokenizer, random_model
from tests.hub.painters import painter
from tests.hub.translators import make_tokenizer, make_translator

IDS = ("pad_token_id", "bos_token_id", "eos_token_id")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Published folders by what they draw from or write. Not to be changed."""
    folder = tmp_path_factory.mktemp("demo")
    tokenizer = byte_tokenizer()
    both = make_tokenizer()
    translator = make_translator(
        vocab_size=len(both), **{name: getattr(both, name) for name in IDS}
    )
    translator.generation_config.max_new_tokens = 6
    drawer, reader = generators.text_generator()
    made = {
        "writer": (random_model(tokenizer), tokenizer),
        "translator": (translator, both),
        "class": (generators.generator(), None),
        "attributes": (generators.generator(conditioning="attributes"), None),
        "none": (generators.generator(conditioning="none", id2label=None), None),
        "text": (drawer, reader),
    }
    folders = {
        name: publish_folder(model, reads, folder / name) for name, (model, reads) in made.items()
    }
    return {**folders, "pixels": painter().publish(folder / "pixels")}
