from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

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
    files = [path for path in folder.rglob("*") if path.suffix in {".safetensors", ".parquet"}]
    found = {}
    for path in files:
        content = path.read_bytes()
        if path.name == "rounds.parquet":
            content = pd.read_parquet(path).drop(columns="seconds").to_csv().encode()
        found[path.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()
    return found


@pytest.fixture(scope="session")
def digests():
    """A function that hashes what a seed decides of a run's results."""
    return hashes
