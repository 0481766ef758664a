"""Perplexity and bits per byte of a causal language model on given text."""
