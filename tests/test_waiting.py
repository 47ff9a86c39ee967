"""Labels that are missing, as a user meets them: exit code 75, a message, and one run in MLflow that resumes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

COMMAND = """
import sys

from kafal_pipeline.common.errors import Waiting
from kafal_pipeline.pipelines.fal import nodes

def wait(*_):
    raise Waiting("12 images wait for labels.\\nLabel them, then give the same command again.")

entry, node = sys.argv.pop(1), sys.argv.pop(1)
if node:
    setattr(nodes, node, wait)
if entry == "kedro":
    from kedro.framework.cli.cli import main

    sys.argv.insert(1, "run")
else:
    from kafal_pipeline.__main__ import main
main()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, copy_of_project):
    return copy_of_project(tmp_path_factory.mktemp("project"))


def run(folder, node, params, entry="kedro"):
    """Run a command; `node` is the function that finds labels missing, if any does."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "KEDRO", "DO_NOT_TRACK"))}
    arguments = ["--pipelines", "fal", "--env", "smoke", "--params", f"federation.rounds=1,{params}"]
    return subprocess.run(
        [sys.executable, "-c", COMMAND, entry, node, *arguments],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def tracked(folder):
    """Status, tag and steps of the accuracies of every run in MLflow."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    return [
        (
            run.info.status,
            run.data.tags.get("waiting_for"),
            [point.step for point in client.get_metric_history(run.info.run_id, "accuracy")],
        )
        for run in runs
    ]


def test_a_run_waits_for_its_first_pool_and_for_a_query_and_is_one_in_mlflow(folder):
    said = "12 images wait for labels.\nLabel them, then give the same command again."
    for node, points in (("draw_initial_pool", 0), ("annotate_queried", 1)):
        result = run(folder, node, "tracking.log_model=false")
        output = result.stdout + result.stderr
        assert result.returncode == 75, output
        assert result.stdout.strip().endswith(said)
        assert output.count("12 images") == 1
        for word in ("Error", "ERROR", "Traceback", "failed", "resume", "WARNING"):
            assert word not in output
        ((status, tag, steps),) = tracked(folder)
        assert (status, tag, len(steps)) == ("SCHEDULED", "labels", points)
    result = run(folder, "", "tracking.log_model=false")
    assert result.returncode == 0, result.stderr
    assert "cycle  labels" in result.stdout
    ((status, tag, found),) = tracked(folder)
    assert (status, tag, found[:1], len(found)) == ("FINISHED", None, steps, 2)


@pytest.mark.parametrize(("restart", "said"), [(False, False), (True, True)])
def test_as_a_module_and_starting_again(folder, restart, said):
    params = f"tracking=off,seed=1{',restart=true' if restart else ''}"
    result = run(folder, "annotate_queried", params, entry="module")
    assert result.returncode == 75, result.stderr
    assert ("Give it without restart=true" in result.stdout) == said
