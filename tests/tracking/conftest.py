"""Runs of the helper cost seconds of `import mlflow`: the tests share what they can."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import kafal_pipeline
from kafal_pipeline.tracking.deliver import __main__ as deliver


@pytest.fixture(autouse=True)
def _no_tracker_from_outside_and_none_left_behind(monkeypatch):
    monkeypatch.chdir(Path.cwd())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    for name, value in (deliver.ENVIRONMENT | deliver.TIMEOUT).items():
        monkeypatch.setenv(name, value)
    yield
    if "mlflow" in sys.modules:
        sys.modules["mlflow"].set_tracking_uri(None)


@pytest.fixture(scope="session")
def run_python():
    """Run a few lines in a process of its own and return it when done."""

    def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(Path(kafal_pipeline.__file__).parents[1])}
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """Make a fresh sqlite store, once: its tables take seconds."""
    import mlflow  # seconds

    project = tmp_path_factory.mktemp("project")
    uri = f"sqlite:///{project / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri, registry_uri=uri)
    client.create_experiment("digits", artifact_location=(project / "mlruns").as_uri())
    return client, project, uri


@pytest.fixture(scope="session")
def gives_way():
    """Wait until a helper lets others have the cores first; return by how much more than this process."""

    def wait(pid: int) -> int:
        helper, own, deadline = psutil.Process(pid), os.nice(0), time.monotonic() + 40
        while helper.nice() == own and time.monotonic() < deadline:
            time.sleep(0.05)
        return helper.nice() - own

    return wait
