"""Tests of the token cache."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import pickle
import subprocess
import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_genmodels.data import cache as cache_module
from hf_genmodels.data.cache import (
    TokenCache,
    build_token_cache,
    cache_fingerprint,
    default_cache_dir,
)
from hf_genmodels.data.sources import TextSource
from hf_genmodels.errors import UserError

EOS_ID = 256


def expected_documents(tokenizer, texts):
    """Ids of each document, made the plain way."""
    ids = [EOS_ID]
    for text in texts:
        for token in [*tokenizer(text, add_special_tokens=False)["input_ids"], EOS_ID]:
            if not token == ids[-1] == EOS_ID:
                ids.append(token)
    places = [i for i, token in enumerate(ids) if token == EOS_ID]
    return ids, places[:-1]


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(
        st.one_of(
            st.text(max_size=30),
            st.sampled_from(
                ["a<|endoftext|>b", "<|endoftext|>", "", "<|endoftext|><|endoftext|>c"]
            ),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_one_eos_stands_before_each_document_and_after_the_last(
    texts, byte_tokenizer, memory_source, tmp_path_factory
):
    tokenizer = byte_tokenizer()
    source = memory_source(texts, piece_length=1000)
    folder = tmp_path_factory.mktemp("cache")
    ids, starts = expected_documents(tokenizer, texts)
    if not starts:
        with pytest.raises(UserError, match="hold no text"):
            build_token_cache(source, tokenizer, folder)
        return
    cache = build_token_cache(source, tokenizer, folder)
    assert cache.tokens.tolist() == ids
    assert cache.document_starts.tolist() == starts
    assert cache.num_bytes == source.size_in_bytes()
    assert cache.max_token_id == max(ids)


def test_batches_of_any_size_give_the_same_cache(
    byte_tokenizer, memory_source, tmp_path, monkeypatch
):
    texts = ["one two three", "", "four<|endoftext|>", "five"]
    tokenizer = byte_tokenizer()
    whole = build_token_cache(memory_source(texts), tokenizer, tmp_path / "a")
    monkeypatch.setattr("hf_genmodels.data.tokenizing._BATCH_CHARACTERS", 1)
    pieces = build_token_cache(memory_source(texts), tokenizer, tmp_path / "b")
    assert whole.tokens.tolist() == pieces.tokens.tolist()
    assert whole.document_starts.tolist() == pieces.document_starts.tolist()


def test_ids_are_stored_in_two_bytes_only_while_all_fit(byte_tokenizer, memory_source, tmp_path):
    small, large = byte_tokenizer(), byte_tokenizer()
    large.add_tokens([f"<extra{i}>" for i in range((1 << 16) - len(large) + 1)])
    source = memory_source(["hello <extra65279>"], piece_length=100)
    assert build_token_cache(source, small, tmp_path).tokens.dtype == np.uint16
    cache = build_token_cache(source, large, tmp_path)
    assert cache.tokens.dtype == np.uint32
    assert cache.max_token_id == 1 << 16


def test_truncation_and_padding_of_the_tokenizer_do_not_matter(
    byte_tokenizer, memory_source, tmp_path
):
    tokenizer = byte_tokenizer()
    source = memory_source(["a long text", "b"], piece_length=100)
    plain = build_token_cache(source, tokenizer, tmp_path)
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=20)
    assert cache_fingerprint(source, tokenizer) == plain.fingerprint
    assert build_token_cache(source, tokenizer, tmp_path / "b").tokens.tolist() == list(
        plain.tokens
    )
    assert tokenizer.backend_tokenizer.truncation is not None


def test_max_documents_reads_the_first_documents_only(byte_tokenizer, memory_source, tmp_path):
    texts = ["one", "two", "three"]
    tokenizer = byte_tokenizer()
    some = build_token_cache(memory_source(texts), tokenizer, tmp_path, max_documents=2)
    both = build_token_cache(memory_source(texts[:2]), tokenizer, tmp_path)
    assert some.tokens.tolist() == both.tokens.tolist()
    assert some.num_bytes == 6
    assert some.path != both.path


def test_a_second_call_reuses_the_files(byte_tokenizer, memory_source, tmp_path, monkeypatch):
    tokenizer, source = byte_tokenizer(), memory_source(["some text"])
    first = build_token_cache(source, tokenizer, tmp_path)
    monkeypatch.setattr(memory_source, "pieces", None)
    second = build_token_cache(source, tokenizer, tmp_path)
    assert second.path == first.path
    assert second.tokens.tolist() == first.tokens.tolist()
    assert [path.name for path in tmp_path.iterdir()] == [first.fingerprint[:32]]


def test_fingerprint_changes_with_text_and_tokenizer(byte_tokenizer, memory_source):
    tokenizer, other = byte_tokenizer(), byte_tokenizer()
    other.add_tokens(["more"])
    prints = {
        cache_fingerprint(memory_source(["a"]), tokenizer),
        cache_fingerprint(memory_source(["b"]), tokenizer),
        cache_fingerprint(memory_source(["a"]), other),
        cache_fingerprint(memory_source(["a"]), tokenizer, max_documents=1),
    }
    assert len(prints) == 4


def test_fingerprint_follows_content_and_not_file_names(byte_tokenizer, tmp_path):
    def fingerprint(name, rows, **options):
        file = tmp_path / name
        file.write_text(rows)
        return cache_fingerprint(TextSource(files=[str(file)], **options), byte_tokenizer())

    text, rows = "one\n\ntwo\n", '{"a": "x", "b": "y"}\n'
    first = fingerprint("first.txt", text)
    assert fingerprint("second.txt", text) == first
    others = {
        fingerprint("first.txt", text + "three"),
        fingerprint("first.txt", text, sample_by="line"),
        fingerprint("rows.jsonl", rows, text_column="a"),
        fingerprint("rows.jsonl", rows, text_column="b"),
    }
    assert len(others - {first}) == 4


def test_a_text_file_in_pieces_gives_the_ids_of_the_whole(byte_tokenizer, tmp_path, monkeypatch):
    text = "It is a truth universally acknowledged,\n\n  that é 漢字 🙂 " * 300
    file = tmp_path / "text.txt"
    file.write_text(text, encoding="utf-8")
    monkeypatch.setattr("hf_genmodels.data.tokenizing._BATCH_CHARACTERS", 1)
    tokenizer = byte_tokenizer()
    cache = build_token_cache(TextSource(files=[str(file)]), tokenizer, tmp_path / "cache")
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert cache.tokens.tolist() == [EOS_ID, *whole, EOS_ID]
    assert cache.num_bytes == len(text.encode())


def test_fingerprint_is_the_same_in_another_process(byte_tokenizer, memory_source, tmp_path):
    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    code = (
        "import sys; from types import SimpleNamespace; from transformers import AutoTokenizer\n"
        "from hf_genmodels.data.cache import cache_fingerprint\n"
        "source = SimpleNamespace(fingerprint=lambda: 'x')\n"
        "print(cache_fingerprint(source, AutoTokenizer.from_pretrained(sys.argv[1])))"
    )
    other = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    source = SimpleNamespace(fingerprint=lambda: "x")
    assert other.stdout.strip() == cache_fingerprint(source, tokenizer)


@pytest.mark.parametrize("name", ["tokens.bin", "document_starts.bin", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncate", "grow", "remove"])
def test_a_damaged_cache_is_built_again_with_a_warning(
    name, damage, byte_tokenizer, memory_source, tmp_path, caplog
):
    tokenizer, source = byte_tokenizer(), memory_source(["some text", "and more"])
    good = build_token_cache(source, tokenizer, tmp_path)
    expected = good.tokens.tolist()
    file = good.path / name
    content = file.read_bytes()
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(content[:-1] if damage == "truncate" else content + b"x")
    with caplog.at_level(logging.WARNING):
        again = build_token_cache(source, tokenizer, tmp_path)
    assert "built again" in caplog.text
    assert again.tokens.tolist() == expected
    assert TokenCache.open(again.path).document_starts.tolist() == [0, 10]
    assert len(list(tmp_path.iterdir())) == 1


def build_in_process(barrier, folder, tokenizer, source, results):
    """Build at the same moment as other processes do."""
    barrier.wait()
    cache = build_token_cache(source, tokenizer, folder)
    results.put((cache.tokens.tolist(), str(cache.path)))


def test_processes_that_build_at_once_do_not_clash(
    byte_tokenizer, memory_source, tmp_path, monkeypatch
):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(3), context.Queue()
    arguments = (barrier, tmp_path, byte_tokenizer(), memory_source(["text"] * 500), results)
    processes = [context.Process(target=build_in_process, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    answers = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    assert answers[0] == answers[1] == answers[2]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_cache_that_appeared_meanwhile_is_used(
    byte_tokenizer, memory_source, tmp_path, monkeypatch
):
    tokenizer, source = byte_tokenizer(), memory_source(["some text"])
    write_manifest = cache_module._write_manifest
    monkeypatch.setattr(
        cache_module,
        "_write_manifest",
        lambda *args: (
            monkeypatch.undo(),
            build_token_cache(source, tokenizer, tmp_path),
            write_manifest(*args),
        ),
    )
    cache = build_token_cache(source, tokenizer, tmp_path)
    assert bytes(cache.tokens) == bytes(TokenCache.open(cache.path).tokens)
    assert [path.name for path in tmp_path.iterdir()] == [cache.fingerprint[:32]]


def test_nothing_is_left_behind_when_the_source_fails(byte_tokenizer, memory_source, tmp_path):
    class Broken(memory_source):
        def pieces(self):
            yield from super().pieces()
            raise UserError("line 3 is not JSON")

    with pytest.raises(UserError, match="not JSON"):
        build_token_cache(Broken(["text"]), byte_tokenizer(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_a_clear_error(byte_tokenizer, memory_source, tmp_path, monkeypatch):
    def no_room(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache_module, "_write_manifest", no_room)
    with pytest.raises(UserError, match=r"No space left.*HF_GENMODELS_CACHE"):
        build_token_cache(memory_source(["text"]), byte_tokenizer(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_the_cache_folder_should_be_is_a_clear_error(
    byte_tokenizer, memory_source, tmp_path
):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="Cannot write the cache"):
        build_token_cache(memory_source(["text"]), byte_tokenizer(), tmp_path / "file")


def test_folders_of_killed_processes_are_removed_after_an_hour(
    byte_tokenizer, memory_source, tmp_path
):
    old, young = tmp_path / "a.1.x.tmp", tmp_path / "b.2.x.tmp"
    old.mkdir()
    young.mkdir()
    os.utime(old, (1, 1))
    build_token_cache(memory_source(["text"]), byte_tokenizer(), tmp_path)
    assert not old.exists()
    assert young.exists()


def test_a_tokenizer_without_eos_is_refused(byte_tokenizer, memory_source, tmp_path):
    with pytest.raises(UserError, match="end-of-sequence"):
        build_token_cache(memory_source(["a"]), byte_tokenizer(eos_token=None), tmp_path)


def test_a_pickled_cache_holds_no_tokens(byte_tokenizer, memory_source, tmp_path):
    cache = build_token_cache(memory_source(["text " * 5000]), byte_tokenizer(), tmp_path)
    data = pickle.dumps(cache)
    assert len(data) < 1000
    assert pickle.loads(data).tokens.tolist() == cache.tokens.tolist()


def test_python_memory_does_not_grow_with_the_corpus(
    byte_tokenizer, memory_source, tmp_path, monkeypatch
):
    monkeypatch.setattr("hf_genmodels.data.tokenizing._BATCH_CHARACTERS", 1 << 14)
    tokenizer = byte_tokenizer()
    peaks = []
    for repeats in (20, 200):
        source = memory_source(["text of some length " * 50] * repeats, piece_length=1000)
        tracemalloc.start()
        build_token_cache(source, tokenizer, tmp_path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_nothing_is_printed_without_a_terminal(
    byte_tokenizer, memory_source, tmp_path, capfd, monkeypatch
):
    monkeypatch.setattr(logging.getLogger("hf_genmodels"), "handlers", [])  # of runs before
    build_token_cache(memory_source(["text"]), byte_tokenizer(), tmp_path)
    assert capfd.readouterr() == ("", "")


def test_default_cache_dir_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_GENMODELS_CACHE", str(tmp_path))
    assert default_cache_dir() == tmp_path
    monkeypatch.delenv("HF_GENMODELS_CACHE")
    assert default_cache_dir().parts[-3:] == (".cache", "hf_genmodels", "tokens")
