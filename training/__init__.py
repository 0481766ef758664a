"""The training scripts: one readable loop for each family of models."""
