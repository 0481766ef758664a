import numpy as np
import pytest

from hf_genmodels.metrics.grouped import neighbour_agreement, preference


def test_neighbours_are_the_nearest_by_angle_and_not_the_vector_itself():
    vectors = [[1, 0], [9, 1], [0, 1], [0, 5], [1, 1]]
    # 0 and 1 are nearest to each other, 2 and 3 too; 4 is alone in its group and not asked
    assert neighbour_agreement(vectors, [0, 0, 1, 1, 2]) == (1.0, 1 / 4)
    assert neighbour_agreement(vectors, [0, 1, 0, 1, 2]).share == 0.0


def test_random_vectors_agree_as_often_as_chance_says():
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(5), 200)
    share, chance = neighbour_agreement(random.normal(size=(1000, 16)), groups)
    assert chance == pytest.approx(199 / 999)
    assert share == pytest.approx(chance, abs=0.05)


def test_preference_counts_ties_by_their_parts():
    scores = [[3, 1, 2], [0, 0, -1], [1, 2, 3], [5, 5, 5]]
    assert preference(scores) == pytest.approx(((1 + 1 / 2 + 0 + 1 / 3) / 4, 1 / 3))


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="group for each"):
        neighbour_agreement(np.ones((3, 2)), [0, 1])
    with pytest.raises(ValueError, match="No two"):
        neighbour_agreement(np.eye(3), [0, 1, 2])
    with pytest.raises(ValueError, match="two scores"):
        preference([[1.0]])
