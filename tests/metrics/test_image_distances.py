import math

import numpy as np
import pytest

from hf_genmodels import metrics
from hf_genmodels.metrics.frechet_distance.gaussian_distance import (
    Gaussian,
    fit_gaussian,
    frechet_distance,
    gaussian_distance,
)
from hf_genmodels.metrics.inception_score.class_confidence import inception_score
from hf_genmodels.metrics.kernel_distance.polynomial_kernel import (
    kernel_distance,
    unbiased_discrepancy,
)
from hf_genmodels.metrics.precision_recall import manifolds
from hf_genmodels.metrics.precision_recall.manifolds import precision_recall


def normal(number, size, shift=0.0, scale=1.0, seed=0):
    return np.random.default_rng(seed).normal(shift, scale, (number, size))


def gaussian(mean, covariance):
    return Gaussian(np.array(mean, dtype=float), np.array(covariance, dtype=float), 100)


def test_frechet_distance_of_known_gaussians_is_the_closed_form():
    first = gaussian([0, 0], np.diag([1.0, 4.0]))
    second = gaussian([3, 4], np.diag([9.0, 1.0]))

    # commuting covariances: |m|^2 + sum of (s1 - s2)^2
    assert gaussian_distance(first, second) == pytest.approx(25 + (1 - 3) ** 2 + (2 - 1) ** 2)
    assert gaussian_distance(second, first) == pytest.approx(gaussian_distance(first, second))
    assert gaussian_distance(first, first) == pytest.approx(0, abs=1e-12)


def test_frechet_distance_of_covariances_that_do_not_commute():
    one, two = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[1.0, -0.5], [-0.5, 2.0]])
    # for 2 x 2 matrices tr sqrt(A B) = sqrt(tr(A B) + 2 sqrt(det(A B)))
    shared = math.sqrt(np.trace(one @ two) + 2 * math.sqrt(np.linalg.det(one @ two)))

    found = gaussian_distance(gaussian([0, 0], one), gaussian([0, 0], two))

    assert found == pytest.approx(3 + 5 - 2 * shared)


def test_features_that_are_always_zero_do_not_disturb_a_frechet_distance():
    rows, others = normal(200, 3), normal(300, 3, shift=1, seed=1)
    wider = [np.hstack([side, np.zeros((len(side), 4))]) for side in (rows, others)]

    assert frechet_distance(*wider) == pytest.approx(frechet_distance(rows, others))
    assert frechet_distance(wider[0], wider[0]) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(rows.astype(np.float32), others) == pytest.approx(
        frechet_distance(rows, others), rel=1e-5
    )


def test_the_gaussian_is_that_of_the_samples():
    rows = normal(50, 3)
    fitted = fit_gaussian(rows)

    np.testing.assert_allclose(fitted.covariance, np.cov(rows, rowvar=False))
    np.testing.assert_allclose(fitted.mean, rows.mean(axis=0))


def test_a_frechet_distance_of_too_few_samples_is_refused():
    with pytest.raises(ValueError, match=r"over 8 features needs more than 8 samples.*kernel"):
        fit_gaussian(normal(8, 8))
    with pytest.raises(ValueError, match="3 and 2 of them"):
        frechet_distance(normal(9, 3), normal(9, 2))
    with pytest.raises(ValueError, match="finite"):
        fit_gaussian(np.full((9, 2), np.nan))


def test_kernel_distance_sums_over_pairs_as_the_formula_says():
    x, y = normal(4, 2), normal(3, 2, shift=1, seed=1)
    kernel = lambda a, b: (a @ b / 2 + 1) ** 3
    xs = [kernel(x[i], x[j]) for i in range(4) for j in range(4) if i != j]
    ys = [kernel(y[i], y[j]) for i in range(3) for j in range(3) if i != j]
    between = [kernel(a, b) for a in x for b in y]
    expected = np.mean(xs) + np.mean(ys) - 2 * np.mean(between)

    assert unbiased_discrepancy(x, y) == pytest.approx(expected)
    smallest = kernel_distance(x, y, subsets=3, subset_size=9)
    assert smallest.subset_size == 3


def test_kernel_distance_is_unbiased_however_few_the_samples():
    values = [
        unbiased_discrepancy(normal(10, 4, seed=2 * i), normal(10, 4, seed=2 * i + 1))
        for i in range(2000)
    ]

    error = np.std(values) / math.sqrt(len(values))
    assert abs(np.mean(values)) < 4 * error
    assert min(values) < 0


def test_kernel_distance_has_an_error_and_a_seed():
    x, y = normal(400, 4), normal(400, 4, shift=0.5, seed=1)
    first = kernel_distance(x, y, subsets=20, subset_size=100, seed=3)

    assert first == kernel_distance(x, y, subsets=20, subset_size=100, seed=3)
    assert first != kernel_distance(x, y, subsets=20, subset_size=100, seed=4)
    assert abs(first.distance - unbiased_discrepancy(x, y)) < 4 * first.standard_error
    whole = kernel_distance(x, y, subset_size=1000)
    assert whole.distance == pytest.approx(unbiased_discrepancy(x, y))
    assert (whole.subsets, math.isnan(whole.standard_error)) == (1, True)


