import math

import pytest

from hf_genmodels import metrics
from hf_genmodels.metrics.self_bleu.overlap import EPSILON, self_bleu

TEXTS = ["the cat sat on the mat", "the cat sat on a mat", "a dog ran off", "the the the cat"]


def test_equal_texts_have_one_and_texts_without_a_common_word_nearly_nothing():
    assert self_bleu(["a b c d e"] * 3) == pytest.approx(1.0)
    assert self_bleu(["a b c d e", "f g h i j"]) < 0.1
    assert self_bleu(["a b c d e", "f g h i j"], max_n=1) == pytest.approx(EPSILON / 5)


@pytest.mark.parametrize("max_n", [1, 2, 4])
def test_it_is_the_mean_bleu_by_sacrebleu_with_all_others_as_references(max_n):
    bleu = pytest.importorskip("sacrebleu.metrics").BLEU(
        tokenize="none", max_ngram_order=max_n, smooth_method="floor", smooth_value=EPSILON,
        effective_order=True,
    )  # fmt: skip
    scores = [
        bleu.sentence_score(text, [other for j, other in enumerate(TEXTS) if j != i]).score / 100
        for i, text in enumerate(TEXTS)
    ]
    assert self_bleu(TEXTS, max_n) == pytest.approx(sum(scores) / len(scores))


def test_a_text_that_is_shorter_than_all_others_is_penalised():
    expected = (math.exp(1 - 4 / 2) + 1 / 2) / 2
    assert self_bleu(["a b", "a b c d"], max_n=1) == pytest.approx(expected)


def test_it_is_an_evaluate_module():
    assert metrics.load("self_bleu").compute(predictions=TEXTS) == {"self_bleu": self_bleu(TEXTS)}


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="at least two"):
        self_bleu(["alone"])
    with pytest.raises(ValueError, match="unit"):
        self_bleu(TEXTS, unit="syllable")
