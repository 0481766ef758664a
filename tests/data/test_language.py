"""The text data of a language model: what is held out, and what is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hf_genmodels.config.run import TextDataConfig
from hf_genmodels.data.language import TokenSlice, TrainingBatches, count_targets, load_text_data
from hf_genmodels.errors import UserError


@pytest.fixture
def tokenizer(byte_tokenizer):
    return byte_tokenizer()


@pytest.fixture
def config(tmp_path: Path):
    """Makes the options for a text of so many numbered lines."""

    def make(lines: int = 200, **options) -> TextDataConfig:
        path = tmp_path / "text.txt"
        path.write_text("".join(f"line {i:04d}\n" for i in range(lines)))
        given = {"train_file": [str(path)], "block_size": 16, "cache_dir": str(tmp_path / "cache")}
        return TextDataConfig(**{**given, **options})

    return make


@pytest.mark.parametrize("percent", [5.0, 30.0])
@pytest.mark.parametrize("sample_by", ["document", "line"])
def test_the_end_is_held_out_and_no_token_is_in_both_parts(config, tokenizer, percent, sample_by):
    options = config(validation_split_percentage=percent, sample_by=sample_by)
    data = load_text_data(options, tokenizer, seed=0, show_progress=False)
    train, validation = data.windows.cache, data.validation.cache
    shared = train.stop - validation.start  # the end of one document, the beginning of the next
    assert shared in (0, 1)
    assert set(train.tokens[len(train.tokens) - shared :]) <= {tokenizer.eos_token_id}
    total = len(train.tokens) + len(validation.tokens)
    assert len(validation.tokens) / total == pytest.approx(percent / 100, rel=0.3, abs=20 / total)
    assert data.validation_name == f"last {percent:g} % of text.txt"
    ids = np.concatenate([train.tokens, validation.tokens])
    assert tokenizer.decode(ids.tolist(), skip_special_tokens=True).count("line") == 200


def test_validation_files_are_used_whole(config, tokenizer, tmp_path):
    (tmp_path / "held_out.txt").write_text("something else\n" * 9)
    options = config(validation_file=[str(tmp_path / "held_out.txt")])
    data = load_text_data(options, tokenizer, seed=0, show_progress=False)
    assert data.validation_name == "held_out.txt"
    assert data.bytes_per_token == 135 / 136
    scored = sum(count_targets(data.validation[i]) for i in range(len(data.validation)))
    assert scored == 136  # 135 bytes and the end of the document


def test_no_more_validation_windows_than_asked_for(config, tokenizer):
    options = config(validation_split_percentage=50, max_eval_windows=3)
    data = load_text_data(options, tokenizer, seed=0, show_progress=False)
    assert len(data.validation) == 3
    assert data.bytes_per_token == pytest.approx(1, abs=0.03)


def test_a_text_too_short_to_hold_out_a_window_says_what_would_fit(config, tokenizer):
    with pytest.raises(UserError, match=r"too few to train and validate.*--block_size to 10"):
        load_text_data(config(lines=3), tokenizer, seed=0, show_progress=False)


def test_a_slice_opens_the_files_again_in_another_process(config, tokenizer):
    import pickle

    cache = load_text_data(config(), tokenizer, seed=0, show_progress=False).windows.cache
    again = pickle.loads(pickle.dumps(cache))
    assert isinstance(again, TokenSlice)
    assert (again.start, again.stop) == (cache.start, cache.stop)
    np.testing.assert_array_equal(again.tokens, cache.tokens)
    np.testing.assert_array_equal(again.document_starts, cache.document_starts)
    assert len(pickle.dumps(cache)) < 1000


def test_batches_go_on_from_a_position(config, tokenizer):
    options = config()
    data = load_text_data(options, tokenizer, seed=3, show_progress=False)
    all_of_them = TrainingBatches(options, data, tokenizer, batch_size=2, seed=3)
    batches = [next(all_of_them) for _ in range(5)]
    later = TrainingBatches(options, data, tokenizer, batch_size=2, seed=3, start=6)
    for expected in batches[3:]:
        found = next(later)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)
    assert later.stream_state is None


def test_the_digest_changes_with_the_text_only(config, tokenizer):
    def digest(**options) -> str:
        data = load_text_data(config(**options), tokenizer, seed=0, show_progress=False)
        return data.fingerprint

    first = digest()
    assert digest() == first
    assert digest(lines=201) != first
    assert digest(validation_split_percentage=20) != first
