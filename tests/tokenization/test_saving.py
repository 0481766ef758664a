"""Saved folders: what AutoTokenizer loads, and nothing lost on the way."""

import json
import os

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from hf_genmodels.errors import UserError
from hf_genmodels.tokenization import load_tokenizer, save_tokenizer
from hf_genmodels.tokenization.saving import check_output_folder
from tests.tokenization.samples import SPECIAL

TEXT = f"It isn't 12 piñas {SPECIAL}世界<|endoftext|> 🤗\n"


def names(folder):
    return sorted(file.name for file in folder.iterdir())


@pytest.fixture
def folder(tokenizer, tmp_path):
    save_tokenizer(tokenizer, tmp_path / "deep" / "out")
    return tmp_path / "deep" / "out"


def test_a_folder_holds_two_files_and_no_staging_remains(folder):
    assert names(folder) == ["tokenizer.json", "tokenizer_config.json"]
    assert names(folder.parent) == ["out"]


def test_autotokenizer_loads_it_without_remote_code(folder, tokenizer):
    loaded = AutoTokenizer.from_pretrained(folder)
    assert loaded(TEXT)["input_ids"] == tokenizer(TEXT)["input_ids"]
    assert loaded.decode(loaded(TEXT)["input_ids"]) == TEXT
    assert loaded.decode(loaded("a , b .")["input_ids"]) == "a , b ."
    assert sorted(loaded("a")) == ["attention_mask", "input_ids"]
    assert (loaded.padding_side, loaded.model_max_length) == ("left", 1024)
    assert loaded.pad_token_id != loaded.eos_token_id == loaded.bos_token_id
    assert set(loaded.all_special_ids) == set(tokenizer.all_special_ids)


def test_plain_tokenizers_gives_the_same_ids(folder, tokenizer):
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert plain.encode(TEXT).ids == tokenizer(TEXT)["input_ids"]


def test_the_config_is_in_the_words_of_transformers_4(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["additional_special_tokens"] == [SPECIAL]
    assert config["clean_up_tokenization_spaces"] is False
    assert not {"extra_special_tokens", "backend"} & config.keys()


def test_saving_again_what_was_loaded_gives_the_same_bytes(folder, tmp_path):
    save_tokenizer(load_tokenizer(folder), tmp_path / "again")
    for name in names(folder):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_saving_into_a_folder_leaves_other_files_alone(tokenizer, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("old")
    save_tokenizer(tokenizer, tmp_path)
    assert names(tmp_path) == ["config.json", "tokenizer.json", "tokenizer_config.json"]
    assert (tmp_path / "config.json").read_text() == "{}"
    assert len(load_tokenizer(tmp_path)) == len(tokenizer)


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(tokenizer, tmp_path, monkeypatch):
    (tmp_path / "tokenizer.json").write_text("old")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_tokenizer(tokenizer, tmp_path)
    with pytest.raises(OSError, match="No space left"):
        save_tokenizer(tokenizer, tmp_path / "new")
    assert names(tmp_path) == ["tokenizer.json"]
    assert (tmp_path / "tokenizer.json").read_text() == "old"


def test_a_folder_that_holds_something_needs_overwrite(tmp_path):
    check_output_folder(tmp_path, overwrite=False)
    (tmp_path / "notes.txt").write_text("mine")
    check_output_folder(tmp_path, overwrite=True)
    with pytest.raises(UserError, match=r"not empty \(notes.txt\)"):
        check_output_folder(tmp_path, overwrite=False)


def test_a_file_where_a_folder_was_meant_is_refused(tokenizer, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        save_tokenizer(tokenizer, tmp_path / "file" / "out")
    with pytest.raises(UserError, match="Give the folder"):
        load_tokenizer(tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "message"),
    [("user/name", "hf download user/name"), ("./nowhere", "no folder './nowhere'")],
)
def test_a_folder_that_does_not_exist_is_explained(name, message):
    with pytest.raises(UserError, match=message):
        load_tokenizer(name)


def test_a_folder_without_or_with_a_broken_tokenizer_is_explained(tmp_path):
    with pytest.raises(UserError, match=r"tokenizer\.json is missing"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{broken")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_tokenizer(tmp_path)
