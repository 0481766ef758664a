"""Independent random streams out of a few numbers."""

from __future__ import annotations

import numpy as np

_MASK = (1 << 64) - 1


def mix_seed(*numbers: int) -> int:
    """Mix numbers such as (seed, epoch) into one well-spread 64-bit seed.

    The same numbers give the same seed on every machine and in every process; neighbouring numbers
    give unrelated seeds.

    Args:
        *numbers: Integers; negative ones are allowed.

    Returns:
        An integer in 0 .. 2**64 - 1.
    """
    sequence = np.random.SeedSequence([number & _MASK for number in numbers])
    return int(sequence.generate_state(1, np.uint64)[0])


def mixed_numbers(seed: int, numbers: np.ndarray) -> np.ndarray:
    """Return a well-spread 64-bit number for each of some numbers.

    Args:
        seed: What `mix_seed` returned.
        numbers: Integers, any shape.

    Returns:
        The same shape, uint64. The mixing is that of SplitMix64 (Steele et al. 2014, doi
        10.1145/2660193.2660195).
    """
    mixed = np.asarray(numbers).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = mixed + np.uint64(seed & _MASK)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
