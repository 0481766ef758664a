import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_genmodels import GenGPTForCausalLM
from hf_genmodels.errors import UserError
from hf_genmodels.hub.loading import load_model, load_tokenizer, model_folder
from hf_genmodels.hub.verify import same_bits


def test_our_types_load_through_our_classes_without_trusting_code(published):
    assert type(load_model(published)) is GenGPTForCausalLM
    assert not load_model(published).training


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("user/model", "hf download user/model"),
        ("./nothing", "There is no folder './nothing'"),
    ],
)
def test_a_folder_that_does_not_exist(given, message):
    with pytest.raises(UserError, match=message):
        model_folder(given)


def test_a_hub_id_without_network_is_one_clear_error(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    with pytest.raises(UserError, match="There is no folder 'no-such/model', and the hub"):
        load_model("no-such/model")


def test_a_folder_without_configuration_names_a_folder_below_that_has_one(copy):
    with pytest.raises(UserError, match=r"config\.json is missing.*Did you mean '.*copy'"):
        model_folder(copy.parent)


def test_a_run_that_has_published_nothing_says_how_it_goes_on(tmp_path):
    (tmp_path / "checkpoints").mkdir()

    with pytest.raises(UserError, match="genmodels train lm --resume"):
        model_folder(tmp_path)


def test_a_file_is_no_folder(published):
    with pytest.raises(UserError, match="is a file"):
        model_folder(published / "config.json")


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_damaged_configuration(copy, text):
    (copy / "config.json").write_text(text)

    with pytest.raises(UserError, match=r"config\.json"):
        model_folder(copy)


def test_weights_that_are_cut_short(copy):
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])

    with pytest.raises(UserError, match="damaged or cut short"):
        model_folder(copy)


def test_missing_weights(copy):
    (copy / "model.safetensors").unlink()

    with pytest.raises(UserError, match=r"model\.safetensors is missing"):
        model_folder(copy)


def test_a_missing_tensor_never_becomes_a_random_one(copy):
    weights = load_file(copy / "model.safetensors")
    del weights["model.final_norm.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(UserError, match=r"model\.final_norm\.weight"):
        load_model(copy)


def test_a_type_that_only_its_own_code_knows_is_not_run(copy):
    config = json.loads((copy / "config.json").read_text())
    config["model_type"] = "strange"
    (copy / "config.json").write_text(json.dumps(config))

    with pytest.raises(UserError, match="never run here"):
        load_model(copy)


def test_a_checkpoint_loads_with_the_configuration_of_its_run(copy, model):
    checkpoint = copy / "checkpoints" / "step-000002"
    checkpoint.mkdir(parents=True)
    weights = {name: value + 1 for name, value in model.state_dict().items()}
    del weights["lm_head.weight"]
    save_file(weights, checkpoint / "model.safetensors")
    aliases = {"lm_head.weight": "model.embed_tokens.weight"}
    (checkpoint / "state.json").write_text(json.dumps({"aliases": aliases}))

    loaded = load_model(checkpoint)

    assert same_bits(loaded.lm_head.weight, model.lm_head.weight + 1)
    assert load_tokenizer(checkpoint)("a")["input_ids"] == load_tokenizer(copy)("a")["input_ids"]
    (checkpoint / "model.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match="damaged"):
        load_model(checkpoint)


def test_weights_of_another_size_are_refused(copy):
    weights = load_file(copy / "model.safetensors")
    weights["model.final_norm.weight"] = torch.ones(8)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(UserError):
        load_model(copy)
