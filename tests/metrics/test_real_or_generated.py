import pytest

from hf_genmodels.metrics.real_or_generated import ngram_buckets, real_or_generated
from tests.runs import SENTENCES

WORDS = [word for sentence in SENTENCES for word in sentence.split()]


def texts(first: int, count: int = 120, step: int = 7) -> list[str]:
    """Sentences of ten words that follow each other in a fixed order."""
    size = len(WORDS)
    return [
        " ".join(WORDS[(first + row * step + place) % size] for place in range(10))
        for row in range(count)
    ]


def test_texts_of_one_kind_cannot_be_told_apart_and_an_interval_holds_one_half():
    found = real_or_generated(texts(0), texts(0))
    assert found.accuracy == 0.5
    assert found.low <= 0.5 <= found.high
    assert found.num_pairs == 60


def test_words_in_another_order_are_told_apart():
    shuffled = [" ".join(reversed(text.split())) for text in texts(3)]
    found = real_or_generated(texts(0), shuffled)
    assert found.accuracy > 0.95
    assert found.low <= found.accuracy <= found.high


def test_the_classifier_is_measured_on_pairs_it_has_not_seen():
    """What differs only in the held-out half cannot be known."""
    odd = ["zyx " * 10] * 60
    found = real_or_generated(texts(0), texts(0)[:60] + odd)
    assert found.accuracy == pytest.approx(0.5, abs=0.15)


def test_what_stands_before_a_text_is_seen_with_its_first_words():
    alone, behind = ngram_buckets("b c"), ngram_buckets("b c", "x a")
    assert set(alone) < set(behind)
    assert len(behind) - len(alone) == 3  # a b, x a b, a b c
    assert ngram_buckets("", "x a") == []


def test_the_same_texts_give_the_same_figures_again():
    assert real_or_generated(texts(0), texts(1)) == real_or_generated(texts(0), texts(1))


def test_what_is_no_pairs_is_refused():
    with pytest.raises(ValueError, match="no pairs"):
        real_or_generated(texts(0), texts(0)[1:])
    with pytest.raises(ValueError, match="too few"):
        real_or_generated(["a"] * 3, ["b"] * 3)
