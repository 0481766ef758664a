"""Tests of windows made while text is being read."""

from __future__ import annotations

import json
from itertools import islice

import numpy as np
import pytest
import torch

from hf_genmodels.data.cache import build_token_cache
from hf_genmodels.data.packing import PackedWindows, collate
from hf_genmodels.data.sources import TextSource
from hf_genmodels.data.streaming import StreamingWindows, stream_loader
from hf_genmodels.errors import UserError

EOS_ID = 256
TEXTS = [f"document {i} " + "and so on " * (i % 7) for i in range(60)]


def write_files(folder, kind, count=1):
    """Write TEXTS to some files of a kind and return the source that reads them."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        texts = TEXTS[number::count]
        file = folder / f"part{number}.{kind}"
        if kind == "jsonl":
            file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        elif kind == "csv":
            file.write_text("text,n\n" + "".join(f"{text},{i}\n" for i, text in enumerate(texts)))
        elif kind == "parquet":
            import pyarrow
            from pyarrow import parquet

            parquet.write_table(pyarrow.table({"text": texts}), file)
        else:
            file.write_text("\n".join(texts) + "\n")
    sample_by = "line" if kind == "txt" else "document"
    return TextSource(files=[str(folder / f"*.{kind}")], sample_by=sample_by, streaming=True)


@pytest.fixture(params=["jsonl", "csv", "parquet", "txt", "dataset", "parts", "parts_dataset"])
def source(request, tmp_path):
    """A source of each kind."""
    kind, _, dataset = request.param.partition("_")
    dataset = dataset or (kind if kind == "dataset" else "")
    count = 3 if kind == "parts" else 1
    files = write_files(tmp_path / "data", "jsonl" if kind in ("dataset", "parts") else kind, count)
    if not dataset:
        return files
    return TextSource(dataset_name=str(tmp_path / "data"), streaming=True)


def equal(one, other):
    """Whether two lists of windows are the same."""
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
        for a, b in zip(one, other, strict=True)
    )


def documents_of(windows):
    """Join windows to the token stream and return it."""
    ids = [windows[0]["input_ids"].tolist()[:1]]
    ids += [window["input_ids"].tolist()[1:] for window in windows]
    return [token for row in ids for token in row]


def documents_in(windows):
    """The complete documents in some windows, as strings of bytes, and the beginning of one more."""
    first, *texts = "".join(chr(token) for token in documents_of(windows)).split(chr(EOS_ID))
    assert first == ""
    return texts


@pytest.mark.parametrize("shuffle_buffer", [0, 10])
@pytest.mark.parametrize("world_size", [1, 2])
def test_a_stream_resumes_exactly_after_every_window_and_epoch(
    source, shuffle_buffer, world_size, byte_tokenizer
):
    def stream():
        return StreamingWindows(
            source,
            byte_tokenizer(),
            32,
            rank=world_size - 1,
            world_size=world_size,
            seed=4,
            shuffle_buffer=shuffle_buffer,
        )

    whole, states = [], []
    first = stream()
    for window in islice(first, 212):
        whole.append(window)
        states.append(json.loads(json.dumps(first.state_dict())))
    assert states[-1]["epoch"] >= 1
    for done in (1, 2, 37, 80, 150, 199):
        second = stream()
        second.load_state_dict(states[done - 1])
        assert equal(list(islice(second, 8)), whole[done : done + 8])
        third = stream()
        third.load_state_dict(json.loads(json.dumps(second.state_dict())))
        assert equal(list(islice(third, 3)), whole[done + 8 : done + 11])


def test_a_stream_gives_the_tokens_of_the_cache_in_order(source, byte_tokenizer, tmp_path):
    tokenizer = byte_tokenizer()
    cache = build_token_cache(source, tokenizer, tmp_path / "cache")
    size = len(cache.tokens)
    windows = list(islice(StreamingWindows(source, tokenizer, 16), size // 15))
    tokens = documents_of(windows)
    assert tokens[:size] == cache.tokens.tolist()[: len(tokens)]
    packed = PackedWindows(cache, 16)
    assert equal(windows[:20], [packed[i] for i in range(20)])


@pytest.mark.parametrize("shuffle_buffer", [0, 16])
@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_out_the_documents_of_an_epoch(
    source, shuffle_buffer, world_size, byte_tokenizer
):
    tokenizer = byte_tokenizer()
    seen = []
    for rank in range(world_size):
        stream = StreamingWindows(
            source,
            tokenizer,
            8,
            rank=rank,
            world_size=world_size,
            shuffle_buffer=shuffle_buffer,
        )
        windows = []
        for window in stream:
            windows.append(window)
            if stream.state_dict()["epoch"] > 0:
                break
        seen += [text for text in documents_in(windows)[: len(TEXTS) // world_size] if text]
    assert len(seen) == len(TEXTS)
    assert len(set(seen)) == len(TEXTS)


def test_the_shuffle_buffer_changes_the_order_with_the_epoch(byte_tokenizer, tmp_path):
    source = write_files(tmp_path / "data", "jsonl")
    stream = StreamingWindows(source, byte_tokenizer(), 8, seed=1, shuffle_buffer=20)
    texts = documents_in(list(islice(stream, 1000)))
    epochs = [texts[:60], texts[60:120]]
    assert set(epochs[0]) == set(epochs[1])
    assert epochs[0] != epochs[1]
    plain = documents_in(list(islice(StreamingWindows(source, byte_tokenizer(), 8), 400)))
    assert set(plain[:20]) == set(epochs[0][:20])
    assert plain[:20] != epochs[0][:20]


def test_the_state_after_a_batch_is_the_state_of_that_batch(byte_tokenizer, tmp_path):
    source = write_files(tmp_path / "data", "jsonl")
    first = StreamingWindows(source, byte_tokenizer(), 16)
    batches, states = [], []
    for batch in islice(stream_loader(first, batch_size=3), 40):
        batches.append(batch)
        states.append(first.state_dict())
    second = StreamingWindows(source, byte_tokenizer(), 16)
    second.load_state_dict(states[24])
    assert equal(list(islice(stream_loader(second, batch_size=3), 15)), batches[25:])


def test_the_state_stays_small_inside_a_long_document(byte_tokenizer, tmp_path):
    file = tmp_path / "book.txt"
    file.write_text("It was a dark and stormy night. " * 20_000)
    source = TextSource(files=[str(file)], streaming=True)
    stream = StreamingWindows(source, byte_tokenizer(), 64)
    windows = list(islice(stream, 3000))
    state = json.dumps(stream.state_dict())
    assert len(state) < 1000
    following = list(islice(stream, 5))
    resumed = StreamingWindows(source, byte_tokenizer(), 64)
    resumed.load_state_dict(json.loads(state))
    assert equal(list(islice(resumed, 5)), following)
    assert "position_ids" not in collate(windows)


def test_documents_do_not_see_each_other(byte_tokenizer, tmp_path):
    stream = StreamingWindows(write_files(tmp_path / "data", "txt"), byte_tokenizer(), 24)
    for window in islice(stream, 100):
        ids, positions = window["input_ids"].numpy(), window["position_ids"].numpy()
        labels = window["labels"].numpy()
        starts = np.flatnonzero(ids == EOS_ID)
        assert (positions[starts] == 0).all()
        assert labels[0] == -100
        inner = np.setdiff1d(np.arange(1, 24), starts)
        assert (positions[inner] == positions[inner - 1] + 1).all()
        assert (labels[1:] == ids[1:]).all()


def test_every_token_of_a_stream_is_scored_once_but_the_very_first(byte_tokenizer, tmp_path):
    source = write_files(tmp_path / "data", "jsonl")
    tokenizer = byte_tokenizer()
    windows = list(islice(StreamingWindows(source, tokenizer, 16), 300))
    labels = [token for window in windows for token in window["labels"].tolist() if token >= 0]
    epoch = [token for text in TEXTS for token in [*tokenizer(text)["input_ids"], EOS_ID]]
    assert len(labels) == 300 * 15 > len(epoch)
    assert labels == (epoch * 3)[: len(labels)]


@pytest.mark.parametrize(
    ("name", "value"),
    [("block_size", 16), ("world_size", 2), ("seed", 1), ("shuffle_buffer", 5)],
)
def test_a_state_of_other_settings_is_refused(name, value, byte_tokenizer, tmp_path):
    source = write_files(tmp_path / "data", "jsonl")
    options = {"block_size": 8, "world_size": 1, "seed": 0, "shuffle_buffer": 0}
    state = StreamingWindows(source, byte_tokenizer(), **options).state_dict()
    other = StreamingWindows(source, byte_tokenizer(), **{**options, name: value})
    with pytest.raises(UserError, match=f"with {name}="):
        other.load_state_dict(state)


def test_workers_are_refused_with_the_way_out(byte_tokenizer, tmp_path, monkeypatch):
    stream = StreamingWindows(write_files(tmp_path / "data", "jsonl"), byte_tokenizer(), 8)
    with pytest.raises(UserError, match="num_workers to 0"):
        stream_loader(stream, 2, num_workers=1)
    monkeypatch.setattr("hf_genmodels.data.streaming.get_worker_info", lambda: "a worker")
    with pytest.raises(UserError, match="num_workers to 0"):
        next(iter(stream))


def test_more_processes_than_documents_are_refused(byte_tokenizer, tmp_path):
    file = tmp_path / "one.txt"
    file.write_text("one document only")
    source = TextSource(files=[str(file)], streaming=True)
    stream = StreamingWindows(source, byte_tokenizer(), 8, rank=1, world_size=2)
    with pytest.raises(UserError, match="no document for process 1 of 2"):
        next(iter(stream))


def test_streaming_leaves_the_global_random_state_alone(byte_tokenizer, tmp_path):
    stream = StreamingWindows(
        write_files(tmp_path / "data", "jsonl"), byte_tokenizer(), 8, shuffle_buffer=7
    )
    before = torch.get_rng_state()
    list(islice(stream_loader(stream, 4), 50))
    assert torch.equal(before, torch.get_rng_state())


def test_a_missing_file_is_refused_before_anything_is_read(byte_tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"missing\.jsonl"):
        StreamingWindows(
            TextSource(files=[str(tmp_path / "missing.jsonl")]), byte_tokenizer(), block_size=8
        )
