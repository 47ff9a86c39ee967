"""Describes a run as parameters and tags: its configuration, the code, the versions and the machine."""

from __future__ import annotations

import colorsys
import getpass
import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kafal_pipeline.config import Config
from kafal_pipeline.common.errors import masked
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
    are masked.
    """
    names = {
        "query": config.query.label,
        "update": config.update.label,
        "strategy": f"{config.query.label}-{config.update.label}",
    }
    return flattened(config.model_dump(mode="json", exclude={"restart"})) | names


def run_tags(config: Config, project: Path) -> dict[str, str]:
    """Return the tags of a run of the project in the folder `project`."""
    strategy = f"{config.query.label}-{config.update.label}"
    tags = {
        "query": config.query.label,
        "update": config.update.label,
        "strategy": strategy,
        "mlflow.runColor": run_colour(strategy),
        "seed": str(config.seed),
        "dataset": config.dataset.folder,
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": project.name,
    }
    return (
        tags
        | _user()
        | git_tags(project)
        | {f"version.{name}": version for name, version in versions().items()}
        | hardware_tags()
    )


def comparison_tags(name: str) -> dict[str, str]:
    """Return the tags of a run that is part of a comparison, and was made by it.

    A run may be part of many: each has a tag of its own, so that none reads what another one writes.

    Examples
    --------
    >>> comparison_tags("default")
    {'comparison': 'default', 'comparison.default': 'yes'}
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
    red, green, blue = colorsys.hls_to_rgb(digest[0] / 256, (0.40, 0.58)[digest[1] % 2], 0.75)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def git_tags(project: Path) -> dict[str, str]:
    """Return the commit that the code stands at and whether it was changed since; nothing outside a repository."""
    lines = _git(project, "status", "--porcelain=v2", "--branch").splitlines()
    if not lines and (commit := _git(project, "rev-parse", "HEAD")):  # looking through all files takes too long here
        return {"git_commit": commit, "mlflow.source.git.commit": commit}
    head = dict(line.removeprefix("# branch.").split(" ", 1) for line in lines if line.startswith("# branch."))
    if head.get("oid", "(initial)") == "(initial)":  # no repository, or no commit yet
        return {}
    dirty = any(not line.startswith("#") for line in lines)
    tags = {"git_commit": head["oid"], "git_dirty": str(dirty).lower(), "mlflow.source.git.commit": head["oid"]}
    return tags | ({} if head["head"] == "(detached)" else {"mlflow.source.git.branch": head["head"]})


def hardware_tags() -> dict[str, str]:
    """Return the processor, the cores this process may use, the memory, the GPUs and the operating system."""
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "hardware.cpu": _cpu_model(),
        "hardware.cores": str(cores),
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


def _user() -> dict[str, str]:
    try:
        return {"mlflow.user": getpass.getuser()}
    except (KeyError, OSError):  # a container's user id may have no name
        return {}


def _git(project: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(project), *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # names of files need not be UTF-8
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _cpu_model() -> str:
    """Return the processor's name; Linux keeps it where the `platform` module does not look."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpu_names() -> list[str]:
    try:
        import pynvml  # optional: the package nvidia-ml-py
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [str(pynvml.nvmlDeviceGetName(handle)) for handle in handles]
    except pynvml.NVMLError:  # no driver, hence no GPU
        return []
