"""A sqlite store that is not there yet, and many that begin to use it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from kafal_pipeline.tracking.deliver import mlflow_run

BEGIN = """
import sys, time
from kafal_pipeline.tracking.deliver.mlflow_run import connect
import mlflow
while time.time() < float(sys.argv[3]):
    time.sleep(0.001)
address = connect({"project": sys.argv[1]}, sys.argv[2])
mlflow.MlflowClient(address).search_experiments()
"""


def test_processes_that_begin_at_once_share_a_whole_store(tmp_path):
    address = f"sqlite:///{tmp_path / 'runs.db'}"
    arguments = [sys.executable, "-c", BEGIN, str(tmp_path), address, str(time.time() + 8)]
    started = [subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in started:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    (default,) = MlflowClient(address).search_experiments()
    assert Path(default.artifact_location.removeprefix("file://")) == tmp_path / "mlruns/0"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_store_that_could_not_be_made_leaves_nothing(tmp_path, monkeypatch):
    def killed(self, *_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(mlflow_run.mlflow.MlflowClient, "search_experiments", killed)
    with pytest.raises(KeyboardInterrupt):
        mlflow_run.make_sqlite(f"sqlite:///{tmp_path / 'runs.db'}")
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_left_alone(tmp_path):
    path = tmp_path / "runs.db"
    path.write_bytes(b"something")
    for address in (f"sqlite:///{path}", "http://127.0.0.1:5000", str(tmp_path)):
        mlflow_run.make_sqlite(address)
    assert path.read_bytes() == b"something"
