"""Training: exact round trips, cuts that change nothing, determinism, clear errors."""

import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from hf_genmodels.data.pieces import cut
from hf_genmodels.errors import UserError
from hf_genmodels.tokenization import train_bpe
from tests.tokenization.samples import SENTENCES, SPECIAL, texts

KINDS = ["gpt2", "digits", "whitespace", "whitespace digits"]


def encode(tokenizer, text):
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150, deadline=None)
@given(text=texts())
def test_every_string_round_trips(tokenizers, kind, text):
    tokenizer = tokenizers[kind]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=80))
def test_bytes_decoded_with_replacement_round_trip(tokenizer, data):
    text = data.decode("utf-8", "replace")
    assert tokenizer.decode(encode(tokenizer, text)) == text


@pytest.mark.parametrize("text", ["", " ", "\n", " both ends ", "\x00\x7f\x9f", "\u0301", "🏳️‍🌈"])
def test_awkward_strings_round_trip(tokenizer, text):
    assert tokenizer.decode(encode(tokenizer, text)) == text


@pytest.mark.parametrize("line", ["word " * 200_000, "x" * 1_000_000, "世" * 350_000])
def test_a_line_of_a_megabyte_round_trips(tokenizer, line):
    assert tokenizer.decode(encode(tokenizer, line)) == line


def test_all_bytes_are_tokens_so_nothing_is_unknown(tokenizer):
    assert set(pre_tokenizers.ByteLevel.alphabet()) <= tokenizer.get_vocab().keys()
    assert tokenizer.unk_token is None


def test_a_surrogate_is_refused_and_not_swallowed(tokenizer):
    with pytest.raises(TypeError):
        tokenizer("a\ud800b")


def test_special_tokens_in_text_are_one_token_each(tokenizer):
    ids = encode(tokenizer, f"a{SPECIAL}b<|endoftext|><|pad|>")
    specials = tokenizer.convert_tokens_to_ids([SPECIAL, "<|endoftext|>", "<|pad|>"])
    assert [i for i in ids if i in specials] == specials


def test_special_tokens_in_text_can_be_read_as_plain_text(tokenizer):
    ids = tokenizer("<|endoftext|>", split_special_tokens=True)["input_ids"]
    assert tokenizer.eos_token_id not in ids
    assert tokenizer.decode(ids) == "<|endoftext|>"


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=200, deadline=None)
@given(text=texts(), size=st.integers(1, 20), chunk=st.integers(1, 30))
def test_ids_of_the_pieces_are_the_ids_of_the_whole(tokenizers, kind, text, size, chunk):
    tokenizer = tokenizers[kind]
    chunks = [text[i : i + chunk] for i in range(0, len(text), chunk)]
    pieces = list(cut(chunks, size))
    assert "".join(piece.text for piece in pieces) == text
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True] * bool(pieces)
    ids = [i for piece in pieces for i in encode(tokenizer, piece.text)]
    assert ids == encode(tokenizer, text)


def test_a_tokenizer_does_not_depend_on_how_the_text_is_cut(corpus):
    whole = "\n".join(corpus)
    pieces = [piece.text for piece in cut([whole], 100)]
    assert len(pieces) > 50
    tokenizers = [train_bpe(text, vocab_size=500) for text in ([whole], pieces)]
    assert tokenizers[0].backend_tokenizer.to_str() == tokenizers[1].backend_tokenizer.to_str()


def test_two_processes_write_the_same_bytes(tmp_path, corpus):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(corpus), encoding="utf-8")
    code = (
        "import sys\n"
        "from hf_genmodels.data.sources import TextSource\n"
        "from hf_genmodels.tokenization import save_tokenizer, train_bpe\n"
        "texts = TextSource(files=[sys.argv[1]]).texts()\n"
        "save_tokenizer(train_bpe(texts, vocab_size=700), sys.argv[2])\n"
    )
    processes = []
    for seed, parallel in [("0", "true"), ("1", "false")]:
        environment = {"PYTHONHASHSEED": seed, "TOKENIZERS_PARALLELISM": parallel}
        command = [sys.executable, "-c", code, str(text), str(tmp_path / seed)]
        processes.append(subprocess.Popen(command, env={**os.environ, **environment}))
    assert [process.wait() for process in processes] == [0, 0]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "1" / name).read_bytes()


