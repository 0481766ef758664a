"""Structural similarity (Wang, Bovik, Sheikh and Simoncelli 2004, doi 10.1109/TIP.2003.819861).

Letters: N images, C channels, H x W pixels, K pixels of the window.
"""

import numpy as np
import numpy.typing as npt

WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03


def ssim(
    images: npt.ArrayLike, references: npt.ArrayLike, peak: float = 255.0
) -> npt.NDArray[np.float64]:
    """Return how alike the structure of each image and of its reference is.

    Means, variances and covariance are weighted by a Gaussian of 11 x 11 pixels (of a smaller image by one
    that fits) with standard deviation 1.5, wherever it lies inside the image, and without correction of
    the variances for their number; channels count alike.

    Args:
        images: Shape (N, H, W) or (N, C, H, W).
        references: The same shape.
        peak: Largest value that a pixel can have.

    Returns:
        The mean over each image, (N,), at most 1: the images are equal.

    Raises:
        ValueError: If the shapes differ or the peak is not positive.
    """
    ours, theirs = np.asarray(images, np.float64), np.asarray(references, np.float64)
    if ours.shape != theirs.shape or ours.ndim not in (3, 4):
        raise ValueError(f"Images of shape {ours.shape} have references of shape {theirs.shape}.")
    if peak <= 0:
        raise ValueError(f"peak={peak} must be positive.")
    kernel = _kernel(min(WINDOW, *ours.shape[-2:]))
    mean, other = _blurred(ours, kernel), _blurred(theirs, kernel)
    variance = _blurred(ours * ours, kernel) - mean**2
    other_variance = _blurred(theirs * theirs, kernel) - other**2
    covariance = _blurred(ours * theirs, kernel) - mean * other
    first, second = (K1 * peak) ** 2, (K2 * peak) ** 2
    likeness = (2 * mean * other + first) * (2 * covariance + second)
    likeness /= (mean**2 + other**2 + first) * (variance + other_variance + second)
    return likeness.reshape(len(ours), -1).mean(axis=1)


def _kernel(size: int) -> npt.NDArray[np.float64]:
    """Return the weights of a window along one axis, (K,); K is odd."""
    reach = (size - 1) // 2
    weights = np.exp(-np.square(np.arange(-reach, reach + 1)) / (2 * SIGMA**2))
    return weights / weights.sum()


def _blurred(
    images: npt.NDArray[np.float64], kernel: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return weighted means over every window of (..., H, W) that lies inside."""
    for axis in (-2, -1):
        windows = np.lib.stride_tricks.sliding_window_view(images, len(kernel), axis=axis)
        images = windows @ kernel
    return images
