"""A language model is published with the discriminator that it was trained against."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from hf_genmodels import GenGPTForCausalLM, GenTextDiscriminator, GenTextDiscriminatorConfig
from hf_genmodels.auto import code_files_for
from hf_genmodels.hub.folder import add_code, publish_folder, published_files
from hf_genmodels.hub.loading import load_companion, load_model, model_kind
from tests import runs

# Importing our package fails in a process that begins so.
STRANGER = """
import sys
sys.modules["hf_genmodels"] = None
import torch
from transformers import AutoModelForSequenceClassification
judge = AutoModelForSequenceClassification.from_pretrained(
    sys.argv[1], trust_remote_code=True, **({"subfolder": sys.argv[2]} if len(sys.argv) > 2 else {})
)
print("said", judge(torch.arange(6)[None]).logits.item())
"""


def discriminator(vocab_size: int = 258) -> GenTextDiscriminator:
    torch.manual_seed(0)
    sizes = {"vocab_size": vocab_size, "hidden_size": 16, "num_attention_heads": 2}
    return GenTextDiscriminator(GenTextDiscriminatorConfig(**sizes)).eval()


@pytest.fixture(scope="module")
def folder(
    model: GenGPTForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A published pair. Not to be changed."""
    place = tmp_path_factory.mktemp("pair") / "toy"
    return publish_folder(model, tokenizer, place, companions={"discriminator": discriminator()})


def said_by_a_stranger(*arguments: str | Path) -> float:
    command = [sys.executable, "-c", STRANGER, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.split("said")[1])


def test_what_is_published_is_whole_and_nothing_else_is_listed(folder: Path):
    listed = {path.as_posix() for path in published_files(folder)}
    assert {
        "modeling_gpt.py", "modeling_text_discriminator.py", "configuration_text_discriminator.py",
        "discriminator/config.json", "discriminator/model.safetensors",
    } <= listed  # fmt: skip
    assert listed == {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    config = json.loads((folder / "discriminator" / "config.json").read_text(encoding="utf-8"))
    assert config["auto_map"] == {
        "AutoConfig": "configuration_text_discriminator.GenTextDiscriminatorConfig",
        "AutoModelForSequenceClassification": "modeling_text_discriminator.GenTextDiscriminator",
    }


def test_a_model_without_a_discriminator_has_none_of_its_code(published: Path):
    assert not (published / "modeling_text_discriminator.py").exists()
    assert load_companion(published, "discriminator") is None


def test_both_are_found_by_what_they_are(folder: Path):
    assert model_kind(folder) == "language model"
    assert model_kind(folder / "discriminator") == "discriminator"
    loaded = load_companion(folder, "discriminator")
    assert type(loaded) is GenTextDiscriminator
    expected = discriminator().state_dict()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_a_stranger_hears_the_same_verdicts(folder: Path):
    expected = discriminator()(torch.arange(6)[None]).logits.item()
    assert said_by_a_stranger(folder, "discriminator") == pytest.approx(expected, abs=1e-6)


def test_a_discriminator_stands_alone_with_its_own_code(tmp_path: Path):
    model = discriminator()
    model.save_pretrained(tmp_path)
    add_code(model, tmp_path)
    names = {path.name for path in code_files_for(model.config)}
    assert "modeling_gpt.py" not in names
    assert {path.name for path in tmp_path.glob("*.py")} == names
    expected = model(torch.arange(6)[None]).logits.item()
    assert said_by_a_stranger(tmp_path) == pytest.approx(expected, abs=1e-6)


def test_an_exported_folder_keeps_the_discriminator(folder: Path, tmp_path: Path):
    out = tmp_path / "out"
    runs.call(["export", folder, out]).succeeded()
    assert load_companion(out, "discriminator") is not None
    assert (out / "modeling_text_discriminator.py").is_file()
    assert load_model(out).config.model_type == "gen_gpt"
