"""Tasks for processes of `test_launch`; imports little, so that they begin at once."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import NamedTuple


class SmallTask(NamedTuple):
    """What to do, for how many seconds, and the log that messages name."""

    kind: str
    seconds: float
    log: Path = Path("small.log")


def small_task(task, messages):
    """Do what a task says, and say when."""
    kind, seconds, _ = task
    messages.send(("began", time.monotonic()))
    if kind == "cycle":
        messages.send(("cycle", 0))
    time.sleep(seconds)
    messages.send(("ended", time.monotonic()))
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        messages.send(("deaf", 0.0))
        time.sleep(600)
    if kind == "exit":
        os._exit(3)
    messages.send(
        {"fail": ("failed", "out of ideas"), "taken": ("taken", None), "wait": ("waiting", "2 images")}.get(
            kind, ("done", None)
        )
    )
    messages.close()
