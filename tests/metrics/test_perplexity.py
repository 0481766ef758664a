import json
import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from hf_genmodels import metrics
from hf_genmodels.data.cache import build_token_cache
from hf_genmodels.data.packing import PackedWindows
from hf_genmodels.data.sources import TextSource
from hf_genmodels.metrics.perplexity.scoring import (
    Score,
    document_tokens,
    score_documents,
    score_texts,
    windows,
)

METRICS = Path(metrics.__file__).parent
TEXT = (
    "It is a truth universally acknowledged, that a single man in possession of a good fortune " * 3
)


class Uniform:
    """A model to which all tokens are equally likely."""

    device = torch.device("cpu")

    class config:  # noqa: N801
        max_position_embeddings = 64

    def __call__(self, input_ids, **_):
        return type("Output", (), {"logits": torch.zeros(*input_ids.shape, 258)})


def exact_nll(model, ids):
    """Sum of negative log-likelihoods of a short document, the plain way."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, :-1].double()
    chosen = logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])
    return -chosen.sum().item()


@pytest.mark.parametrize("length", [0, 1, 2, 7, 8, 9, 15, 16, 50])
@pytest.mark.parametrize("stride", [None, 1, 3, 7])
def test_each_token_but_the_first_is_scored_once(length, stride):
    scored = [
        item
        for window, count in windows(range(length), 8, stride)
        for item in window[len(window) - count :]
    ]

    assert scored == list(range(1, length))


def test_windows_are_full_and_give_context():
    cut = list(windows(range(20), 8, 3))

    assert all(len(window) == 8 for window, _ in cut)
    assert all(count <= 3 for _, count in cut[1:])


@pytest.mark.parametrize(("block_size", "stride"), [(1, None), (8, 8), (8, 0)])
def test_windows_that_cannot_work_are_refused(block_size, stride):
    with pytest.raises(ValueError, match="must"):
        list(windows(range(9), block_size, stride))


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary(tokenizer):
    score = score_texts(Uniform(), tokenizer, [TEXT, "Hi"])

    assert score.perplexity == pytest.approx(258)
    # One token for each byte; the last token of each document stands for none.
    assert score.num_tokens == len(TEXT) + 1 + len("Hi") + 1
    assert score.num_bytes == len(TEXT) + len("Hi")
    assert score.bits_per_byte == pytest.approx(math.log2(258) * score.num_tokens / score.num_bytes)


def test_short_documents_are_scored_as_if_alone(model, tokenizer):
    texts = ["One text.", "Another, longer text", "x"]
    eos = tokenizer.eos_token_id
    ids = [[eos, *tokenizer(text)["input_ids"], eos] for text in texts]

    together = score_texts(model, tokenizer, texts, batch_size=3)

    assert together.nll == pytest.approx(sum(exact_nll(model, one) for one in ids), rel=1e-6)
    assert together.num_tokens == sum(len(one) - 1 for one in ids)


def test_the_figures_do_not_depend_on_batches_or_pieces(model, tokenizer):
    whole = score_texts(model, tokenizer, [TEXT], batch_size=8)
    single = score_texts(model, tokenizer, [TEXT], batch_size=1)
    pieces = sum(score_documents(model, tokenizer, [[TEXT[:100], TEXT[100:]]]), start=Score())

    assert single.nll == pytest.approx(whole.nll, rel=1e-6)
    assert pieces.nll == pytest.approx(whole.nll, rel=1e-6)
    assert pieces.num_bytes == whole.num_bytes == len(TEXT)


@pytest.mark.parametrize(
    ("texts", "block_size"),
    [
        ([TEXT], 32),
        (["One text.", "", "Another, longer text", "x"], 34),
        (
            [
                "<|endoftext|>Once<|endoftext|>upon<|endoftext|><|endoftext|>a time",
                "x<|endoftext|>",
            ],
            20,
        ),
    ],
)
def test_training_validates_with_the_same_figures(texts, block_size, model, tokenizer, tmp_path):
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    cache = build_token_cache(TextSource(files=[str(file)]), tokenizer, tmp_path / "cache")
    nll, count = 0.0, 0
    data = PackedWindows(cache, block_size)
    for index in range(len(data)):
        window = {name: value[None] for name, value in data[index].items()}
        labels = window.pop("labels")
        scored = int((labels[:, 1:] != -100).sum())
        with torch.no_grad():
            nll += model(**window, labels=labels).loss.item() * scored
        count += scored

    score = score_texts(model, tokenizer, texts, block_size=block_size)

    assert len(data) == 1 or len(texts) == 1
    assert score.num_tokens == count == len(cache.tokens) - 1
    assert score.loss == pytest.approx(nll / count, rel=1e-6)


def test_bytes_of_tokens_add_up_to_the_text(tokenizer):
    for text in ("Grüße, 世界! 🙂", "  spaces  ", "\u0301\n\t"):
        ids, sizes = zip(*document_tokens(tokenizer, [text]), strict=True)
        assert sum(sizes) == len(text.encode())
        assert sizes[0] == sizes[-1] == 0
        assert ids[0] == ids[-1] == tokenizer.eos_token_id


def test_scores_add_by_tokens_not_by_means():
    score = Score(nll=10.0, num_tokens=10, num_bytes=20) + Score(
        nll=0.0, num_tokens=90, num_bytes=180
    )

    assert score.loss == 0.1
    assert score.perplexity == pytest.approx(math.exp(0.1))
    assert score.bits_per_byte == pytest.approx(10 / math.log(2) / 200)
    assert Score(nll=1e6, num_tokens=1).perplexity == math.inf


def test_the_module_computes_from_a_folder_a_model_and_sums(published, model, tokenizer):
    metric = metrics.load("perplexity")
    expected = score_texts(model, tokenizer, [TEXT, "Hi"]).to_dict()

    assert metric.compute(predictions=[TEXT, "Hi"], model=str(published)) == pytest.approx(expected)
    given = metric.compute(predictions=[TEXT, "Hi"], model=model, tokenizer=tokenizer, batch_size=1)
    assert given == pytest.approx(expected, rel=1e-5)
    sums = metric.compute(predictions=[10.0, 0.0], token_counts=[10, 90], byte_counts=[20, 180])
    assert sums["loss"] == 0.1
    with pytest.raises(ValueError, match="need a model"):
        metric.compute(predictions=["a"])


STRANGER = """
    import sys
    from pathlib import Path
    class Blocker:
        def find_spec(self, name, *_):
            if name.split(".")[0] == "hf_genmodels":
                raise ModuleNotFoundError(name)
    sys.meta_path.insert(0, Blocker())
    attempts = []
    def refuse(event, arguments):
        if event in ("socket.connect", "socket.getaddrinfo"):
            attempts.append(event)
            raise OSError("closed")
    sys.addaudithook(refuse)
    import evaluate
    folder = Path(sys.argv[1])
    for name in sys.argv[2:]:
        print(evaluate.load(str(folder / name)).name)
    assert not attempts, attempts
"""


def test_the_modules_load_offline_where_the_package_is_not_installed(tmp_path):
    process = subprocess.run(
        [sys.executable, "-I", "-c", textwrap.dedent(STRANGER), str(METRICS), *metrics.NAMES],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HF_HOME": str(tmp_path), "HF_EVALUATE_OFFLINE": "1"},
    )

    assert process.stdout.split() == list(metrics.NAMES)
