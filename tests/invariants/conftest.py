"""The same data and cache as for the other runs."""

from tests.training.conftest import (
    data_of,
    image_table,
    no_clean_process,
    own_cache,
    pair_file,
    train_file,
)

__all__ = [
    "data_of",
    "image_table",
    "no_clean_process",
    "own_cache",
    "pair_file",
    "train_file",
]
