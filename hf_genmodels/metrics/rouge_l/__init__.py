"""ROUGE-L: the longest common subsequence of a text and its reference."""