def test_inception_score_of_sure_and_of_unsure_classifiers():
    assert inception_score(np.eye(5)[np.arange(100) % 5], splits=2, seed=None).score == (
        pytest.approx(5)
    )
    assert inception_score(np.full((100, 5), 0.2)).score == pytest.approx(1)
    assert inception_score(np.eye(5)[np.zeros(100, dtype=int)]).score == pytest.approx(1)
    two = np.array([[0.75, 0.25], [0.25, 0.75]])
    expected = math.exp(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert inception_score(two, splits=1).score == pytest.approx(expected)
    assert inception_score(np.eye(5)[np.arange(100) // 20], splits=2, seed=None).deviation == 0


def test_samples_sorted_by_class_are_mixed_before_they_are_split():
    ordered = np.eye(10)[np.arange(1000) // 100]

    assert inception_score(ordered, seed=None).score == pytest.approx(1)
    assert inception_score(ordered).score > 9


def brute_force(generated, real, k):
    """The four numbers by loops over single distances."""
    far = lambda a, b: float(np.linalg.norm(a - b))
    ball = lambda side: [
        sorted(far(a, b) for j, b in enumerate(side) if j != i)[k - 1] for i, a in enumerate(side)
    ]
    real_balls, generated_balls = ball(real), ball(generated)
    inside = np.array(
        [[far(g, r) <= size for r, size in zip(real, real_balls, strict=True)] for g in generated]
    )
    back = np.array(
        [
            [far(r, g) <= size for g, size in zip(generated, generated_balls, strict=True)]
            for r in real
        ]
    )
    return (
        inside.any(axis=1).mean(),
        back.any(axis=1).mean(),
        inside.sum() / (k * len(generated)),
        inside.any(axis=0).mean(),
    )


@pytest.mark.parametrize("chunk", [1, 100, 1 << 22])
@pytest.mark.parametrize("neighbours", [1, 3, 5])
def test_precision_and_recall_agree_with_loops_in_chunks_of_any_size(
    monkeypatch, chunk, neighbours
):
    monkeypatch.setattr(manifolds, "_CHUNK", chunk)
    generated, real = normal(31, 3, shift=0.7), normal(40, 3, shift=-0.2, seed=1)

    found = precision_recall(generated, real, neighbours)

    assert found == pytest.approx(brute_force(generated, real, neighbours))


def test_what_collapse_does_to_precision_and_recall():
    real = normal(500, 4)
    alike = real[:5].repeat(100, axis=0) + normal(500, 4, scale=1e-3, seed=1)

    same = precision_recall(normal(500, 4, seed=2), real)
    collapsed = precision_recall(alike, real)
    far = precision_recall(real + 100, real)

    assert min(same) > 0.9
    assert collapsed.precision == 1
    assert collapsed.recall < 0.05
    assert collapsed.coverage < 0.2
    assert tuple(far) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kernel_distance(normal(9, 2), normal(9, 3)), "same features"),
        (lambda: kernel_distance(normal(1, 2), normal(9, 2)), "at least two"),
        (lambda: kernel_distance(normal(9, 2), normal(9, 2), subsets=0), "subsets=0"),
        (lambda: kernel_distance(np.full((9, 2), np.inf), normal(9, 2)), "finite"),
        (lambda: inception_score(np.ones((9, 2))), "distribution"),
        (lambda: inception_score(np.eye(3), splits=4), "splits=4"),
        (lambda: precision_recall(normal(5, 2), normal(9, 2)), "neighbours=5"),
        (lambda: precision_recall(normal(9, 2), normal(9, 3)), "same features"),
        (lambda: precision_recall(np.full((9, 2), np.nan), normal(9, 2)), "finite"),
    ],
)
def test_what_cannot_be_measured_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_modules_load_by_name_and_compute():
    generated, real = normal(40, 3), normal(50, 3, shift=1, seed=1)
    sides = {"predictions": [generated], "references": [real]}

    fid = metrics.load("frechet_distance").compute(**sides)
    assert fid["frechet_distance"] == pytest.approx(frechet_distance(generated, real))
    assert (fid["samples"], fid["reference_samples"]) == (40, 50)
    rows = metrics.load("frechet_distance").compute(predictions=generated, references=real[:40])
    assert rows["frechet_distance"] == pytest.approx(frechet_distance(generated, real[:40]))

    kid = metrics.load("kernel_distance").compute(**sides, subsets=5, subset_size=20)
    expected = kernel_distance(generated, real, subsets=5, subset_size=20)
    assert kid["kernel_distance"] == pytest.approx(expected.distance)
    assert kid["standard_error"] == pytest.approx(expected.standard_error)

    overlap = metrics.load("precision_recall").compute(**sides, neighbours=3)
    assert overlap["recall"] == precision_recall(generated, real, 3).recall
    assert (overlap["samples"], overlap["reference_samples"]) == (40, 50)

    shares = np.abs(real) / np.abs(real).sum(axis=1, keepdims=True)
    score = metrics.load("inception_score").compute(predictions=shares, splits=2)
    assert score["inception_score"] == pytest.approx(inception_score(shares, 2).score)
    assert score["samples"] == 50
