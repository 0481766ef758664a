"""Which number format a device computes fast."""

from __future__ import annotations

import torch
from torch.distributed.fsdp import MixedPrecisionPolicy


def has_fast_bf16(device: torch.device) -> bool:
    """Whether a device multiplies bf16 matrices in hardware.

    CPUs without bf16 units emulate it, several times slower than fp32.

    Args:
        device: Device that would compute.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return torch.backends.mkldnn.is_available() and bool(
            torch.ops.mkldnn._is_mkldnn_bf16_supported()
        )
    return False


def resolve_precision(name: str, device: torch.device) -> str:
    """Return `no`, `bf16` or `fp16` for the user's choice; `auto` is bf16 where it is fast."""
    if name != "auto":
        return name
    return "bf16" if has_fast_bf16(device) else "no"


def sharded_precision(name: str) -> MixedPrecisionPolicy:
    """Return the precision of a fully sharded model.

    Gradients are summed over the processes in fp32, and the loss stays in it; accelerate's own
    policy would round both to 16 bits.

    Args:
        name: `no`, `bf16` or `fp16`.
    """
    if name == "no":
        return MixedPrecisionPolicy()
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[name]
    return MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
