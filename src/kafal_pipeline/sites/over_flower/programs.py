"""Starts Flower's own programs, with everything off that nobody asked for: telemetry, updates, installations."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kafal_pipeline.common.errors import UserError

OFF = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}


PR_SET_PDEATHSIG = 1


def environment(home: Path) -> dict[str, str]:
    """Return the environment of Flower's programs; `home` is where they keep their own files."""
    programs = str(Path(sys.executable).parent)  # which start others by name
    path = os.pathsep.join([programs, os.environ.get("PATH", "")])
    return {**os.environ, **OFF, "FLWR_HOME": str(home), "PATH": path}


def program(name: str) -> str:
    """Return the path of one of Flower's programs; raises UserError if it is not installed."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise UserError(f'{name}: is not installed. Install it with pip install -e ".[flower]" (docs/federation.md).')
    return found


def start(arguments: Sequence[str | Path], home: Path, log: Path | None = None) -> subprocess.Popen[bytes]:
    """Start a program; what it says goes to the file `log`, or to the terminal."""
    home.mkdir(parents=True, exist_ok=True)
    command = [program(str(arguments[0])), *map(str, arguments[1:])]
    options: dict[str, Any] = {"env": environment(home), "stdin": subprocess.DEVNULL}
    if sys.platform == "linux":
        options["preexec_fn"] = _end_with_parent
    if log is None:
        return subprocess.Popen(command, **options)
    with log.open("ab") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, **options)


def _end_with_parent() -> None:
    """Have Linux end this program when the process that started it is gone, however that ended."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def end(processes: Sequence[subprocess.Popen[bytes]], patience: float = 5) -> None:
    """End programs, by force where they do not within `patience` seconds."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
