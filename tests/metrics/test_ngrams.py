import math

import pytest

from hf_genmodels import metrics
from hf_genmodels.errors import UserError
from hf_genmodels.metrics.distinct_n.distinct_counts import distinct_n, self_repetition
from hf_genmodels.metrics.ngram_divergence.ngram_distributions import (
    divergences,
    js_divergence,
    kl_divergence,
    ngram_counts,
    symmetric_relative_entropy,
)


@pytest.mark.parametrize(
    ("texts", "n", "expected"),
    [
        (["a b c d"], 1, 1.0),
        (["a a a a"], 1, 1 / 4),
        (["a a a a"], 2, 1 / 3),
        (["a b", "a b"], 2, 1 / 2),
        (["a", "b"], 2, 0.0),  # no n-gram spans two texts
        ([], 1, 0.0),
        (["Stop! Stop."], 1, 3 / 4),
    ],
)
def test_distinct_n_counts_over_the_collection(texts, n, expected):
    assert distinct_n(texts, n) == expected


def test_characters_are_units_where_words_have_no_spaces():
    assert distinct_n(["你好 你好"], 1, "character") == 1 / 2
    assert ngram_counts(["你好"], 2, "character") == {("你", "好"): 1}


def test_self_repetition_counts_within_each_text():
    assert self_repetition(["a b a b", "a b"], 1) == 2 / 6
    assert self_repetition(["a b a b", "a b"], 2) == 1 / 4
    assert self_repetition(["你你 好"], 1, "character") == 1 / 3
    assert self_repetition(["a"], 2) == 0


def test_kl_of_two_coins_is_the_closed_form():
    p, q = {"h": 3, "t": 1}, {"h": 1, "t": 1}

    # D = 3/4 log2(3/2) + 1/4 log2(1/2)
    assert kl_divergence(p, q, smoothing=0) == pytest.approx(0.75 * math.log2(1.5) - 0.25)
    # D the other way = 1/2 log2(2/3) + 1/2 log2(2)
    backwards = 0.5 * math.log2(2 / 3) + 0.5
    assert kl_divergence(q, p, smoothing=0) == pytest.approx(backwards)
    both = symmetric_relative_entropy(p, q, smoothing=0)
    assert both == pytest.approx(0.75 * math.log2(1.5) - 0.25 + backwards)
    assert both == symmetric_relative_entropy(q, p, smoothing=0)


def test_smoothing_adds_to_every_count_of_either_side():
    # (1.5, 0.5) / 2 against (0.5, 1.5) / 2: 3/4 log2(3) + 1/4 log2(1/3)
    assert kl_divergence({"a": 1}, {"b": 1}, smoothing=0.5) == pytest.approx(0.5 * math.log2(3))
    assert kl_divergence({"a": 1}, {"b": 1}, smoothing=0) == math.inf


def test_jensen_shannon_lies_between_0_and_1_bit():
    assert js_divergence({"a": 5, "b": 5}, {"a": 1, "b": 1}) == 0
    assert js_divergence({"a": 3}, {"b": 4}) == 1
    # p = (1, 0), q = (1/2, 1/2), m = (3/4, 1/4)
    expected = 0.5 * math.log2(4 / 3) + 0.25 * math.log2(2 / 3) + 0.25 * math.log2(2)
    assert js_divergence({"a": 1}, {"a": 1, "b": 1}) == pytest.approx(expected)


def test_divergences_do_not_depend_on_scale_without_smoothing():
    once = divergences(["a b a"], ["a b b"], 1, smoothing=0)
    often = divergences(["a b a"] * 7, ["a b b"] * 3, 1, smoothing=0)

    assert once == pytest.approx(often)


@pytest.mark.parametrize(
    "call",
    [
        lambda: distinct_n(["a"], 0),
        lambda: distinct_n(["a"], 1, "syllable"),
        lambda: ngram_counts(["a"], 0),
        lambda: ngram_counts(["a"], 1, "syllable"),
        lambda: kl_divergence({}, {"a": 1}),
        lambda: kl_divergence({"a": 1}, {"a": 1}, smoothing=-1),
    ],
)
def test_what_cannot_be_measured_is_refused(call):
    with pytest.raises(ValueError, match=r"must|unknown|need"):
        call()


def test_the_modules_load_by_name_and_compute():
    texts, references = ["a b a b", "c d"], ["a b", "c d e f"]

    assert metrics.load("distinct_n").compute(predictions=texts, max_n=2) == {
        "distinct_1": distinct_n(texts, 1),
        "distinct_2": distinct_n(texts, 2),
    }
    divergence = metrics.load("ngram_divergence")
    expected = {
        f"{name}_{n}": value
        for n in (1, 2)
        for name, value in divergences(texts, references, n).items()
    }
    assert divergence.compute(predictions=texts, references=references, max_n=2) == expected
    grouped = divergence.compute(predictions=[texts], references=[[*references, "g"]], max_n=1)
    assert grouped["js_1"] == divergences(texts, [*references, "g"], 1)["js"]


def test_an_unknown_metric_gets_a_suggestion():
    with pytest.raises(UserError, match="Did you mean 'perplexity'"):
        metrics.load("perplexty")
