"""The form of the Inception score as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from .class_confidence import inception_score

_DESCRIPTION = """
The exponential of the mean relative entropy between the classes that a classifier sees in an image and
those that it sees in all: between 1 and the number of classes. With an Inception network it is the
Inception score; values of different classifiers must not be compared. It does not notice that all images
of a class are alike.
"""
_CITATION = """
@inproceedings{salimans2016improved,
  title={Improved Techniques for Training GANs},
  author={Salimans, Tim and Goodfellow, Ian and Zaremba, Wojciech and Cheung, Vicki and
    Radford, Alec and Chen, Xi},
  booktitle={NeurIPS}, year={2016}, url={https://arxiv.org/abs/1606.03498}
}
"""
_INPUTS = """
Args:
    predictions: Probabilities of the classes for each generated image.
    splits: Parts that are scored one by one. Default 10.
    seed: Seed of the order before splitting. Default 0.

Returns:
    inception_score, standard_deviation (over the parts), samples.
"""


class InceptionScore(evaluate.Metric):
    """How sure and how varied a classifier finds images."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.List(datasets.Value("float64"))}),
        )

    def _compute(self, predictions: list[Any], splits: int = 10, seed: int = 0) -> dict[str, float]:
        found = inception_score(predictions, splits, seed)
        return {
            "inception_score": found.score,
            "standard_deviation": found.deviation,
            "samples": len(predictions),
        }
