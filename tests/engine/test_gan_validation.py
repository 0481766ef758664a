import numpy as np

from hf_genmodels.engine.gan_validation import mixed_places


def test_files_sorted_by_class_are_mixed_and_every_image_has_its_turn():
    classes = np.repeat(np.arange(10), 100)

    first = mixed_places(classes, np.arange(200))

    assert np.bincount(classes[first], minlength=10).min() > 5
    assert sorted(mixed_places(classes, np.arange(1000))) == list(range(1000))
    assert mixed_places(classes, np.array([3, 1003]))[0] == first[3]
    assert mixed_places(classes, np.array([1003]))[0] == first[3]
