"""What this machine has, as far as it shows without PyTorch, which takes seconds to import."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

AUTOGROUP = Path("/proc/self/autogroup")
"""Where Linux says how this process's session stands among the others, if it shares cores out by session."""


def cores() -> int:
    """Return the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def give_way(nice: int) -> None:
    """Let the processes of others have the cores first, as `nice` does: `nice` is added to this process's own value.

    A process that was given a session of its own has to say so for the session too: where Linux shares cores out by
    session (the desktop's default), a process's value counts only among those of its session. Whatever a system does
    not know or not allow is left out.
    """
    if not hasattr(os, "nice"):
        return
    value = os.nice(nice)
    with contextlib.suppress(OSError):
        if os.getsid(0) == os.getpid():  # else it would speak for others
            AUTOGROUP.write_text(str(value), encoding="ascii")
