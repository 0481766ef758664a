import numpy as np
import pytest

from hf_genmodels.metrics.class_scores import (
    class_accuracy,
    diversity_by_class,
    frechet_by_class,
    spread,
)
from hf_genmodels.metrics.frechet_distance.gaussian_distance import frechet_distance


def normal(number, size, shift=0.0, scale=1.0, seed=0):
    return np.random.default_rng(seed).normal(shift, scale, (number, size))


def test_accuracy_counts_what_was_asked_for():
    seen = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.6, 0.4, 0.0], [0.9, 0.1, 0.0]]

    found = class_accuracy(seen, [0, 1, 1, 0])

    assert found.accuracy == 3 / 4
    np.testing.assert_array_equal(found.by_class, [1, 1 / 2, np.nan])


def test_attributes_are_right_one_by_one():
    found = class_accuracy([[0.9, 0.4], [0.2, 0.6]], [[1, 1], [0, 1]])

    assert found.accuracy == 3 / 4
    assert found.by_class.tolist() == [1, 1 / 2]


def test_spread_is_the_mean_over_all_pairs():
    rows = normal(20, 3)
    pairs = [np.square(a - b).sum() for i, a in enumerate(rows) for b in rows[:i]]

    assert spread(rows) == pytest.approx(np.sqrt(np.mean(pairs)))
    assert spread(np.ones((5, 2))) == 0


def test_diversity_is_relative_to_real_images_of_the_class():
    real = np.concatenate([normal(500, 4, seed=1), normal(500, 4, shift=9, scale=3, seed=2)])
    classes = np.repeat([0, 1], 500)
    half = np.concatenate([normal(400, 4, seed=3), normal(400, 4, shift=9, scale=1.5, seed=4)])

    found = diversity_by_class(half, np.repeat([0, 1], 400), real, classes)

    assert found == {0: pytest.approx(1, abs=0.05), 1: pytest.approx(0.5, abs=0.03)}
    alike = diversity_by_class(np.ones((4, 4)), [0, 0, 0, 1], real, classes)
    assert alike == {0: 0}  # one image of class 1 has no diversity
    assert diversity_by_class(half, np.repeat([0, 1], 400), real * 0, classes) == {}


def test_distances_by_class_are_those_of_its_images():
    real, drawn = normal(100, 3, seed=1), normal(60, 3, shift=1, seed=2)
    classes, asked = np.arange(100) % 2, np.arange(60) % 2

    found = frechet_by_class(drawn, asked, real, classes)

    assert found[1] == pytest.approx(frechet_distance(drawn[1::2], real[1::2]))
    assert sorted(found) == [0, 1]
    few = frechet_by_class(drawn, np.where(np.arange(60) < 3, 1, 0), real, classes)
    assert sorted(few) == [0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: class_accuracy([[1, 0]], [0, 1]), "label for each row"),
        (lambda: spread([[1, 2]]), "at least two images"),
        (lambda: frechet_by_class(normal(9, 2), [0], normal(9, 2), [0] * 9), "class for each row"),
        (
            lambda: diversity_by_class(normal(9, 2), [0] * 9, normal(9, 3), [0] * 9),
            "have 2 and 3",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
