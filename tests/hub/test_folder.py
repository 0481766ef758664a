import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import hf_genmodels.hub.folder as folder_module
from hf_genmodels.errors import UserError
from hf_genmodels.hub.card import CardData
from hf_genmodels.hub.folder import (
    READY,
    STAGING,
    finish_publishing,
    publish_folder,
    published_files,
)
from hf_genmodels.hub.generation_defaults import generation_defaults
from hf_genmodels.hub.loading import load_model
from hf_genmodels.hub.verify import same_bits


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class Killed(BaseException):
    """Stands for a kill at this very moment."""


def test_a_published_folder_is_complete(published):
    names = {path.name for path in published.iterdir()}

    assert names == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
        "configuration_gpt.py",
        "modeling_gpt.py",
        *(path.name for path in folder_module.code_files_for(load_model(published).config)),
    }
    assert {str(path) for path in published_files(published)} == names


def test_auto_map_names_every_auto_class_without_a_repository(published):
    config = json.loads((published / "config.json").read_text())

    assert config["auto_map"] == {
        "AutoConfig": "configuration_gpt.GenGPTConfig",
        "AutoModel": "modeling_gpt.GenGPTModel",
        "AutoModelForCausalLM": "modeling_gpt.GenGPTForCausalLM",
    }


def test_tied_weights_are_written_once_and_marked_as_torch(published):
    with safe_open(published / "model.safetensors", framework="pt") as weights:
        assert {"lm_head.weight"}.isdisjoint(weights.keys())
        assert weights.metadata() == {"format": "pt"}
    loaded = load_model(published)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight


def test_every_file_can_be_read_by_others_as_the_configuration_can(published):
    modes = {path.stat().st_mode for path in published.iterdir()}

    assert len(modes) == 1


def test_generation_defaults_sample_and_keep_what_was_set(model, published):
    written = GenerationConfig.from_pretrained(published)
    assert (written.do_sample, written.temperature, written.top_p) == (True, 0.8, 0.95)
    assert written.max_new_tokens == 32  # half of the context
    assert written.pad_token_id == model.config.pad_token_id
    assert written.eos_token_id == model.config.eos_token_id

    loaded = load_model(published)
    loaded.generation_config = GenerationConfig(do_sample=False, max_new_tokens=5)
    settings = generation_defaults(loaded)
    assert (settings.do_sample, settings.temperature, settings.max_new_tokens) == (False, None, 5)
    assert model.generation_config.do_sample is None


def test_loading_and_publishing_again_gives_the_same_bytes(published, tmp_path):
    again = publish_folder(
        AutoModelForCausalLM.from_pretrained(published),
        AutoTokenizer.from_pretrained(published),
        tmp_path / published.name,
    )

    assert contents(again) == contents(published)


def test_other_files_in_the_folder_stay(model, tokenizer, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "state.json").write_text("{}")
    (tmp_path / "metrics.jsonl").write_text("{}\n")

    publish_folder(model, tokenizer, tmp_path)

    assert (tmp_path / "checkpoints" / "state.json").read_text() == "{}"
    assert (tmp_path / "metrics.jsonl").read_text() == "{}\n"
    assert names_of(published_files(tmp_path)).isdisjoint({"state.json", "metrics.jsonl"})


def names_of(paths):
    return {path.name for path in paths}


def test_a_card_of_the_user_stays_unless_a_new_one_is_given(model, tokenizer, copy):
    (copy / "README.md").write_text("mine")
    publish_folder(model, tokenizer, copy)
    assert (copy / "README.md").read_text() == "mine"

    publish_folder(model, tokenizer, copy, CardData(name="new"))
    assert "# new" in (copy / "README.md").read_text()


def test_shards_of_an_earlier_version_do_not_stay(model, tokenizer, copy):
    for name in ("model-00001-of-00002.safetensors", "model.safetensors.index.json"):
        (copy / name).write_text("old")

    publish_folder(model, tokenizer, copy)

    assert not list(copy.glob("model-*"))
    assert not list(copy.glob("*.index.json"))


@pytest.mark.parametrize("moment", range(1, 12))
def test_a_publication_killed_at_any_file_is_whole_after_the_next_look(
    published, modern_model, tokenizer, copy, tmp_path, monkeypatch, moment
):
    expected = contents(
        publish_folder(modern_model, tokenizer, tmp_path / "other" / "copy", CardData(name="new"))
    )
    path_class = type(copy)
    replace, calls = path_class.replace, []

    def replace_or_die(self, target):
        if self.parent.name == READY:
            calls.append(target)
            if len(calls) == moment:
                raise Killed
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(path_class, "replace", replace_or_die)
        with pytest.raises(Killed):
            publish_folder(modern_model, tokenizer, copy, CardData(name="new"))
    assert not (copy / "config.json").exists()  # nobody takes half of it for whole

    assert same_bits(load_model(copy).lm_head.weight, modern_model.lm_head.weight)
    assert contents(copy) == expected


def test_a_publication_that_fails_while_writing_leaves_the_earlier_one(
    model, tokenizer, copy, monkeypatch
):
    before = contents(copy)

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder_module, "save_tokenizer", no_space)
    with pytest.raises(OSError, match="No space left"):
        publish_folder(model, tokenizer, copy)

    assert contents(copy) == before


def test_a_killed_writer_leaves_the_earlier_version_and_is_cleaned_up(model, tokenizer, copy):
    (copy / STAGING).mkdir()
    (copy / STAGING / "config.json").write_text("{")

    assert finish_publishing(copy) is False
    load_model(copy)
    publish_folder(model, tokenizer, copy)
    assert not (copy / STAGING).exists()
    assert not (copy / READY).exists()


def test_a_file_where_the_folder_should_be_is_refused(model, tokenizer, tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(UserError, match="is a file"):
        publish_folder(model, tokenizer, tmp_path / "file")


def test_published_files_hold_the_images_of_the_card_and_nothing_outside(copy):
    (copy / "report").mkdir()
    (copy / "report" / "loss_curve.png").write_bytes(b"png")
    (copy.parent / "secret.png").write_bytes(b"png")
    (copy / "README.md").write_text(
        "![a](report/loss_curve.png) ![b](../secret.png) ![c](https://example.org/x.png)"
    )
    (copy / "mine.py").write_text("")

    names = {str(path) for path in published_files(copy)}

    assert "report/loss_curve.png" in names
    assert names.isdisjoint({"../secret.png", "https://example.org/x.png", "mine.py"})


def test_two_processes_that_finish_a_publication_at_once_do_not_clash(published, copy):
    (copy / READY).mkdir()
    for file in published.iterdir():
        (copy / READY / file.name).write_bytes(file.read_bytes())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(finish_publishing, [copy] * 4))

    assert contents(copy) == contents(published)
