"""What may come out of a browser: limits of texts and numbers, in words."""

from __future__ import annotations

import math
import secrets
from typing import Any

from hf_genmodels.errors import UserError

MOST_CHARACTERS = 10_000
NEW_SEED = -1
LARGEST_SEED = 2**31 - 1  # the numbers of a browser hold no more than 53 bits


def check_text(name: str, text: Any, most: int = MOST_CHARACTERS, *, empty: bool = False) -> str:
    """Return a text that can be read.

    Args:
        name: What the box is called.
        text: What stood in it.
        most: Most characters.
        empty: Whether it may hold nothing but blanks.

    Raises:
        UserError: If it is empty, too long, or not to be written in UTF-8.
    """
    if text is None:
        text = ""
    if not isinstance(text, str):
        raise UserError(f"{name}: a text was expected, not a {type(text).__name__}.")
    if not empty and not text.strip():
        raise UserError(f"{name} is empty. Write something into it.")
    if len(text) > most:
        raise UserError(f"{name} has {len(text):,} characters, more than {most:,}. Shorten it.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{name} holds half a character, which cannot be read.") from None
    return text


def check_number(name: str, value: Any, low: float, high: float) -> float:
    """Return a number within its limits.

    Args:
        name: What the field is called.
        value: What stood in it.
        low: Smallest number.
        high: Largest number.

    Raises:
        UserError: If it is none, or outside.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        raise UserError(f"{name} is {value!r}. Choose a number from {low:g} to {high:g}.")
    return float(value)


def check_whole(name: str, value: Any, low: int, high: int) -> int:
    """Return a whole number within its limits.

    Args:
        name: What the field is called.
        value: What stood in it.
        low: Smallest number.
        high: Largest number.

    Raises:
        UserError: If it is none, or outside.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value != int(value):
        raise UserError(f"{name} is {value!r}. Choose a whole number from {low} to {high:,}.")
    if not low <= value <= high:
        raise UserError(f"{name} is {int(value)}. Choose a whole number from {low} to {high:,}.")
    return int(value)


def check_seed(value: Any) -> int:
    """Return the seed that stood in its field, or a random one where none was asked for.

    Args:
        value: What stood in it: a seed, or -1 or nothing for a random one.

    Raises:
        UserError: If it is no seed.
    """
    if value in (None, NEW_SEED):
        return secrets.randbelow(LARGEST_SEED)
    return check_whole("Seed", value, 0, LARGEST_SEED)
