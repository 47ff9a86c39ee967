"""Imports go downwards only, and the algorithms run where neither Kedro, MLflow nor DVC is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_import_rules():
    # In a process of its own: import-linter disables the loggers of the process it runs in.
    script = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout


def test_the_federation_runs_without_kedro_mlflow_and_dvc():
    script = (
        "import sys\n"
        "for name in ('kedro', 'kedro_datasets', 'mlflow', 'dvc'): sys.modules[name] = None\n"
        "import kafal_pipeline.federation.simulation, kafal_pipeline.federation.trial\n"
        "import kafal_pipeline.evaluation, kafal_pipeline.data.sources\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": str(ROOT / "src")}, timeout=120)


def test_listing_pipelines_and_checking_parameters_import_no_heavy_package():
    script = (
        "import sys\n"
        "import kafal_pipeline.settings, kafal_pipeline.cli\n"
        "from kafal_pipeline.pipeline_registry import register_pipelines\n"
        "register_pipelines()\n"
        "heavy = {'torch', 'torchvision', 'mlflow', 'sklearn', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": str(ROOT / "src")}, timeout=120)
