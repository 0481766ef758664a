"""Divergences between n-gram distributions as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from .ngram_distributions import divergences

_DESCRIPTION = """
How far the n-grams of generated texts are from those of real texts: Kullback-Leibler divergence of the
generated from the real distribution, Jensen-Shannon divergence (between 0 and 1) and symmetric relative
entropy (the sum of the divergences both ways), all in bits. The first and the last add `smoothing` to
the count of every n-gram that occurs on either side. They grow with the number of n-grams that are seen
once, so compare models on equally long texts, against the same references.
"""
_CITATION = """
@article{kullback1951information,
  title={On Information and Sufficiency}, author={Kullback, Solomon and Leibler, Richard A.},
  journal={The Annals of Mathematical Statistics}, year={1951}
}
@article{lin1991divergence,
  title={Divergence Measures Based on the Shannon Entropy}, author={Lin, Jianhua},
  journal={IEEE Transactions on Information Theory}, year={1991}
}
@article{jeffreys1946invariant,
  title={An Invariant Form for the Prior Probability in Estimation Problems},
  author={Jeffreys, Harold}, journal={Proceedings of the Royal Society A}, year={1946}
}
"""
_INPUTS = """
Args:
    predictions: Generated texts.
    references: Real texts, as many. Where there are more or fewer of them, give one list of texts on
        each side: compute(predictions=[generated], references=[real]).
    max_n: Longest n-gram; every length from 1 on is measured. Default 3.
    unit: `word` (words and punctuation marks) or `character`. Default `word`.
    smoothing: Added to every count. Default 0.5.

Returns:
    kl_1, js_1, symmetric_1, kl_2, ...: divergences in bits.
"""


class NgramDivergence(evaluate.Metric):
    """Divergences between the n-gram distributions of generated and real texts."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=[
                datasets.Features({"predictions": text, "references": text})
                for text in (datasets.Value("string"), datasets.List(datasets.Value("string")))
            ],
        )

    def _compute(
        self,
        predictions: list[Any],
        references: list[Any],
        max_n: int = 3,
        unit: str = "word",
        smoothing: float = 0.5,
    ) -> dict[str, float]:
        if not isinstance(predictions[0], str):
            predictions, references = predictions[0], references[0]
        results: dict[str, float] = {}
        for n in range(1, max_n + 1):
            found = divergences(predictions, references, n, unit, smoothing)
            results.update({f"{name}_{n}": value for name, value in found.items()})
        return results
