"""Memory that matrix kernels keep for themselves."""

from __future__ import annotations

import os

PRIMITIVE_CACHE = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
KEPT_PRIMITIVES = 64  # more than one step needs; the default of 1024 takes up to 0.5 GB


def bound_kernel_memory() -> None:
    """Let oneDNN forget compiled products that no batch will use again.

    It compiles one for each shape, and batches of pairs have ever new ones. Works until the process's
    first product in oneDNN; what the user has set in the environment stays.
    """
    os.environ.setdefault(PRIMITIVE_CACHE, str(KEPT_PRIMITIVES))
