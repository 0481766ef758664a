"""BLEU as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from .corpus_bleu import corpus_bleu

_DESCRIPTION = """
BLEU: how many of the 1- to 4-grams of translations stand in their references, over a whole corpus, with
a penalty for brevity, between 0 and 100. sacrebleu computes it and says in its signature how: scores
with different signatures must not be compared.
"""
_CITATION = """
@inproceedings{papineni2002bleu,
  title={BLEU: a Method for Automatic Evaluation of Machine Translation},
  author={Papineni, Kishore and Roukos, Salim and Ward, Todd and Zhu, Wei-Jing},
  booktitle={ACL}, year={2002}, url={https://aclanthology.org/P02-1040}
}
@inproceedings{post2018call,
  title={A Call for Clarity in Reporting BLEU Scores}, author={Post, Matt},
  booktitle={WMT}, year={2018}, url={https://aclanthology.org/W18-6319}
}
"""
_INPUTS = """
Args:
    predictions: Translations, not tokenised.
    references: A reference for each, or a list of references for each.
    tokenize: `13a` (the default), `intl`, `zh` for Chinese, `char` or `none`.
    lowercase: Whether case does not matter. Default False.

Returns:
    bleu, precisions (of 1- to 4-grams), brevity_penalty, prediction_length, reference_length, signature.
"""


class Bleu(evaluate.Metric):
    """BLEU of a corpus, by sacrebleu."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=[
                datasets.Features({"predictions": text, "references": references})
                for references in (text, datasets.List(text))
            ],
        )

    def _compute(
        self,
        predictions: list[str],
        references: list[Any],
        tokenize: str = "13a",
        lowercase: bool = False,
    ) -> dict[str, Any]:
        return corpus_bleu(predictions, references, tokenize, lowercase)
