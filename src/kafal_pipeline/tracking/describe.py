"""Describes a run as parameters and tags: its configuration, the code, the versions and the machine."""

from __future__ import annotations

import colorsys
import contextlib
import getpass
import hashlib
import json
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kafal_pipeline.config import Config
from kafal_pipeline.common.errors import masked
from kafal_pipeline.common.machine import cores, processor
from kafal_pipeline.common.versions import versions
from kafal_pipeline.config.flat import flat

MAX_VALUE = 6000
"""Length of the longest parameter that MLflow takes; tags may be longer."""

COMPARISON = "comparison"
"""Tag that names the comparison that made a run."""

_SECRET_KEY = re.compile(r"password|passwd|secret|token|api_?key|credential", re.IGNORECASE)
_NOT_ALLOWED = re.compile(r"[^\w\-. /]")


def run_name(config: Config) -> str:
    """Return ``<query>-<update>-seed<n>``."""
    return f"{config.query.label}-{config.update.label}-seed{config.seed}"


def run_params(config: Config) -> dict[str, str]:
    """Return the whole configuration, flattened (``training.lr``), and the names by which runs are grouped.

    Values other than strings are JSON, so that ``null``, ``true`` and lists read like the YAML they came from; secrets
    are masked. Names and options of query and update are left out where the label says it all; so is the tracking.
    """
    values = config.model_dump(mode="json", exclude={"restart", "tracking", "query", "update"})
    for key, chosen in (("query", config.query), ("update", config.update)):
        options = chosen.model_dump(mode="json", exclude={"label"})
        if options != {"name": chosen.label, "options": {}}:
            values[key] = options
    return flattened(values) | _strategy(config)


def run_tags(config: Config, project: Path) -> dict[str, str]:
    """Return the tags of a run of the project in the folder `project`."""
    tags = _strategy(config)
    tags |= {
        "mlflow.runColor": run_colour(tags["strategy"]),
        "seed": str(config.seed),
        "dataset": config.dataset.folder,
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": project.name,
    }
    with contextlib.suppress(KeyError, OSError):  # a container's user id may have no name
        tags["mlflow.user"] = getpass.getuser()
    found = {f"version.{name}": version for name, version in versions().items()}
    return tags | git_tags(project) | found | hardware_tags()


def comparison_tags(name: str) -> dict[str, str]:
    """Return the tags of a run that is part of a comparison, and was made by it.

    A run may be part of many: each has a tag of its own, so that none reads what another one writes.
    """
    return {COMPARISON: name, f"{COMPARISON}.{name}": "yes"}


def run_colour(strategy: str) -> str:
    """Return the colour of a strategy's runs in MLflow's charts, so that the seeds of one are seen to belong together.

    Examples
    --------
    >>> run_colour("ksas-kcfu") == run_colour("ksas-kcfu") != run_colour("random-kcfu")
    True
    """
    digest = hashlib.sha256(strategy.encode()).digest()
    # Any hue; two lightnesses, both readable on white and on black.
    colour = colorsys.hls_to_rgb(digest[0] / 256, (0.40, 0.58)[digest[1] % 2], 0.75)
    return "#" + "".join(f"{round(255 * part):02x}" for part in colour)


def git_tags(project: Path) -> dict[str, str]:
    """Return the commit that the code stands at and whether it was changed since; nothing outside a repository."""
    if not (commit := _git(project, "rev-parse", "--verify", "HEAD")):
        return {}
    changes = _git(project, "status", "--porcelain")  # None where looking through all files takes too long
    tags = {
        "git_commit": commit,
        "git_dirty": None if changes is None else str(bool(changes)).lower(),
        "mlflow.source.git.commit": commit,
        "mlflow.source.git.branch": _git(project, "branch", "--show-current"),
    }
    return {name: value for name, value in tags.items() if value}


def hardware_tags() -> dict[str, str]:
    """Return the processor, the cores this process may use, the memory, the GPUs and the operating system."""
    import psutil

    return {
        "hardware.cpu": processor(),
        "hardware.cores": str(cores()),
        "hardware.memory_gb": f"{psutil.virtual_memory().total / 1e9:.1f}",
        "hardware.gpus": ", ".join(_gpu_names()) or "none",
        "platform": platform.platform(),
    }


def flattened(values: Mapping[str, Any]) -> dict[str, str]:
    """Return nested values by names such as ``training.lr``, as text that MLflow takes; secrets are masked."""
    found = {}
    for name, value in flat(values).items():
        text = masked(value if isinstance(value, str) else json.dumps(value))
        if isinstance(value, str) and _SECRET_KEY.search(name.rpartition(".")[2]):
            text = "***"
        found[_NOT_ALLOWED.sub("_", name)] = text if len(text) <= MAX_VALUE else text[: MAX_VALUE - 3] + "..."
    return found


def _strategy(config: Config) -> dict[str, str]:
    query, update = config.query.label, config.update.label
    return {"query": query, "update": update, "strategy": f"{query}-{update}"}


def _git(project: Path, *arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(project), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None


def _gpu_names() -> list[str]:
    with contextlib.suppress(Exception):  # NVIDIA's driver is not there
        import pynvml

        pynvml.nvmlInit()
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        return [str(pynvml.nvmlDeviceGetName(handle)) for handle in handles]
    return []
