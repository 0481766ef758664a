import numpy as np
import pytest

from hf_genmodels.metrics.retrieval import retrieval_precision


def noise(size, seed=0):
    return np.random.default_rng(seed).normal(size=(size, size))


def test_images_that_know_their_captions_are_right_always():
    found = retrieval_precision(noise(150) + 20 * np.eye(150))

    assert (found.precision, found.low, found.high, found.median_rank) == (1, 1, 1, 1)
    assert (found.candidates, found.images, found.chance) == (100, 150, 0.01)


def test_images_that_know_nothing_are_right_by_chance():
    found = retrieval_precision(noise(2000), candidates=10)

    assert found.precision == pytest.approx(0.1, abs=0.03)
    assert found.low < found.precision < found.high
    assert found.high - found.low == pytest.approx(4 * np.sqrt(0.09 / 2000), rel=0.2)
    # A matcher that finds all captions alike is no better than a guess, and no worse.
    alike = retrieval_precision(np.zeros((200, 200)))
    assert alike.precision == pytest.approx(0.01)
    assert alike.median_rank == 50.5


def test_all_captions_are_candidates_where_there_are_few():
    scores = [[3, 1, 2], [0, 5, 6], [9, 9, 9]]

    found = retrieval_precision(scores)

    assert found.precision == pytest.approx((1 + 0 + 1 / 3) / 3)
    assert (found.candidates, found.chance, found.median_rank) == (3, 1 / 3, 2)


def test_equal_captions_do_not_compete():
    scores = np.array([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]])

    assert retrieval_precision(scores).precision == pytest.approx(1 / 3)
    known = retrieval_precision(scores, ["a cat", "a cat", "a dog"])
    assert (known.precision, known.candidates) == (1, 2)


def test_equal_captions_count_once_among_the_candidates():
    captions = ["own", *["other"] * 50, *"abc"]
    scores = np.zeros((54, 54)) + np.arange(54)[:, None]

    assert retrieval_precision(scores, captions).candidates == 5
    assert retrieval_precision(scores, captions).precision == pytest.approx(1 / 5)


def test_draws_depend_on_the_seed_alone():
    scores = noise(300) + 2 * np.eye(300)

    assert retrieval_precision(scores, seed=1) == retrieval_precision(scores, seed=1)
    assert retrieval_precision(scores, seed=1) != retrieval_precision(scores, seed=2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: retrieval_precision(np.zeros((2, 3))), "every image to every caption"),
        (lambda: retrieval_precision(np.eye(2), candidates=1), "candidates=1"),
        (lambda: retrieval_precision(np.eye(2), ["a"]), "1 for 2 images"),
        (lambda: retrieval_precision(np.eye(2), ["a", "a"]), "two different captions"),
    ],
)
def test_what_cannot_be_ranked_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
