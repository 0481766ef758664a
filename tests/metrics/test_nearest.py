import numpy as np
import pytest

from hf_genmodels.metrics import nearest
from hf_genmodels.metrics.nearest import copying, nearest_neighbours


def normal(number, size, seed):
    return np.random.default_rng(seed).normal(size=(number, size))


@pytest.mark.parametrize("chunk", [1, 100, 1 << 22])
def test_neighbours_are_those_of_a_search_through_all(monkeypatch, chunk):
    monkeypatch.setattr(nearest, "_CHUNK", chunk)
    rows, training = normal(9, 3, 0), normal(40, 3, 1) + 5
    distances = np.linalg.norm(rows[:, None] - training, axis=-1)

    found = nearest_neighbours(rows, training, count=3)

    assert found.indices.tolist() == distances.argsort(axis=1)[:, :3].tolist()
    np.testing.assert_allclose(found.distances, np.sort(distances, axis=1)[:, :3])


def test_images_are_compared_pixel_by_pixel_and_copies_are_at_distance_0():
    training = np.random.default_rng(0).integers(0, 256, (50, 3, 4, 4), dtype=np.uint8)

    found = nearest_neighbours(training[[7, 3]], training)

    assert found.indices.tolist() == [[7], [3]]
    assert found.distances.tolist() == [[0], [0]]


def test_training_images_are_read_from_their_file(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 1, 4, 4), dtype=np.uint8)
    stored = np.memmap(tmp_path / "images", np.uint8, "w+", shape=pixels.shape)
    stored[:] = pixels

    assert nearest_neighbours(pixels[[7, 3]], stored).indices.tolist() == [[7], [3]]


def test_copying_tells_copies_from_new_images():
    training, held_out = normal(500, 6, 0), normal(500, 6, 1)

    new = copying(normal(500, 6, 2), held_out, training)
    copies = copying(training[:300] + normal(300, 6, 3) / 100, held_out, training)

    assert new.ratio == pytest.approx(1, abs=0.1)
    assert new.share < 0.05
    assert copies.ratio < 0.05
    assert copies.share == 1
    assert np.isnan(copying(held_out, training, training).ratio)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match=r"not \(2, 3\) and \(2, 2\)"):
        nearest_neighbours(np.ones((2, 3)), np.ones((2, 2)))
    with pytest.raises(ValueError, match="count=3"):
        nearest_neighbours(np.ones((2, 3)), np.ones((2, 3)), count=3)
    with pytest.raises(ValueError, match="at least one image"):
        nearest_neighbours(np.ones((0, 3)), np.ones((2, 3)))
