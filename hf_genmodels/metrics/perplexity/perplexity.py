"""Perplexity and bits per byte as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from .scoring import Score, score_texts

_DESCRIPTION = """
Perplexity of a causal language model: exp of the mean negative log-likelihood of all tokens, each with
the same weight, whichever text it stands in. Bits per byte divide by UTF-8 bytes instead of tokens and
so compare models with different tokenizers. Either a model scores texts, or sums that were measured
elsewhere are put together.
"""
_CITATION = """
@article{jelinek1977perplexity,
  title={Perplexity: a measure of the difficulty of speech recognition tasks},
  author={Jelinek, Fred and Mercer, Robert L. and Bahl, Lalit R. and Baker, James K.},
  journal={The Journal of the Acoustical Society of America}, year={1977}
}
"""
_INPUTS = """
Args:
    predictions: Texts, together with
        model: a model, or a folder that AutoModelForCausalLM loads without remote code,
        tokenizer: its tokenizer (not needed with a folder),
        block_size, stride, batch_size: see scoring.score_texts;
        or sums of negative log-likelihoods in nats that were measured elsewhere, together with
        token_counts: how many tokens each sum holds,
        byte_counts: how many UTF-8 bytes of text.

Returns:
    loss (nats per token), perplexity, bits_per_byte, num_tokens, num_bytes.
"""


class Perplexity(evaluate.Metric):
    """Perplexity and bits per byte, every token with the same weight."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=[
                datasets.Features({"predictions": datasets.Value("string")}),
                datasets.Features({"predictions": datasets.Value("float64")}),
            ],
        )

    def _compute(
        self,
        predictions: list[Any],
        token_counts: list[int] | None = None,
        byte_counts: list[int] | None = None,
        model: Any = None,
        tokenizer: Any = None,
        **options: Any,
    ) -> dict[str, float]:
        if not isinstance(predictions[0], str):
            if token_counts is None or byte_counts is None:
                raise ValueError("Sums need token_counts and byte_counts, one for each.")
            return Score(sum(predictions), sum(token_counts), sum(byte_counts)).to_dict()
        if model is None:
            raise ValueError("Texts need a model: compute(predictions=[...], model=folder).")
        if isinstance(model, str):
            model, tokenizer = load(model)
        return score_texts(model, tokenizer, predictions, **options).to_dict()


def load(folder: str) -> tuple[Any, Any]:
    """Load a model in eval mode, and its tokenizer, without running code from the folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=False, use_safetensors=True
    )
    return model.eval(), AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
