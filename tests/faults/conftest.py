"""A project of its own for each test of a fault, run as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]

GATE = '''
import os, pathlib, time
from kafal_pipeline.query.random import Random

class Gate(Random):
    """Random, which says that it is asked and then waits until it may continue."""

    def scores(self, pool, rng):
        if len(pool) <= 32:  # the dry run of a few images, before the run begins
            return super().scores(pool, rng)
        gate = pathlib.Path(os.environ["GATE"])
        gate.with_suffix(".reached").touch()
        while not gate.exists():
            time.sleep(0.05)
        return super().scores(pool, rng)
'''

TIMES = ("train_cost.json", "query_cost.json", "rounds.parquet", "metrics.json", "provenance.json")
"""Outputs that hold times of the run, or of the day."""


class Project:
    """A copy of the project without sources, which come from PYTHONPATH, and without data."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.gate = folder, folder / "gate"
        (folder / "lib").mkdir()
        (folder / "lib/own_gate.py").write_text(GATE)

    def environment(self, **changes: str) -> dict[str, str]:
        outside = ("MLFLOW", "KEDRO", "DO_NOT_TRACK")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(outside)}
        path = os.pathsep.join([str(ROOT / "src"), str(self.folder / "lib")])
        return {**kept, "PYTHONPATH": path, "COLUMNS": "1000", "GATE": str(self.gate), **changes}

    def start(self, params: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "kedro", "run", "--env", "smoke", "--params", params, *arguments],
            cwd=self.folder,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, params: str, *arguments: str, **environment: str) -> tuple[int, str]:
        """Return the exit code and the output of a run that has ended."""
        process = self.start(params, *arguments, **environment)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    def files(self) -> set[str]:
        """Return all files of `data/`."""
        data = self.folder / "data"
        return {path.relative_to(data).as_posix() for path in data.rglob("*") if path.is_file()}

    def results(self, path: str) -> dict[str, object]:
        """Return what the run with this path has made: bytes, or values without times."""
        found: dict[str, object] = {}
        for layer in ("05_model_input", "06_models", "07_model_output"):
            folder = self.folder / "data" / layer / path
            for file in sorted(item for item in folder.rglob("*") if item.is_file()):
                key = f"{layer}/{file.relative_to(folder).as_posix()}"
                if file.name not in TIMES:
                    found[key] = file.read_bytes()
                elif file.name == "metrics.json":
                    values = json.loads(file.read_text())
                    found[key] = {name: value for name, value in values.items() if not name.endswith("seconds")}
                elif file.name == "rounds.parquet":
                    found[key] = pd.read_parquet(file).drop(columns="seconds").to_csv()
        return found


def wait_for(condition, seconds: float = 120.0):
    """Return what `condition` returns once that is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    return found


@pytest.fixture(scope="session")
def make_project(copy_of_project):
    """A function that makes a project in a folder."""
    return lambda folder: Project(copy_of_project(folder))


@pytest.fixture
def project(tmp_path, make_project):
    return make_project(tmp_path / "project")


@pytest.fixture
def second_project(tmp_path, make_project):
    return make_project(tmp_path / "second")


@pytest.fixture
def processes():
    """A list of processes that end with the test."""
    started: list[subprocess.Popen] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def wait():
    return wait_for
