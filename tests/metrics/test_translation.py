import sys

import numpy as np
import pytest
import sacrebleu

from hf_genmodels import metrics
from hf_genmodels.errors import UserError
from hf_genmodels.metrics.bleu.corpus_bleu import corpus_bleu
from hf_genmodels.metrics.bootstrap import (
    bootstrap_scores,
    interval,
    share_interval,
    share_of_wins,
)
from hf_genmodels.metrics.chrf.corpus_chrf import corpus_chrf
from hf_genmodels.metrics.translation import compare_systems, corpus_scores

# The example of sacrebleu's own documentation, with its figures.
SYSTEM = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
REFERENCES = [
    ["The dog bit the man.", "The dog had bit the man."],
    ["It was not unexpected.", "No one was surprised."],
    ["The man bit him first.", "The man had bitten the dog."],
]
CHINESE = (["我今天去学校。", "他不喜欢茶"], ["我今天去了学校。", "他很喜欢茶"])


def noisy_corpus(sentences, wrong, seed=0):
    """Texts of random words, and the same with a share of wrong words."""
    rng = np.random.default_rng(seed)
    texts = [
        [f"w{i}" for i in rng.integers(300, size=rng.integers(5, 20))] for _ in range(sentences)
    ]
    spoilt = [[word if rng.random() > wrong else "wrong" for word in text] for text in texts]
    return [" ".join(text) for text in spoilt], [" ".join(text) for text in texts]


def test_the_published_example_has_its_published_scores():
    assert corpus_bleu(SYSTEM, REFERENCES)["bleu"] == pytest.approx(48.530827, abs=1e-6)
    assert corpus_chrf(SYSTEM, REFERENCES)["chrf"] == pytest.approx(59.73, abs=5e-3)


def test_clipped_counts_are_those_of_the_paper():
    # Papineni et al. 2002, example 2: "the" seven times against two in the reference.
    found = corpus_bleu(["the the the the the the the"], ["the cat is on the mat"])

    assert found["precisions"][0] == pytest.approx(100 * 2 / 7)
    assert (found["prediction_length"], found["reference_length"]) == (7, 6)
    assert found["brevity_penalty"] == 1


@pytest.mark.parametrize("tokenize", ["13a", "intl", "zh", "char", "none"])
def test_scores_are_sacrebleus_for_each_tokenizer(tokenize):
    bleu = sacrebleu.BLEU(tokenize=tokenize)
    chrf = sacrebleu.CHRF()
    for hypotheses, references in (noisy_corpus(30, 0.2), CHINESE):
        found = corpus_scores(hypotheses, references, tokenize, bootstrap=0)

        assert found["bleu"] == bleu.corpus_score(hypotheses, [references]).score
        assert found["chrf"] == chrf.corpus_score(hypotheses, [references]).score
        assert found["bleu_signature"] == str(bleu.get_signature())
        assert found["chrf_signature"] == str(chrf.get_signature())
        assert found["num_sentences"] == len(hypotheses)
        assert "bleu_low" not in found


def test_chinese_needs_its_tokenizer():
    assert corpus_bleu(*CHINESE, tokenize="zh")["bleu"] > 20
    assert corpus_bleu(*CHINESE)["bleu"] < 1


def test_intervals_agree_with_sacrebleus_bootstrap():
    hypotheses, references = noisy_corpus(300, 0.3)
    expected = sacrebleu.BLEU().corpus_score(hypotheses, [references], n_bootstrap=1000)

    found = corpus_scores(hypotheses, references)

    assert found["bleu_low"] < found["bleu"] < found["bleu_high"]
    assert found["chrf_low"] < found["chrf"] < found["chrf_high"]
    width = (found["bleu_high"] - found["bleu_low"]) / 2
    assert width == pytest.approx(expected._ci, rel=0.1)


def test_the_seed_decides():
    corpus = noisy_corpus(50, 0.3)

    assert corpus_scores(*corpus, seed=1) == corpus_scores(*corpus, seed=1)
    assert corpus_scores(*corpus, seed=1)["bleu_low"] != corpus_scores(*corpus, seed=2)["bleu_low"]


