"""Versions of Python and of the packages that results depend on."""

import importlib.metadata
import platform

PACKAGES = ("kafal_pipeline", "torch", "numpy", "scipy", "scikit-learn", "pandas", "kedro", "mlflow")


def versions() -> dict[str, str]:
    """Return the version of Python and of each of the packages by name; `not installed` where one is missing."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
