from __future__ import annotations

from pathlib import Path

import numpy as np
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
