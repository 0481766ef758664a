import numpy as np
import pytest

from hf_genmodels.metrics.class_scores import class_accuracy
from hf_genmodels.metrics.frechet_distance.gaussian_distance import frechet_distance
from hf_genmodels.metrics.image_features import Features
from hf_genmodels.metrics.image_quality import image_quality, real_against_real
from hf_genmodels.metrics.kernel_distance.polynomial_kernel import kernel_distance

CLASSES = np.arange(600) % 3


def seen(number=600, seed=0, spread=1.0, size=4):
    """Features of three classes, sorted out by a classifier that is right about them."""
    random = np.random.default_rng(seed)
    labels = np.arange(number) % 3
    rows = 5 * np.eye(3, size)[labels] + spread * random.normal(size=(number, size))
    shares = 0.7 * np.eye(3)[labels] + 0.1
    return Features(rows.astype(np.float32), shares.astype(np.float32))


def test_scores_are_those_of_the_functions_and_say_on_how_many_images():
    real, drawn = seen(), seen(300, 1)

    found = image_quality(drawn, real, CLASSES[:300], CLASSES)

    scores = found.scores
    assert scores["fid_300"] == frechet_distance(drawn.features, real.features)
    kid = kernel_distance(drawn.features, real.features, subset_size=150)
    assert scores["kid_300"] == kid.distance
    assert scores["kid_standard_error_300"] == kid.standard_error
    assert scores["accuracy_300"] == class_accuracy(drawn.probabilities, CLASSES[:300]).accuracy
    assert scores["diversity_300"] == pytest.approx(1, abs=0.1)
    assert sorted(scores) == [
        "accuracy_300",
        "class_fid_300",
        "coverage_300",
        "density_300",
        "diversity_300",
        "fid_300",
        "inception_score_300",
        "kid_300",
        "kid_standard_error_300",
        "precision_300",
        "recall_300",
    ]
    assert sorted(found.by_class) == ["accuracy", "class_fid", "diversity"]
    assert scores["class_fid_300"] == pytest.approx(
        np.mean([*found.by_class["class_fid"].values()])
    )
    assert found.left_out == {}


def test_collapse_shows_in_recall_and_diversity_and_not_in_accuracy():
    found = image_quality(seen(300, 1, spread=0.05), seen(), CLASSES[:300], CLASSES).scores

    assert found["accuracy_300"] == 1
    assert found["recall_300"] < 0.1
    assert found["diversity_300"] < 0.1


def test_neighbours_are_looked_for_among_all_classes_of_files_that_are_sorted(monkeypatch):
    real = seen()
    by_class = real.take(np.argsort(CLASSES, kind="stable"))

    found = image_quality(seen(150, 1), by_class).scores

    assert found["recall_150"] > 0.8
    assert found["coverage_150"] > 0.8
    monkeypatch.setattr("hf_genmodels.metrics.image_quality.MOST_COMPARED", 100)
    few = image_quality(seen(150, 1), by_class).scores
    assert "precision_100" in few
    assert "fid_150" in few


def test_what_cannot_be_measured_is_said_and_the_rest_is_measured():
    drawn, real = seen(60, 1, size=64), seen(size=64)

    found = image_quality(Features(drawn.features), real, CLASSES[:60], CLASSES)

    assert "more than 64 samples, 60 are too few" in found.left_out["fid"]
    assert found.left_out["class_fid"] == "No class has enough images on both sides."
    assert {"kid_60", "recall_60", "diversity_60"} <= set(found.scores)
    assert "accuracy_60" not in found.scores


def test_attributes_have_an_accuracy_and_no_inception_score():
    drawn = seen(60, 1)
    both = Features(drawn.features, np.array([[0.9, 0.8, 0.1]], np.float32).repeat(60, axis=0))

    scores = image_quality(both, seen(), np.array([[1, 1, 1]]).repeat(60, axis=0)).scores

    assert scores["accuracy_60"] == pytest.approx(2 / 3)
    assert not any(name.startswith(("inception", "diversity")) for name in scores)


def test_real_against_real_is_the_limit():
    real = seen()

    limit = real_against_real(real, CLASSES).scores

    assert limit == real_against_real(real, CLASSES).scores
    assert limit["fid_300"] < 0.5
    assert limit["accuracy_300"] == 1
    assert limit["recall_300"] > 0.9
    assert limit["diversity_300"] == pytest.approx(1, abs=0.1)
    assert set(real_against_real(Features(real.features)).scores) < set(limit)
