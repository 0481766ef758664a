"""GPT-2's files: the same ids as transformers' own class, and errors that name the mistake."""

import json

import pytest
from hypothesis import given, settings
from transformers import AutoTokenizer, GPT2Tokenizer

from hf_genmodels.errors import UserError
from hf_genmodels.tokenization import import_gpt2, load_gpt2, train_bpe
from tests.tokenization.samples import texts


@pytest.fixture(scope="module")
def files(corpus, tmp_path_factory):
    """A small vocabulary in GPT-2's format, with the end-of-text token as the last id."""
    folder = tmp_path_factory.mktemp("gpt2")
    model = json.loads(train_bpe(corpus, vocab_size=702).backend_tokenizer.to_str())["model"]
    tokens = [t for t in sorted(model["vocab"], key=model["vocab"].get) if not t.startswith("<|")]
    vocab = {token: index for index, token in enumerate([*tokens, "<|endoftext|>"])}
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    text = "\n".join(["#version: 0.2", *merges, ""])
    (folder / "merges.txt").write_text(text, encoding="utf-8")
    return folder / "vocab.json", folder / "merges.txt"


@pytest.fixture(scope="module")
def pair(files):
    vocab, merges = map(str, files)
    return load_gpt2(*files), GPT2Tokenizer(vocab=vocab, merges=merges)


@settings(max_examples=300, deadline=None)
@given(text=texts())
def test_ids_equal_those_of_gpt2tokenizer(pair, text):
    ours, theirs = pair
    assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    assert ours.decode(ours(text)["input_ids"]) == text


def test_no_id_is_added_and_the_end_of_text_token_pads(pair, files):
    ours, theirs = pair
    assert len(ours) == len(theirs) == len(json.loads(files[0].read_text()))
    assert ours.eos_token_id == ours.bos_token_id == ours.pad_token_id == len(ours) - 1


def test_a_padding_token_of_its_own_is_the_last_id(files):
    ours = load_gpt2(*files, add_pad_token=True)
    assert ours.pad_token == "<|pad|>"
    assert ours.pad_token_id == len(ours) - 1 == ours.eos_token_id + 1


def test_the_folder_loads_without_remote_code(files, tmp_path):
    made = import_gpt2(*files, tmp_path / "out")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "It's 2024 — 世界 🤗<|endoftext|> end"
    assert loaded(text)["input_ids"] == made(text)["input_ids"]
    assert len(loaded) == len(made)


def test_windows_line_ends_in_the_merges_do_not_matter(files, tmp_path):
    merges = tmp_path / "merges.txt"
    merges.write_bytes(files[1].read_bytes().replace(b"\n", b"\r\n"))
    assert load_gpt2(files[0], merges).get_vocab() == load_gpt2(*files).get_vocab()


def test_swapped_files_are_recognised(files):
    with pytest.raises(UserError, match="swapped"):
        load_gpt2(files[1], files[0])


def test_a_missing_file_is_named(files):
    with pytest.raises(UserError, match=r"nowhere\.json"):
        load_gpt2("nowhere.json", files[1])


@pytest.mark.parametrize(
    ("vocab", "message"),
    [
        ("{", "not a vocabulary in JSON"),
        ("[1]", "maps tokens to"),
        ('{"a": 1}', "maps tokens to"),
        ('{"a": 0}', "not byte-level"),
    ],
)
def test_something_else_than_a_vocabulary_is_refused(files, tmp_path, vocab, message):
    (tmp_path / "vocab.json").write_text(vocab)
    with pytest.raises(UserError, match=message):
        load_gpt2(tmp_path / "vocab.json", files[1])


@pytest.mark.parametrize(
    ("merges", "message"),
    [("#version: 0.2\na b c\n", "Line 2"), ("q zzzz\n", "belong together")],
)
def test_merges_that_do_not_fit_are_refused(files, tmp_path, merges, message):
    (tmp_path / "merges.txt").write_text(merges)
    with pytest.raises(UserError, match=message):
        load_gpt2(files[0], tmp_path / "merges.txt")
