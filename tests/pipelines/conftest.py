from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
import pytest


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