def test_bootstrap_of_a_mean_is_the_closed_form():
    values = np.random.default_rng(0).normal(size=400)
    counts = np.stack([values, np.ones(400)], axis=1)

    scores = bootstrap_scores(counts, lambda sums: sums[0] / sums[1], resamples=4000, seed=0)

    error = values.std() / 20
    assert scores.mean() == pytest.approx(values.mean(), abs=0.1 * error)
    assert scores.std() == pytest.approx(error, rel=0.05)
    around = interval(scores)
    assert around.high - around.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_draws_do_not_depend_on_how_many_are_held_at_once(monkeypatch):
    counts = np.random.default_rng(0).integers(10, size=(30, 3))
    together = bootstrap_scores(counts, sum, resamples=50, seed=3)

    monkeypatch.setattr("hf_genmodels.metrics.bootstrap._CHUNK", 64)

    np.testing.assert_array_equal(bootstrap_scores(counts, sum, resamples=50, seed=3), together)


def test_paired_systems_are_told_apart():
    worse, references = noisy_corpus(200, 0.35)
    better, _ = noisy_corpus(200, 0.3)

    found = compare_systems(better, worse, references, bootstrap=200)
    same = compare_systems(better, better, references, bootstrap=200)

    scores = [corpus_scores(one, references, bootstrap=0)["bleu"] for one in (better, worse)]
    assert found["bleu_difference"] == pytest.approx(scores[0] - scores[1])
    assert found["bleu_difference_low"] > 0
    assert found["chrf_wins"] > 0.95
    assert same["bleu_difference_low"] == same["bleu_difference_high"] == 0
    assert same["chrf_wins"] == 0.5
    assert share_of_wins([1, 2, 3], [1, 1, 4]) == 0.5


@pytest.mark.parametrize(
    "call",
    [
        lambda: corpus_scores([], []),
        lambda: corpus_scores(["a"], ["a", "b"]),
        lambda: bootstrap_scores(np.zeros((0, 2)), sum),
        lambda: bootstrap_scores(np.zeros((1, 2)), sum, resamples=0),
        lambda: share_of_wins([1], [1, 2]),
        lambda: corpus_bleu(["a"], ["a"], tokenize="14a"),
        lambda: corpus_chrf(["a"], ["a"], word_order=-1),
    ],
)
def test_what_cannot_be_measured_is_refused(call):
    with pytest.raises(ValueError, match=r"at least|unknown|must|as many"):
        call()


def test_an_unknown_tokenizer_gets_a_suggestion():
    with pytest.raises(UserError, match=r"Did you mean '13a'\? Choose from: 13a, intl, zh"):
        corpus_scores(["a"], ["a"], tokenize="14a")


def test_the_modules_compute_with_one_and_with_several_references():
    bleu, chrf = metrics.load("bleu"), metrics.load("chrf")
    uneven = [REFERENCES[0], REFERENCES[1][:1], REFERENCES[2]]
    single = [references[0] for references in REFERENCES]

    for references in (REFERENCES, uneven, single):
        expected = corpus_bleu(SYSTEM, references, lowercase=True)
        found = bleu.compute(predictions=SYSTEM, references=references, lowercase=True)
        assert found == expected
        found = chrf.compute(predictions=SYSTEM, references=references, word_order=2)
        assert found == corpus_chrf(SYSTEM, references, word_order=2)
    assert "nrefs:var" in corpus_bleu(SYSTEM, uneven)["signature"]
    assert "case:lc" in expected["signature"]
    assert corpus_chrf(SYSTEM, single, word_order=2)["signature"].count("nw:2")


def test_a_missing_sacrebleu_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)

    for call in (lambda: metrics.load("bleu"), lambda: corpus_scores(["a"], ["a"])):
        with pytest.raises(UserError, match=r"hf_genmodels\[metrics\]"):
            call()


def test_the_interval_of_a_share_is_wilsons():
    around = share_interval(0.85, 20)  # 17 of 20
    assert (around.low, around.high) == pytest.approx((0.6396, 0.9476), abs=1e-4)
    every = share_interval(1.0, 10)
    assert (every.low, every.high) == pytest.approx((0.7225, 1.0), abs=1e-4)
    for share, count in ((0.5, 0), (1.2, 5)):
        with pytest.raises(ValueError, match="no share"):
            share_interval(share, count)
