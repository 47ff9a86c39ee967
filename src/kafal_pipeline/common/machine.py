"""Cores and memory that this process may use, also in a container; without importing PyTorch, which takes seconds.

Limits of Linux's control groups are read from files below `root`, so that a test can make them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")

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

    Files in memory that nothing has used lately are no obstacle: they make place.
    """
    left = []
    for folder in _groups(root, "memory"):
        limit = _number(folder, "memory.max", "memory.limit_in_bytes")
        used = _number(folder, "memory.current", "memory.usage_in_bytes")
        if limit is not None and used is not None:
            left.append(max(0, limit - used + _inactive_files(folder)))
    return min(left, default=None)


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
