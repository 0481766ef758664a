"""Frechet distance between the features of two collections of images."""
