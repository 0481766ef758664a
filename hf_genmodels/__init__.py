"""Compact generative models that train on your own data and publish to the Hugging Face Hub."""

__version__ = "0.1.0"
