"""The processor, the cores and the memory that this process may use; without importing PyTorch, which takes seconds.

Limits of Linux's control groups are read from files below `root`, so that a test can make them.
"""

import math
import os
import platform
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")
CPUINFO = Path("/proc/cpuinfo")  # Linux's description of the processor

INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "asimd", "sve", "sve2", "bf16")
"""Sets of instructions by which the libraries below PyTorch choose how they compute, as Linux names them."""

ARITHMETIC = (
    "ATEN_CPU_CAPABILITY",
    "DNNL_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NPY_DISABLE_CPU_FEATURES",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)
"""Environment variables that make them compute in another way, and so change the last bits."""

OWN = "proc/self/cgroup"
GROUPS = "sys/fs/cgroup"


def cores(root: Path = ROOT) -> int:
    """Return the number of cores that this process may use, and that its container has time for."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota = cpu_quota(root)
    return usable if quota is None else max(1, min(usable, math.ceil(quota)))


def cpu_quota(root: Path = ROOT) -> float | None:
    """Return how many cores' time the process may have, such as 1.5; None where nothing limits it."""
    quotas = []
    for folder in _groups(root, "cpu"):
        quota, period = (_words(folder / "cpu.max") + ["", ""])[:2]
        if not quota:  # version 1
            quota, period = ("".join(_words(folder / f"cpu.cfs_{name}_us")[:1]) for name in ("quota", "period"))
        if quota.isdecimal() and period.isdecimal() and int(period):  # "max" and -1 are no limit
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def memory_left(root: Path = ROOT) -> int | None:
    """Return the bytes that the process may still have; None where nothing limits it.

    Files in memory that nothing has used lately are no obstacle: they make room.
    """
    left = []
    for folder in _groups(root, "memory"):
        limit = _number(folder, "memory.max", "memory.limit_in_bytes")
        used = _number(folder, "memory.current", "memory.usage_in_bytes")
        if limit is not None and used is not None:
            left.append(max(0, limit - used + _inactive_files(folder)))
    return min(left, default=None)


def processor(cpuinfo: Path = CPUINFO) -> str:
    """Return the processor's name, its family and model where Linux tells them, and its sets of instructions.

    >>> processor(Path("/nowhere")) == (platform.processor() or platform.machine())
    True
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    name = fields.get("model name") or platform.processor() or platform.machine()
    kind = [f"{key} {fields[key]}" for key in ("cpu family", "model", "CPU part") if key in fields]
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    details = "; ".join(filter(None, [", ".join(kind), " ".join(item for item in INSTRUCTIONS if item in flags)]))
    return f"{name} ({details})" if details else name


def arithmetic() -> dict[str, str]:
    """Return what decides about the last bits of a product besides the versions: the processor, and what is set."""
    return {"processor": processor(), **{name: os.environ[name] for name in ARITHMETIC if name in os.environ}}


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the process's group and of those above it, whose limits hold too; those that are seen."""
    for line in _lines(root / OWN):
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        if controllers and controller not in controllers.split(","):
            continue
        mounts = [root / GROUPS / controller] if controllers else [root / GROUPS, root / GROUPS / "unified"]
        inside = PurePosixPath(path.lstrip("/"))
        for mount in mounts:
            if ".." not in inside.parts:  # outside of what the container sees
                yield from (mount / group for group in (inside, *inside.parents) if group != PurePosixPath())
            yield mount


def _inactive_files(folder: Path) -> int:
    found = dict(line.split(" ", 1) for line in _lines(folder / "memory.stat") if " " in line)
    number = found.get("total_inactive_file", found.get("inactive_file", ""))
    return int(number) if number.isdecimal() else 0


def _number(folder: Path, *names: str) -> int | None:
    """Return the number in the first of the files that there is; None if none has any."""
    words = next((found for name in names if (found := _words(folder / name))), [""])
    return int(words[0]) if words[0].isdecimal() else None


def _words(file: Path) -> list[str]:
    return " ".join(_lines(file)).split()


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
