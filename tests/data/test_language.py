"""Tests of the text of a language model: the part held out for validation."""

from __future__ import annotations

import pickle

import pytest

from hf_genmodels.config.run import TextDataConfig
from hf_genmodels.data.language import TokenSlice, load_text_data
from hf_genmodels.data.packing import IGNORED
from hf_genmodels.data.tokenizing import plain_backend

LINES = [f"line {i} " + "goes on and on " * (i % 4) for i in range(60)]


@pytest.fixture
def held_out(byte_tokenizer, tmp_path):
    """Makes the data of a text without a validation file."""

    def make(text, **options):
        file = tmp_path / "text.txt"
        file.write_text(text)
        config = TextDataConfig(
            train_file=[str(file)],
            cache_dir=str(tmp_path / "cache"),
            block_size=16,
            validation_split_percentage=20.0,
            **options,
        )
        return load_text_data(config, byte_tokenizer(), seed=0)

    return make


def scored(windows):
    """The scored tokens of all windows, in the order of the data."""
    ids = [label for i in range(len(windows)) for label in windows[i]["labels"].tolist()]
    return [token for token in ids if token != IGNORED]


def test_a_split_between_documents_scores_every_token_in_one_part(held_out, byte_tokenizer):
    data = held_out("\n".join(LINES), sample_by="line")
    backend, eos = plain_backend(byte_tokenizer())
    ids = [token for line in LINES for token in [*backend.encode(line).ids, eos]]
    train, validation = data.windows.cache, data.validation.cache

    assert train.tokens[-1] == validation.tokens[0] == eos
    assert [*train.tokens[1:].tolist(), *scored(data.validation)] == ids
    assert train.document_starts.max() < len(train.tokens) - 1


def test_bits_per_byte_count_the_bytes_of_the_scored_tokens(held_out):
    data = held_out("\n".join(LINES), sample_by="line")
    bytes_of_lines = sum(token != 256 for token in scored(data.validation))

    assert data.bytes_per_token * len(scored(data.validation)) == pytest.approx(
        bytes_of_lines, rel=0.02
    )


def test_a_split_inside_a_document_scores_all_but_the_token_at_the_cut(held_out):
    data = held_out(" ".join(LINES))
    train, validation = data.windows.cache, data.validation.cache

    assert validation.document_starts.tolist() == train.document_starts.tolist() == [0]
    assert scored(data.validation) == validation.tokens[1:].tolist()


def test_fewer_validation_windows_begin_where_all_would(held_out):
    whole, some = held_out("\n".join(LINES)), held_out("\n".join(LINES), max_eval_windows=3)

    assert len(some.validation) == 3
    assert scored(some.validation) == scored(whole.validation)[: 3 * 15]


def test_a_pickled_slice_is_the_same_slice(held_out):
    part = held_out("\n".join(LINES), sample_by="line").validation.cache
    again = pickle.loads(pickle.dumps(part))

    assert isinstance(again, TokenSlice)
    assert again.tokens.tolist() == part.tokens.tolist()
    assert again.document_starts.tolist() == part.document_starts.tolist()
    assert again.num_bytes == part.num_bytes
