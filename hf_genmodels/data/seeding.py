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
