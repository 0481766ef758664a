"""Structural similarity of images."""
