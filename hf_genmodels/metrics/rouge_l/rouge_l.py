"""ROUGE-L as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from .common_subsequence import mean_rouge_l

_DESCRIPTION = """
ROUGE-L: the longest common subsequence of a text and its reference, over the length of the reference
(recall), over that of the text (precision), and their F-measure, between 0 and 1. It is the sentence-level
form of Lin 2004 (each text is one sequence, line ends count nothing), averaged over texts; with several
references the best one counts. Text is lower-cased, punctuation left out, words are not stemmed.
"""
_CITATION = """
@inproceedings{lin2004rouge,
  title={ROUGE: A Package for Automatic Evaluation of Summaries}, author={Lin, Chin-Yew},
  booktitle={Text Summarization Branches Out}, year={2004}, url={https://aclanthology.org/W04-1013}
}
"""
_INPUTS = """
Args:
    predictions: Texts.
    references: A reference for each, or a list of references for each.
    unit: `word` or `character`. Default `word`.
    beta: Weight of recall in the F-measure. Default 1.

Returns:
    rouge_l (the F-measure), rouge_l_precision, rouge_l_recall.
"""


class RougeL(evaluate.Metric):
    """ROUGE-L of texts, on sentence level."""

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
        unit: str = "word",
        beta: float = 1.0,
    ) -> dict[str, float]:
        return mean_rouge_l(predictions, references, unit, beta)
