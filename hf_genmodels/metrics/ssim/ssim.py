"""Structural similarity as an `evaluate` module."""

from typing import Any

import datasets
import evaluate
import numpy as np

from .structural_similarity import ssim

_DESCRIPTION = """
Structural similarity of images beside their references: how far brightness, contrast and structure agree in
windows of 11 x 11 pixels, the mean over windows, channels and images. 1 means equal.
"""
_CITATION = """
@article{wang2004image,
  title={Image quality assessment: from error visibility to structural similarity},
  author={Wang, Zhou and Bovik, Alan C. and Sheikh, Hamid R. and Simoncelli, Eero P.},
  journal={IEEE Transactions on Image Processing}, volume={13}, number={4}, year={2004}
}
"""
_INPUTS = """
Args:
    predictions: Images, each a list of rows of numbers, or a list of such lists, one for a channel.
    references: The true images.
    peak: Largest value that a pixel can have. Default 255.

Returns:
    ssim (the mean), samples.
"""


class Ssim(evaluate.Metric):
    """Structural similarity of images."""

    def _info(self) -> evaluate.MetricInfo:
        rows = datasets.List(datasets.List(datasets.Value("float64")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=[
                datasets.Features({"predictions": kind, "references": kind})
                for kind in (rows, datasets.List(rows))
            ],
        )

    def _compute(
        self, predictions: list[Any], references: list[Any], peak: float = 255.0
    ) -> dict[str, float]:
        found = ssim(predictions, references, peak)
        return {"ssim": float(np.mean(found)), "samples": len(found)}