def test_vocab_size_counts_special_tokens_and_bytes(corpus):
    assert len(train_bpe(corpus, vocab_size=400, special_tokens=["<a>", "<b>"])) == 400
    assert len(train_bpe(corpus, vocab_size=258)) == 258


def test_special_tokens_in_training_text_cost_no_merges():
    tokenizer = train_bpe(["<|endoftext|>"] * 50 + ["ab ab ab"], vocab_size=300)
    assert not any("endo" in token for token in tokenizer.get_vocab() if "|" not in token)
    assert len(tokenizer) == 260


def test_split_digits_makes_every_digit_a_token(tokenizers):
    tokens = tokenizers["digits"].tokenize("in 2024 or 12")
    assert [token for token in tokens if token.strip("Ġ").isdigit()] == list("202412")


def test_no_gpt2_token_joins_letters_and_punctuation_but_whitespace_tokens_may(corpus):
    plain = train_bpe(corpus, vocab_size=2000)
    words = train_bpe(corpus, vocab_size=2000, pretokenization="whitespace")
    assert "acknowledged," not in {t.strip("Ġ") for t in plain.get_vocab()}
    assert "acknowledged," in {t.strip("Ġ") for t in words.get_vocab()}


@pytest.mark.parametrize("limit", [2, 3, 5])
def test_max_token_length_is_kept(corpus, limit):
    tokenizer = train_bpe(corpus, vocab_size=2000, max_token_length=limit)
    tokens = tokenizer.get_vocab().keys() - tokenizer.all_special_tokens
    assert max(map(len, tokens)) == limit


def test_min_frequency_stops_rare_merges():
    tokenizer = train_bpe(["ab ab ab cd cd"], vocab_size=300, min_frequency=3)
    assert "ab" in tokenizer.get_vocab()
    assert "cd" not in tokenizer.get_vocab()


def test_settings_of_a_causal_language_model(tokenizer):
    assert tokenizer.padding_side == "left"
    assert tokenizer.pad_token_id != tokenizer.eos_token_id == tokenizer.bos_token_id
    assert tokenizer.model_max_length == 1024
    batch = tokenizer(["a b c d e f", "a"], padding=True)
    assert sorted(batch) == ["attention_mask", "input_ids"]
    assert batch["input_ids"][1][0] == tokenizer.pad_token_id


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 257}, "256 bytes and 2 special tokens need 258"),
        ({"min_frequency": 0}, "at least 1"),
        ({"max_token_length": 1}, "allows no merge"),
        ({"model_max_length": 0}, "at least 1"),
        ({"pretokenization": "gpt"}, "Did you mean 'gpt2'"),
        ({"pad_token": "<|endoftext|>"}, "must differ"),
        ({"special_tokens": ["<a>", "<a>"]}, "more than once"),
        ({"special_tokens": ["two words"]}, "white space"),
        ({"special_tokens": ["é"]}, "ASCII"),
        ({"special_tokens": ["a"]}, "two or more"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        train_bpe(SENTENCES, **options)


@pytest.mark.parametrize("nothing", [[], [""], ["<|endoftext|>"]])
def test_no_text_is_refused(nothing):
    with pytest.raises(UserError, match="no text"):
        train_bpe(nothing)


def test_an_error_while_reading_reaches_the_user():
    def broken():
        yield "some text"
        raise UserError("byte 7")

    with pytest.raises(UserError, match="byte 7"):
        train_bpe(broken(), show_progress=True)


def test_progress_is_plain_lines_without_a_terminal(corpus, capsys):
    train_bpe(corpus, vocab_size=300, show_progress=True, total_bytes=1)
    shown = capsys.readouterr().err
    assert "Read 0.0 MB of text" in shown
    assert "Learning 300 tokens" in shown
    assert "\r" not in shown
