"""Passwords and keys stay where the user put them: in the environment and in conf/local."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kafal_pipeline.common.errors import masked
from kafal_pipeline.config import resolve
from kafal_pipeline.tracking import Tracker
from kafal_pipeline.tracking.describe import run_params

ROOT = Path(__file__).parents[2]
USER = {"MLFLOW_TRACKING_USERNAME": "user"}
"""No secret: MLflow shows it as the one who has made a model."""

SECRETS = {
    "MLFLOW_TRACKING_PASSWORD": "password-93ab40",
    "MLFLOW_TRACKING_TOKEN": "token-5f20c8",
    "AWS_ACCESS_KEY_ID": "AKIA-1d6e77",
    "AWS_SECRET_ACCESS_KEY": "aws-secret-b8e0f2",
    "AZURE_STORAGE_ACCESS_KEY": "azure-2277aa",
}
IN_ADDRESS = "address-61c9d4"
IN_FILE = "credential-e04b19"


def found(text: bytes | str) -> list[str]:
    """Return the secrets that stand in a text."""
    content = text.encode() if isinstance(text, str) else text
    return [secret for secret in (*SECRETS.values(), IN_ADDRESS, IN_FILE) if secret.encode() in content]


def leaks(folder: Path) -> dict[str, list[str]]:
    """Return the files below a folder that hold a secret."""
    held = {
        path.relative_to(folder).as_posix(): found(path.read_bytes()) for path in folder.rglob("*") if path.is_file()
    }
    return {name: secrets for name, secrets in held.items() if secrets}


@pytest.mark.parametrize(
    "address",
    [
        f"https://me:{IN_ADDRESS}@host/mlflow",
        f"https://{IN_ADDRESS}@host",
        f"https://me:p@{IN_ADDRESS}@host/",
        f"postgresql+psycopg2://me:{IN_ADDRESS}@host:5432/db",
        f"mssql://host/db?driver=x&password={IN_ADDRESS}&y=1",
        f"https://host/?token={IN_ADDRESS}",
    ],
)
def test_addresses_are_masked_everywhere(address):
    assert not found(masked(f"the tracker {address} does not answer"))
    assert masked("http://host:5000/x?y=1 and a@b") == "http://host:5000/x?y=1 and a@b"
    assert not found(str(run_params(resolve({"tracking": {"uri": address}}))))


def test_what_the_helper_writes_about_a_tracker_that_does_not_answer(tmp_path, monkeypatch, caplog):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    uri = f"http://me:{IN_ADDRESS}@127.0.0.1:9"
    config = resolve({"tracking": {"uri": uri, "system_metrics": False}})
    tracker = Tracker.start(config, tmp_path / "journals", tmp_path, patience=0)
    tracker.metrics({"accuracy": 0.5}, step=1)
    tracker.finish("FAILED", f"UserError: {uri} was of no use")
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert {"journal.jsonl", "delivered.json", "deliver.log"} <= names
    assert not leaks(tmp_path)
    assert not found(caplog.text)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [False, True])
def test_a_whole_run(tmp_path, copy_of_project, wrong):
    """Its results, journal, log, MLflow's database and artifacts, and all it prints."""
    copy_of_project(tmp_path)
    (tmp_path / "conf/local/credentials.yml").write_text(f"tracker: {{password: {IN_FILE}}}\n")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "KEDRO", "AWS"))}
    params = "training.lr=1e30,training.momentum=0" if wrong else "federation.rounds=1"
    result = subprocess.run(
        [sys.executable, "-m", "kedro", "run", "--pipeline", "fal", "--env", "smoke", "--params", params],
        cwd=tmp_path,
        env={**kept, **USER, **SECRETS, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == int(wrong), result.stdout + result.stderr
    (tmp_path / "conf/local/credentials.yml").unlink()
    assert (tmp_path / "mlflow.db").is_file()
    assert not found(result.stdout + result.stderr)
    assert not leaks(tmp_path)
