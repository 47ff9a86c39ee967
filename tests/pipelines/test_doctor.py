"""`kedro run --pipeline doctor`, as a whole."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import resolve
from kafal_pipeline.pipelines.doctor import nodes, show
from kafal_pipeline.pipelines.doctor.checks import torch_pair
from kafal_pipeline.pipelines.doctor.finding import Finding

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, copy_of_project):
    """A copy of the project without sources, which come from PYTHONPATH, and without data."""
    return copy_of_project(tmp_path_factory.mktemp("project"))


def doctor(folder, *arguments):
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "KEDRO"))}
    return subprocess.run(
        [sys.executable, "-m", "kedro", "run", "--pipeline", "doctor", *arguments],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_line_for_each_check_and_nothing_written(folder):
    before = sorted(folder.rglob("*"))
    result = doctor(folder, "--env", "smoke")
    assert result.returncode == 0, result.stdout + result.stderr
    lines = [line.split(maxsplit=1) for line in result.stdout.splitlines() if line[:2] in {"ok", "wa", "fa"}]
    assert [rest.partition(":")[0] for _, rest in lines] == [
        "versions", "torch", "device", "data", "tracker", "disk", "memory", "time",
    ]  # fmt: skip
    assert "client steps at" in result.stdout
    assert sorted(folder.rglob("*")) == before


def test_failures_are_one_message(folder, capsys):
    asked = {"dataset": {"name": "cifar10"}, "tracking": {"uri": "http://me:s3cret@127.0.0.1:9"}}
    with pytest.raises(UserError) as raised:
        nodes.examine(asked, folder)
    message = str(raised.value)
    assert message.startswith("doctor: 2 of 8 checks failed.")
    assert "dataset.download" in message
    assert "http://***@127.0.0.1:9" in message
    assert "s3cret" not in message + capsys.readouterr().out


def test_checks_whose_ground_is_missing_say_so(tmp_path, monkeypatch):
    """Without torch nothing is measured, and the others continue."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    broken = torch_pair.Pair(Finding("torch", "failure", "torch cannot be imported"), torch_works=False)
    monkeypatch.setattr(torch_pair, "check", lambda needed: broken)
    found = {finding.check: finding for finding in nodes.findings(resolve({"tracking": "off"}), tmp_path)}
    assert found["torch"].status == "failure"
    assert "device" not in found
    assert found["data"].status == "ok"
    assert found["disk"].status == found["time"].status == "warning"
    with pytest.raises(UserError, match=r"doctor: 1 of 7 checks failed\.\ntorch: "):
        nodes.examine({"tracking": "off"}, tmp_path)


def test_a_table_on_a_terminal(monkeypatch):
    console = Console(force_terminal=True, width=100, record=True, file=io.StringIO())
    monkeypatch.setattr(show, "get_console", lambda: console)
    findings = [Finding("disk", "ok", "12 GB"), Finding("data", "failure", "[bold]mine.npz", "Put it there.")]
    assert list(show.showing(findings)) == findings
    text = console.export_text()
    assert "[bold]mine.npz" in text  # a name is no markup
    assert "Put it there." in text
