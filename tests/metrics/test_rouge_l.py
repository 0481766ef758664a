import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_genmodels import metrics
from hf_genmodels.metrics.rouge_l.common_subsequence import (
    common_length,
    mean_rouge_l,
    rouge_l,
    split_units,
)


def table_length(first, second):
    """The longest common subsequence by its definition."""

    @functools.cache
    def length(i, j):
        if i == len(first) or j == len(second):
            return 0
        if first[i] == second[j]:
            return 1 + length(i + 1, j + 1)
        return max(length(i + 1, j), length(i, j + 1))

    return length(0, 0)


@given(st.text("abc", max_size=40), st.text("abcd", max_size=40))
def test_the_common_subsequence_is_the_longest(first, second):
    assert common_length(first, second) == table_length(first, second)
    assert common_length(first, second) == common_length(second, first)


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [("police kill the gunman", 3 / 4), ("the gunman kill police", 2 / 4)],
)
def test_the_examples_of_the_paper(candidate, expected):
    # Lin 2004, section 3.1, S2 and S3 against S1.
    assert rouge_l(candidate, ["police killed the gunman"])["f"] == expected


def test_f_weighs_recall_by_beta():
    # LCS = 2, P = 2/2, R = 2/4
    found = rouge_l("a b", ["a b c d"])
    assert found == {"precision": 1.0, "recall": 0.5, "f": pytest.approx(2 / 3)}
    # 5 R P / (R + 4 P)
    assert rouge_l("a b", ["a b c d"], beta=2)["f"] == pytest.approx(2.5 / 4.5)


def test_the_best_reference_counts():
    assert rouge_l("a b", ["c d", "a b", "a"])["f"] == 1


def test_case_and_punctuation_do_not_count():
    assert split_units("It's “Über” 3!") == ["it", "s", "über", "3"]
    assert rouge_l("The END.", ["the, end"])["f"] == 1


def test_characters_are_units_where_words_have_no_blanks():
    assert split_units("床前 明月光。", "character") == list("床前明月光")
    assert rouge_l("床前月光", ["床前明月光"], unit="character")["recall"] == 0.8


@pytest.mark.parametrize("text", ["", "...", "x"])
def test_nothing_in_common_is_zero(text):
    assert rouge_l(text, ["a"])["f"] == rouge_l("a", [text])["f"] == 0


def test_the_module_averages_over_texts():
    texts, references = ["a b", "c"], ["a b c d", "d"]
    metric = metrics.load("rouge_l")

    expected = {
        "rouge_l": pytest.approx(1 / 3),
        "rouge_l_precision": 0.5,
        "rouge_l_recall": 0.25,
    }
    assert metric.compute(predictions=texts, references=references) == expected
    several = [[one, "c"] for one in references]
    assert metric.compute(predictions=texts, references=several) == mean_rouge_l(texts, several)


@pytest.mark.parametrize(
    "call",
    [
        lambda: split_units("a", "syllable"),
        lambda: rouge_l("a", []),
        lambda: rouge_l("a", ["a"], beta=0),
        lambda: mean_rouge_l(["a"], ["a", "b"]),
    ],
)
def test_what_cannot_be_measured_is_refused(call):
    with pytest.raises(ValueError, match=r"unknown|at least|must|zip"):
        call()
