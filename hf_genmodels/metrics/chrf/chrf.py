"""ChrF as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from .corpus_chrf import corpus_chrf

_DESCRIPTION = """
chrF: F-score of the n-grams of 1 to 6 characters that translations share with their references, recall
counting twice as much as precision, between 0 and 100. It needs no tokenizer, gives credit for parts of
words and so suits languages with much inflection and languages without blanks. sacrebleu computes it and
says in its signature how: scores with different signatures must not be compared.
"""
_CITATION = """
@inproceedings{popovic2015chrf,
  title={chrF: character n-gram F-score for automatic MT evaluation}, author={Popovic, Maja},
  booktitle={WMT}, year={2015}, url={https://aclanthology.org/W15-3049}
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
    word_order: 0 is chrF (the default), 2 is chrF++, which counts 1- and 2-grams of words too.
    lowercase: Whether case does not matter. Default False.

Returns:
    chrf, signature.
"""


class Chrf(evaluate.Metric):
    """ChrF of a corpus, by sacrebleu."""

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
        word_order: int = 0,
        lowercase: bool = False,
    ) -> dict[str, Any]:
        return corpus_chrf(predictions, references, word_order, lowercase)
