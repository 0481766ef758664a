"""Kernel distance as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from .polynomial_kernel import kernel_distance

_DESCRIPTION = """
Squared maximum mean discrepancy between the features of generated and of real images, with the kernel
(x y / D + 1)^3, as the mean over random subsets. Over features of an Inception network it is known as
KID. It is unbiased: its expectation does not depend on the number of samples, and is 0 for equal
distributions, so that single values may be negative.
"""
_CITATION = """
@inproceedings{binkowski2018demystifying,
  title={Demystifying MMD GANs},
  author={Bi{\\'n}kowski, Miko{\\l}aj and Sutherland, Danica J. and Arbel, Michael and Gretton, Arthur},
  booktitle={ICLR}, year={2018}, url={https://arxiv.org/abs/1801.01401}
}
"""
_INPUTS = """
Args:
    predictions: Features of generated images, a list of numbers each.
    references: Features of real images, as many. Where there are more or fewer of them, give one matrix
        on each side: compute(predictions=[generated], references=[real]).
    subsets: How many subsets to draw. Default 100.
    subset_size: Samples of each. Default 1000.
    seed: Seed of the draws. Default 0.

Returns:
    kernel_distance, standard_error (nan for one subset), subsets, subset_size.
"""


class KernelDistance(evaluate.Metric):
    """Kernel distance between features of generated and real images."""

    def _info(self) -> evaluate.MetricInfo:
        row = datasets.List(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=[
                datasets.Features({"predictions": kind, "references": kind})
                for kind in (row, datasets.List(row))
            ],
        )

    def _compute(
        self,
        predictions: list[Any],
        references: list[Any],
        subsets: int = 100,
        subset_size: int = 1000,
        seed: int = 0,
    ) -> dict[str, float]:
        if isinstance(predictions[0][0], list):
            predictions, references = predictions[0], references[0]
        found = kernel_distance(predictions, references, subsets, subset_size, seed)
        return {
            "kernel_distance": found.distance,
            "standard_error": found.standard_error,
            "subsets": found.subsets,
            "subset_size": found.subset_size,
        }
