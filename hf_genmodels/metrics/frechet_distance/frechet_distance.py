"""Frechet distance as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from .gaussian_distance import fit_gaussian, gaussian_distance

_DESCRIPTION = """
Frechet distance between the normal distributions that fit the features of generated and of real images.
Over features of an Inception network it is known as FID. Its value depends on the network, on how images
are resized, and on the number of samples (fewer give more), so give these wherever you give the value.
"""
_CITATION = """
@inproceedings{heusel2017gans,
  title={GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium},
  author={Heusel, Martin and Ramsauer, Hubert and Unterthiner, Thomas and Nessler, Bernhard and
    Hochreiter, Sepp},
  booktitle={NeurIPS}, year={2017}, url={https://arxiv.org/abs/1706.08500}
}
"""
_INPUTS = """
Args:
    predictions: Features of generated images, a list of numbers each.
    references: Features of real images, as many. Where there are more or fewer of them, give one matrix
        on each side: compute(predictions=[generated], references=[real]).

Returns:
    frechet_distance, samples (of the predictions), reference_samples.
"""


class FrechetDistance(evaluate.Metric):
    """Frechet distance between features of generated and real images."""

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

    def _compute(self, predictions: list[Any], references: list[Any]) -> dict[str, float]:
        if isinstance(predictions[0][0], list):
            predictions, references = predictions[0], references[0]
        generated, real = fit_gaussian(predictions), fit_gaussian(references)
        return {
            "frechet_distance": gaussian_distance(generated, real),
            "samples": generated.samples,
            "reference_samples": real.samples,
        }
