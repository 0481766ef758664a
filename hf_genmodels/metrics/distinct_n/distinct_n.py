"""Distinct-n as an `evaluate` module."""

import datasets
import evaluate

from .distinct_counts import distinct_n

_DESCRIPTION = """
Distinct-n: the number of distinct n-grams over the number of all n-grams in a collection of generated
texts. A model that repeats itself scores low. The share falls with the length of the collection, so
compare collections of about equal length only.
"""
_CITATION = """
@inproceedings{li2016diversity,
  title={A Diversity-Promoting Objective Function for Neural Conversation Models},
  author={Li, Jiwei and Galley, Michel and Brockett, Chris and Gao, Jianfeng and Dolan, Bill},
  booktitle={NAACL}, year={2016}, url={https://arxiv.org/abs/1510.03055}
}
"""
_INPUTS = """
Args:
    predictions: Texts.
    max_n: Longest n-gram; every length from 1 on is measured. Default 4.
    unit: `word` (words and punctuation marks) or `character`. Default `word`.

Returns:
    distinct_1, distinct_2, ...: shares in (0, 1]; 0 if no text is long enough.
"""


class DistinctN(evaluate.Metric):
    """Share of distinct n-grams in generated text."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Value("string")}),
        )

    def _compute(
        self, predictions: list[str], max_n: int = 4, unit: str = "word"
    ) -> dict[str, float]:
        return {f"distinct_{n}": distinct_n(predictions, n, unit) for n in range(1, max_n + 1)}
