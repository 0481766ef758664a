"""Self-BLEU as an `evaluate` module."""

import datasets
import evaluate

from .overlap import self_bleu

_DESCRIPTION = """
Self-BLEU: the mean BLEU of each generated text with all other generated texts as references, between 0
and 1. High values mean that the texts say the same things in the same words. It grows with the number
of texts, so compare collections of equally many, equally long texts, and with as many real ones.
"""
_CITATION = """
@inproceedings{zhu2018texygen,
  title={Texygen: A Benchmarking Platform for Text Generation Models},
  author={Zhu, Yaoming and Lu, Sidi and Zheng, Lei and Guo, Jiaxian and Zhang, Weinan and Wang, Jun and Yu, Yong},
  booktitle={SIGIR}, year={2018}, url={https://arxiv.org/abs/1802.01886}
}
"""
_INPUTS = """
Args:
    predictions: Texts, at least two.
    max_n: Longest n-gram. Default 4.
    unit: `word` (words and punctuation marks) or `character`. Default `word`.

Returns:
    self_bleu: between 0 (nothing in common) and 1 (all the same).
"""


class SelfBleu(evaluate.Metric):
    """How much generated texts repeat each other."""

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
        return {"self_bleu": self_bleu(predictions, max_n, unit)}
