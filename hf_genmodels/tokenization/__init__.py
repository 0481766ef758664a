"""Tokenizers: byte-level BPE training, GPT-2's tokenizer, saving, inspection and comparison."""

from hf_genmodels.tokenization.bpe import train_bpe
from hf_genmodels.tokenization.gpt2 import import_gpt2, load_gpt2
from hf_genmodels.tokenization.saving import load_tokenizer, save_tokenizer

__all__ = ["import_gpt2", "load_gpt2", "load_tokenizer", "save_tokenizer", "train_bpe"]
