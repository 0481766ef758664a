"""The same data and cache as for the other runs, and families as parameters."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest

from tests.training.conftest import (
    data_of,
    image_table,
    no_clean_process,
    own_cache,
    pair_file,
    train_file,
)

__all__ = [
    "by_family",
    "data_of",
    "image_table",
    "no_clean_process",
    "own_cache",
    "pair_file",
    "train_file",
]

# They share all of their code but models and losses with the others.
CROSSINGS = ("pixels", "lm-adversarial", "clips")


def by_family(table: Iterable[str], quick: Collection[str] = ()) -> list[Any]:
    """Return the families of a table as parameters; the crossings of two families are slow ones.

    Args:
        table: Names of the families.
        quick: Crossings that are not.
    """
    slow = set(CROSSINGS) - set(quick)
    return [
        pytest.param(family, marks=pytest.mark.slow if family in slow else ()) for family in table
    ]
