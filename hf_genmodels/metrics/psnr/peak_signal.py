"""Peak signal-to-noise ratio: how far images are from their references, in decibels."""

import numpy as np
import numpy.typing as npt


def psnr(
    images: npt.ArrayLike, references: npt.ArrayLike, peak: float = 255.0
) -> npt.NDArray[np.float64]:
    """Return the ratio of each image: 10 log10(peak^2 / mean squared difference).

    Args:
        images: Shape (N, ...).
        references: The same shape.
        peak: Largest value that a pixel can have.

    Returns:
        Decibels, (N,); infinite where an image is its reference.

    Raises:
        ValueError: If the shapes differ or the peak is not positive.
    """
    ours, theirs = np.asarray(images, np.float64), np.asarray(references, np.float64)
    if ours.shape != theirs.shape or ours.ndim < 2:
        raise ValueError(f"Images of shape {ours.shape} have references of shape {theirs.shape}.")
    if peak <= 0:
        raise ValueError(f"peak={peak} must be positive.")
    errors = np.square(ours - theirs).reshape(len(ours), -1).mean(axis=1)
    with np.errstate(divide="ignore"):
        return 10 * np.log10(peak**2 / errors)
