"""What this machine has, as far as it shows without PyTorch, which takes seconds to import."""

from __future__ import annotations

import os


def cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
