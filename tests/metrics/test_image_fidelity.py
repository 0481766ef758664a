"""PSNR and SSIM against their definitions, written out pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hf_genmodels import metrics
from hf_genmodels.metrics.psnr.peak_signal import psnr
from hf_genmodels.metrics.ssim.structural_similarity import ssim


def pictures(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def ssim_by_hand(image: np.ndarray, reference: np.ndarray, window: int, peak: float) -> float:
    """Wang et al. 2004, equation 13, window by window."""
    reach = window // 2
    weights = [
        [math.exp(-(r * r + c * c) / (2 * 1.5**2)) for c in range(-reach, reach + 1)]
        for r in range(-reach, reach + 1)
    ]
    w = np.array(weights) / np.sum(weights)
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    found = []
    for top in range(image.shape[0] - window + 1):
        for left in range(image.shape[1] - window + 1):
            x = image[top : top + window, left : left + window].astype(float)
            y = reference[top : top + window, left : left + window].astype(float)
            mx, my = (w * x).sum(), (w * y).sum()
            vx, vy = (w * (x - mx) ** 2).sum(), (w * (y - my) ** 2).sum()
            both = (w * (x - mx) * (y - my)).sum()
            found.append(
                (2 * mx * my + c1) * (2 * both + c2)
                / ((mx * mx + my * my + c1) * (vx + vy + c2))
            )  # fmt: skip
    return float(np.mean(found))


@pytest.mark.parametrize(("side", "window"), [(14, 11), (16, 11), (8, 7), (5, 5)])
def test_ssim_is_its_definition(side: int, window: int):
    ours, theirs = pictures(3, side, side), pictures(3, side, side, seed=1)
    theirs = (0.6 * ours + 0.4 * theirs).astype(np.uint8)
    expected = [ssim_by_hand(a, b, window, 255) for a, b in zip(ours, theirs, strict=True)]
    assert ssim(ours, theirs) == pytest.approx(expected)
    channels = np.stack([ours, theirs], axis=1)
    swapped = np.stack([theirs, ours], axis=1)
    assert ssim(channels, swapped) == pytest.approx(expected)


def test_equal_images_are_alike_and_infinitely_near():
    ours = pictures(2, 3, 12, 12)
    assert ssim(ours, ours) == pytest.approx([1, 1])
    assert psnr(ours, ours).tolist() == [math.inf, math.inf]


def test_psnr_is_its_definition():
    ours = np.zeros((2, 4, 4), np.uint8)
    theirs = ours.copy()
    theirs[0, 0, 0] = 16  # mean square 16
    theirs[1] = 255
    assert psnr(ours, theirs) == pytest.approx([10 * math.log10(255**2 / 16), 0])
    assert psnr(ours / 255, theirs / 255, peak=1) == pytest.approx(psnr(ours, theirs))


def test_noise_lowers_both():
    ours = pictures(4, 16, 16)
    noise = np.random.default_rng(2).normal(size=ours.shape)
    weak, strong = (np.clip(ours + scale * noise, 0, 255) for scale in (4, 30))
    assert (ssim(weak, ours) > ssim(strong, ours)).all()
    assert (psnr(weak, ours) > psnr(strong, ours)).all()


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_images_without_their_references_are_refused(measure):
    with pytest.raises(ValueError, match="references of shape"):
        measure(pictures(2, 8, 8), pictures(2, 8, 9))
    with pytest.raises(ValueError, match="peak=0"):
        measure(pictures(2, 8, 8), pictures(2, 8, 8), 0)


@pytest.mark.parametrize(("name", "measure"), [("psnr", psnr), ("ssim", ssim)])
def test_the_modules_of_evaluate_say_the_same(name, measure):
    ours, theirs = pictures(3, 12, 12), pictures(3, 12, 12, seed=1)
    found = metrics.load(name).compute(predictions=ours.tolist(), references=theirs.tolist())
    assert found == {name: pytest.approx(measure(ours, theirs).mean()), "samples": 3}
