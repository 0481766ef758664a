"""What happens between frames: fades, flicker, noise and standstill are told apart."""

import numpy as np
import pytest

from hf_genmodels.metrics.temporal import Motion, motion, smoothness


def of_levels(levels):
    """A clip whose frames have one level each."""
    return np.broadcast_to(
        np.asarray(levels, np.uint8)[None, :, None, None, None], (1, len(levels), 1, 4, 4)
    )


def test_a_steady_fade_has_no_jerk_a_flicker_the_most():
    fade, flicker = motion(of_levels([0, 10, 20, 30])), motion(of_levels([0, 200, 0, 200]))

    assert fade.change == pytest.approx([10 / 255])
    assert fade.jerk == pytest.approx([0])
    assert flicker.change == pytest.approx([200 / 255])
    assert flicker.jerk == pytest.approx([2])


def test_frames_that_have_nothing_to_do_with_each_other_lie_between():
    clips = np.random.default_rng(0).integers(256, size=(8, 16, 1, 16, 16), dtype=np.uint8)
    found = motion(clips)
    assert found.jerk == pytest.approx(np.full(8, 1.7), abs=0.1)
    assert found.change == pytest.approx(np.full(8, 1 / 3), abs=0.02)


def test_a_standing_clip_neither_changes_nor_jerks():
    found = motion(of_levels([7, 7, 7]))
    assert (found.change == 0).all()
    assert (found.jerk == 0).all()


def test_many_clips_are_measured_in_parts_as_one_by_one(monkeypatch):
    clips = np.random.default_rng(0).integers(256, size=(7, 4, 1, 5, 5), dtype=np.uint8)
    whole = motion(clips)
    monkeypatch.setattr("hf_genmodels.metrics.temporal.CLIPS_AT_ONCE", 2)
    in_parts = motion(clips)
    np.testing.assert_allclose(in_parts.change, whole.change)
    np.testing.assert_allclose(in_parts.jerk, whole.jerk)


def test_generated_clips_are_compared_with_real_ones():
    real = Motion(np.array([0.1, 0.2, 0.3]), np.array([1.0, 1.0, 1.0]))
    generated = Motion(np.array([0.2, 0.2, 0.0, 0.01]), np.array([2.0, 2.0, 0.0, 0.0]))

    found = smoothness(generated, real)

    assert found.change == pytest.approx(0.1025 / 0.2)
    assert found.jerk == pytest.approx(1)
    assert found.frozen == 0.5


@pytest.mark.parametrize("shape", [(2, 2, 1, 4, 4), (2, 3, 4, 4)])
def test_what_is_no_clip_is_refused(shape):
    with pytest.raises(ValueError, match="at least 3 frames"):
        motion(np.zeros(shape, np.uint8))


def test_real_clips_that_stand_still_measure_nothing():
    still = motion(of_levels([7, 7, 7]))
    with pytest.raises(ValueError, match="do not move"):
        smoothness(still, still)
