"""A small published model where the README expects the demo's."""

import pytest
import torch

from hf_genmodels import GenGPTConfig, GenGPTForCausalLM
from hf_genmodels.hub.folder import publish_folder
from hf_genmodels.tokenization import train_bpe


@pytest.fixture(scope="session")
def published_demo(tmp_path_factory):
    """Folder with `runs/demo` in it."""
    folder = tmp_path_factory.mktemp("readme")
    tokenizer = train_bpe(["She was here. It was a day."], vocab_size=300, model_max_length=64)
    config = GenGPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    publish_folder(GenGPTForCausalLM(config), tokenizer, folder / "runs" / "demo")
    return folder
