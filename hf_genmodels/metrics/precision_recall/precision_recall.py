"""Precision, recall, density and coverage as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from .manifolds import precision_recall

_DESCRIPTION = """
Over features of generated and of real images: which share of the generated ones lies among the real ones
(precision), which share of the real ones lies among the generated ones (recall), and forms of both that
suffer less from outliers (density and coverage). A generator that draws few good images over and over
has high precision and low recall. Compare values only for the same network and numbers of samples.
"""
_CITATION = """
@inproceedings{kynkaanniemi2019improved,
  title={Improved Precision and Recall Metric for Assessing Generative Models},
  author={Kynk{\\"a}{\\"a}nniemi, Tuomas and Karras, Tero and Laine, Samuli and Lehtinen, Jaakko and
    Aila, Timo},
  booktitle={NeurIPS}, year={2019}, url={https://arxiv.org/abs/1904.06991}
}
@inproceedings{naeem2020reliable,
  title={Reliable Fidelity and Diversity Metrics for Generative Models},
  author={Naeem, Muhammad Ferjad and Oh, Seong Joon and Uh, Youngjung and Choi, Yunjey and
    Yoo, Jaejun},
  booktitle={ICML}, year={2020}, url={https://arxiv.org/abs/2002.09797}
}
"""
_INPUTS = """
Args:
    predictions: Features of generated images, a list of numbers each.
    references: Features of real images, as many. Where there are more or fewer of them, give one matrix
        on each side: compute(predictions=[generated], references=[real]).
    neighbours: A ball reaches to the neighbour of this number. Default 5.

Returns:
    precision, recall, density, coverage, samples, reference_samples.
"""


class PrecisionRecall(evaluate.Metric):
    """How generated and real images overlap."""

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
        self, predictions: list[Any], references: list[Any], neighbours: int = 5
    ) -> dict[str, float]:
        if isinstance(predictions[0][0], list):
            predictions, references = predictions[0], references[0]
        found = precision_recall(predictions, references, neighbours)
        return {
            **found._asdict(),
            "samples": len(predictions),
            "reference_samples": len(references),
        }
