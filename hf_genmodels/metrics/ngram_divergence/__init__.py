"""Divergences between the n-gram distributions of two collections of texts."""
