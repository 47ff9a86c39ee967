"""Checks that torch and torchvision can be imported and fit together."""

import importlib.metadata
from typing import NamedTuple

from kafal_pipeline.pipelines.doctor.finding import FAILURE, OK, WARNING, Finding

CHECK = "torch"
REINSTALL = (
    "Install both from one index, as a pair: python -m pip install --force-reinstall -r requirements.lock "
    "(https://pytorch.org/get-started names the one for your GPU)."
)

BROKEN = (ImportError, OSError, RuntimeError, AttributeError)
"""Exceptions of importing: a library that is missing or does not load, an operator that the other one does not have."""


class Pair(NamedTuple):
    """What was found, and whether torch itself can be used."""

    finding: Finding
    torch_works: bool


def check(needed: bool) -> Pair:
    """Import both. `needed`: whether the configured data set is read by torchvision: nothing else needs it."""
    versions = f"torch {_version('torch')}, torchvision {_version('torchvision')}"
    try:
        import torch  # noqa: F401, PLC0415 - this is the check
    except BROKEN as error:
        found = f"{versions}: torch cannot be imported ({_first(error)})"
        return Pair(Finding(CHECK, FAILURE, found, REINSTALL), False)
    try:
        import torchvision  # noqa: F401, PLC0415 - this is the check
    except BROKEN as error:
        found = f"{versions}: torchvision cannot be imported, since it was built for another torch ({_first(error)})"
        if needed:
            return Pair(Finding(CHECK, FAILURE, found, REINSTALL), True)
        return Pair(Finding(CHECK, WARNING, f"{found}; this data set does without it", REINSTALL), True)
    return Pair(Finding(CHECK, OK, f"{versions}, which match"), True)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _first(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
