"""What a bug report needs to know about a machine: `genmodels env`."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from hf_genmodels.errors import UserError

CPU_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd")
VARIABLES = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "HF_GENMODELS_CACHE")
GIB = 1 << 30


def describe_environment() -> dict[str, str]:
    """Return facts about the system, Python, torch and the libraries, in words.

    Nothing private is in it: no names of users or hosts, no tokens, no paths.
    """
    return {
        "hf_genmodels": metadata.version("hf_genmodels"),
        "Python": f"{platform.python_version()} ({platform.python_implementation()})",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "CPU": _cpu(),
        "memory": _memory(),
        "free disk here": f"{shutil.disk_usage('.').free / GIB:.1f} GiB",
        **_torch(),
        **_libraries(),
        "variables": " ".join(
            f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ
        )
        or "none set",
    }


def format_environment(facts: Mapping[str, str]) -> str:
    """Return facts as a list in Markdown, ready to paste."""
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def describe_hardware() -> str:
    """Return in words what computes here: the accelerators, or the processor and its cores."""
    found = _accelerators()
    return ", ".join(_cpu().split(", ")[:2]) if found == "none" else found


def _cpu() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return f"{platform.processor() or platform.machine()}, {cores} cores"
    text = info.read_text(encoding="utf-8", errors="replace")
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    known = set(flags[1].split()) if flags else set()
    features = [feature for feature in CPU_FEATURES if feature in known]
    described = name[1].strip() if name else platform.machine()
    return f"{described}, {cores} cores, {' '.join(features) or 'no vector features found'}"


def _memory() -> str:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return "unknown"
    return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / GIB:.1f} GiB"


def _torch() -> dict[str, str]:
    import torch

    build = [f"CUDA {torch.version.cuda}"] if torch.version.cuda else []
    build += [f"ROCm {torch.version.hip}"] if torch.version.hip else []
    capability = torch.backends.cpu.get_cpu_capability()
    return {
        "torch": f"{torch.__version__}, built for {', '.join(build) or 'CPU'}",
        "torch on the CPU": f"{torch.get_num_threads()} threads, {capability}, "
        f"MKL {_yes(torch.backends.mkl.is_available())}, "
        f"oneDNN {_yes(torch.backends.mkldnn.is_available())}, "
        f"bf16 in hardware {_yes(_has_bf16())}, "
        f"int8 {' '.join(torch.backends.quantized.supported_engines)}",
        "accelerators": _accelerators(),
    }


def _has_bf16() -> bool:
    import torch

    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _accelerators() -> str:
    import torch

    if torch.cuda.is_available():
        properties = [
            torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())
        ]
        return ", ".join(f"{one.name} {one.total_memory / GIB:.0f} GiB" for one in properties)
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return "none" if accelerator is None else accelerator.type


def _libraries() -> dict[str, str]:
    """Return the versions of what this package requires, and of its extras."""
    groups: dict[str, list[str]] = {}
    for requirement in metadata.requires("hf_genmodels") or []:
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"](\w+)['\"]", requirement)
        group = f"extra {extra[1]}" if extra else "libraries"
        if group != "extra dev" and name != "torch":
            groups.setdefault(group, []).append(f"{name} {_version(name)}")
    return {group: ", ".join(sorted(found)) for group, found in groups.items()}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "is missing"


def _yes(condition: bool) -> str:
    return "yes" if condition else "no"


def main(argv: Sequence[str] | None = None) -> None:
    """Run `genmodels env`.

    Args:
        argv: Arguments after the command; there are none but --help.

    Raises:
        UserError: If an argument is given.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments in (["-h"], ["--help"]):
        sys.stdout.write("usage: genmodels env\n\nPrint what a bug report needs.\n")
        return
    if arguments:
        raise UserError(f"genmodels env takes no arguments, but {' '.join(arguments)!r} was given.")
    sys.stdout.write(format_environment(describe_environment()) + "\n")


if __name__ == "__main__":
    main()
