"""Checks that the versions of Python and of the packages meet the project's requirements."""

import importlib.metadata
import platform
import tomllib
from pathlib import Path

from kafal_pipeline.pipelines.doctor.finding import FAILURE, OK, Finding

CHECK = "versions"
PACKAGE = "kafal_pipeline"
LOCKED = "Install what requirements.lock names: make install, or python -m pip install -r requirements.lock."


def check(root: Path) -> Finding:
    """Compare what is installed with the bounds in the project's ``pyproject.toml``, or in the wheel's metadata."""
    from packaging.requirements import Requirement  # only here
    from packaging.specifiers import SpecifierSet

    file = root / "pyproject.toml"
    project = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {}) if file.is_file() else {}
    bounds, mend = file.name, LOCKED
    if project.get("name") != PACKAGE:  # a folder with configuration alone
        project = {
            "requires-python": importlib.metadata.metadata(PACKAGE)["requires-python"],
            "dependencies": [line for line in importlib.metadata.requires(PACKAGE) or [] if "extra ==" not in line],
        }
        bounds, mend = PACKAGE, f"Install it again: python -m pip install {PACKAGE}-...whl."
    python = platform.python_version()
    wrong = []
    if not SpecifierSet(project["requires-python"]).contains(python, prereleases=True):
        wrong.append(f"Python {python} instead of {project['requires-python']}")
    requirements = [Requirement(line) for line in project["dependencies"]]
    for needed in requirements:
        try:
            version = importlib.metadata.version(needed.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{needed.name} is not installed")
            continue
        if not needed.specifier.contains(version, prereleases=True):
            wrong.append(f"{needed.name} {version} instead of {needed.specifier}")
    if wrong:
        return Finding(CHECK, FAILURE, "; ".join(wrong), mend)
    return Finding(CHECK, OK, f"Python {python}, {len(requirements)} packages within the bounds of {bounds}")
