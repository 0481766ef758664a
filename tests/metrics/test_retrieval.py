import numpy as np
import pytest

from hf_genmodels.metrics.retrieval import retrieval_hits, retrieval_precision, unique_texts


def noise(size, seed=0):
    return np.random.default_rng(seed).normal(size=(size, size))


def test_images_that_know_their_texts_are_right_always():
    found = retrieval_precision(noise(150) + 20 * np.eye(150), np.arange(150))

    assert (found.precision, found.low, found.high, found.median_rank) == (1, 1, 1, 1)
    assert (found.candidates, found.images, found.chance) == (100, 150, 0.01)


def test_images_that_know_nothing_are_right_by_chance():
    found = retrieval_precision(noise(2000), np.arange(2000), candidates=10)

    assert found.precision == pytest.approx(0.1, abs=0.03)
    assert found.low < found.precision < found.high
    assert found.high - found.low == pytest.approx(4 * np.sqrt(0.09 / 2000), rel=0.2)
    # A matcher that finds all texts alike is no better than a guess, and no worse.
    alike = retrieval_precision(np.zeros((200, 200)), np.arange(200))
    assert alike.precision == pytest.approx(0.01)
    assert alike.median_rank == 50.5


def test_all_texts_are_candidates_where_there_are_few():
    scores = [[3, 1, 2], [0, 5, 6], [9, 9, 9]]

    found = retrieval_precision(scores, range(3))

    assert retrieval_hits(scores, range(3), candidates=3).tolist() == [1, 0, 1 / 3]
    assert found.precision == pytest.approx((1 + 0 + 1 / 3) / 3)
    assert (found.candidates, found.chance, found.median_rank) == (3, 1 / 3, 2)


def test_equal_texts_are_one_candidate():
    texts, own = unique_texts(["a cat", "a dog", "a cat"])
    scores = [[2, 1], [0, 1], [1, 2]]

    assert texts == ["a cat", "a dog"]
    assert own.tolist() == [0, 1, 0]
    assert retrieval_hits(scores, own, candidates=2).tolist() == [1, 1, 0]


def test_draws_depend_on_the_seed_alone():
    scores, own = noise(300) + 2 * np.eye(300), np.arange(300)
    measured = lambda seed: retrieval_precision(scores, own, seed=seed)

    assert measured(1) == measured(1)
    assert measured(1) != measured(2)
    assert measured(1).precision == retrieval_hits(scores, own, seed=1).mean()


@pytest.mark.parametrize(
    ("scores", "own", "candidates", "message"),
    [
        (np.zeros((2, 3)), [0], 2, "similarities and N columns"),
        (np.eye(2), [0, 1], 1, "candidates=1"),
        (np.eye(2), [0, 1], 3, "the 2 texts"),
    ],
)
def test_what_cannot_be_ranked_is_refused(scores, own, candidates, message):
    with pytest.raises(ValueError, match=message):
        retrieval_hits(scores, own, candidates)
