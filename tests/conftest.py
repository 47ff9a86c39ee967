from __future__ import annotations

import hashlib
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

# Started in the background of a script, these tests would hand on to the commands they start that Ctrl-C is ignored.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"


def golden_cases(name: str) -> dict[str, dict[str, np.ndarray]]:
    """Read tests/golden/<name>.npz, grouped by case."""
    cases: dict[str, dict[str, np.ndarray]] = {}
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as archive:
        for key in archive.files:
            case, field = key.split("/")
            cases.setdefault(case, {})[field] = archive[key]
    return cases


@pytest.fixture(scope="session")
def ksas_golden() -> dict[str, dict[str, np.ndarray]]:
    return golden_cases("ksas")


@pytest.fixture(scope="session")
def kcfu_golden() -> dict[str, dict[str, np.ndarray]]:
    return golden_cases("kcfu")


def hashes(folder: Path) -> dict[str, str]:
    """Hash everything that a seed decides; times and what they cost are left out."""
    made = {".safetensors", ".parquet"}
    files = [path for path in folder.rglob("*") if path.suffix in made or path.name == "metrics.json"]
    found = {}
    for path in files:
        content = path.read_bytes()
        if path.name == "rounds.parquet":
            content = pd.read_parquet(path).drop(columns="seconds").to_csv().encode()
        elif path.name == "metrics.json":
            values = json.loads(content)
            content = json.dumps({key: values[key] for key in values if not key.endswith("_seconds")}).encode()
        found[path.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()
    return found


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    """Save figures as empty pictures: drawing them takes half the time of a small run."""
    patch.setattr("matplotlib.figure.Figure.savefig", lambda _figure, file, **_options: file.write(b"\x89PNG"))


def project_in(folder: Path) -> Path:
    """Put a copy of the project into a folder: sources come from elsewhere, and there are no data and no secrets."""
    shutil.copytree(ROOT / "conf", folder / "conf", ignore=shutil.ignore_patterns("local"))
    for name in ("pyproject.toml", ".telemetry"):
        shutil.copy(ROOT / name, folder)
    for name in ("conf/local", "src"):
        (folder / name).mkdir()
    return folder


@pytest.fixture(scope="session")
def copy_of_project():
    """A function that puts a copy of the project into a folder."""
    return project_in


@pytest.fixture(scope="session")
def digests():
    """A function that hashes what a seed decides of a run's results."""
    return hashes
