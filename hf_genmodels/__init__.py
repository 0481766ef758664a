"""Compact generative models for Hugging Face: train them on your own data, publish them, use them.

Importing the package is cheap. Its model classes are imported when they are first used, and the
Auto classes of transformers learn about them when transformers' model classes are imported.
"""

from __future__ import annotations

import importlib
from typing import Any

from hf_genmodels.auto import register_when_imported

__version__ = "0.1.0"

_PUBLIC = {
    "GenGPTConfig": "hf_genmodels.models.configuration_gpt",
    "GenGPTModel": "hf_genmodels.models.modeling_gpt",
    "GenGPTForCausalLM": "hf_genmodels.models.modeling_gpt",
    "GenTextDiscriminatorConfig": "hf_genmodels.models.configuration_text_discriminator",
    "GenTextDiscriminator": "hf_genmodels.models.modeling_text_discriminator",
    "GenSeq2SeqConfig": "hf_genmodels.models.configuration_seq2seq",
    "GenSeq2SeqModel": "hf_genmodels.models.modeling_seq2seq",
    "GenSeq2SeqForConditionalGeneration": "hf_genmodels.models.modeling_seq2seq",
    "GenRNNSeq2SeqConfig": "hf_genmodels.models.configuration_rnn_seq2seq",
    "GenRNNSeq2SeqModel": "hf_genmodels.models.modeling_rnn_seq2seq",
    "GenRNNSeq2SeqForConditionalGeneration": "hf_genmodels.models.modeling_rnn_seq2seq",
    "GenGANConfig": "hf_genmodels.models.configuration_gan",
    "GenGANGenerator": "hf_genmodels.models.modeling_gan",
    "GenGANDiscriminator": "hf_genmodels.models.modeling_gan",
    "GenJudgeConfig": "hf_genmodels.models.configuration_judge",
    "GenJudgeForImageClassification": "hf_genmodels.models.modeling_judge",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


register_when_imported()
