"""The matrix of queries and updates does what the pipeline does."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from kafal_pipeline.lifecycle.runner import ResumableSequentialRunner

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def matrix(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import matrix

    yield matrix
    sys.modules.pop("matrix")


def test_a_cell_is_a_run_of_the_pipeline(matrix, tmp_path, copy_of_project, monkeypatch):
    folder = copy_of_project(tmp_path)
    params = {"query": "entropy", "update": "fedavg", "seed": 3, "tracking": "off"}
    bootstrap_project(folder)
    monkeypatch.chdir(folder)
    with KedroSession.create(project_path=folder, env="smoke", runtime_params=params) as session:
        session.run(pipeline_names=["fal"], runner=ResumableSequentialRunner())
    expected = json.loads((folder / "data/08_reporting/smoke/entropy-fedavg/seed_3/summary.json").read_text())
    row = matrix.trial("smoke", "entropy", "fedavg", 3)
    assert "error" not in row
    assert {key: row[key] for key in ("aulc", "final_accuracy", "final_balanced_accuracy")} == {
        key: expected[key] for key in ("aulc", "final_accuracy", "final_balanced_accuracy")
    }


def test_a_failed_cell_is_reported_and_tried_again(matrix, tmp_path, monkeypatch):
    monkeypatch.setattr(matrix, "__file__", str(tmp_path / "matrix.py"))
    (tmp_path / "results").mkdir()
    arguments = ["matrix.py", "--env", "smoke", "--queries", "random", "no_query", "--updates", "fedavg", "--jobs", "1"]
    monkeypatch.setattr(sys, "argv", arguments)
    for _ in range(2):
        assert matrix.main() == 1
        with (tmp_path / "results/matrix_smoke.csv").open() as stream:
            rows = {row["query"]: row for row in csv.DictReader(stream)}
        assert rows["random"]["aulc"]
        assert not rows["random"]["error"]
        assert "no_query" in rows["no_query"]["error"]
