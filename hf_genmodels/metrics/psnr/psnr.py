"""Peak signal-to-noise ratio as an `evaluate` module."""

from typing import Any

import datasets
import evaluate
import numpy as np

from .peak_signal import psnr

_DESCRIPTION = """
Peak signal-to-noise ratio of images beside their references, in decibels: 10 log10(peak^2 / mean squared
difference), the mean over images. Higher is nearer; it says little about how natural an image looks.
"""
_CITATION = """
@article{huynh2008scope,
  title={Scope of validity of {PSNR} in image/video quality assessment},
  author={Huynh-Thu, Quan and Ghanbari, Mohammed},
  journal={Electronics Letters}, year={2008}
}
"""
_INPUTS = """
Args:
    predictions: Images, each a list of rows of numbers; of colours, the channels one above the other.
    references: The true images.
    peak: Largest value that a pixel can have. Default 255.

Returns:
    psnr (the mean), samples.
"""


class Psnr(evaluate.Metric):
    """Peak signal-to-noise ratio of images."""

    def _info(self) -> evaluate.MetricInfo:
        rows = datasets.List(datasets.List(datasets.Value("float64")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": rows, "references": rows}),
        )

    def _compute(
        self, predictions: list[Any], references: list[Any], peak: float = 255.0
    ) -> dict[str, float]:
        found = psnr(predictions, references, peak)
        return {"psnr": float(np.mean(found)), "samples": len(found)}
