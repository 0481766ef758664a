"""The same text and cache as for runs of one process."""

from tests.training.conftest import (
    image_table,
    own_cache,
    pair_file,
    train_file,
    validation_file,
)

__all__ = ["image_table", "own_cache", "pair_file", "train_file", "validation_file"]
