"""Comparisons some of whose runs wait for labels."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pandas as pd
import pytest

from kafal_pipeline.common.errors import UserError, Waiting
from kafal_pipeline.config import resolve
from kafal_pipeline.config.compare import CompareConfig
from kafal_pipeline.lifecycle.current_run import Session
from kafal_pipeline.pipelines.compare import nodes
from kafal_pipeline.pipelines.compare.plan import Plan, Planned
from kafal_pipeline.pipelines.compare.side_by_side import child, launch
from kafal_pipeline.pipelines.compare.side_by_side.display import Display
from kafal_pipeline.runs import waits
from kafal_pipeline.runs.layout import Layout

ROOT = Path(__file__).parents[2]

PEOPLE = r'''
"""Found by every Python of the test: entropy's queries wait for labels until there is a file `labels`."""
import os

if "KAFAL_TEST_WAITS" in os.environ:
    from kafal_pipeline.common.errors import Waiting
    from kafal_pipeline.pipelines.fal import nodes

    annotate = nodes.annotate_queried

    def annotate_queried(cycle, pool, queried, images, parameters):
        waits = parameters["query"]["name"] in os.environ["KAFAL_TEST_WAITS"].split(",")
        if waits and not os.path.exists("labels"):
            raise Waiting(f"{len(queried)} images wait for labels.\nThe files lie in data/annotation.")
        return annotate(cycle, pool, queried, images, parameters)

    nodes.annotate_queried = annotate_queried
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory, copy_of_project):
    folder = copy_of_project(tmp_path_factory.mktemp("project"))
    (folder / "lib").mkdir()
    (folder / "lib/sitecustomize.py").write_text(PEOPLE)
    return folder


def compare(folder, waiting="entropy", **section):
    """Compare random and entropy on one seed; some queries wait until there is a file `labels`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "KEDRO", "DO_NOT_TRACK"))}
    section = {"queries": "[random,entropy]", "updates": "[fedavg]", "seeds": "[0]", **section}
    params = ["federation.rounds=1", *(f"compare.{key}={value}" for key, value in section.items())]
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "kedro",
            "run",
            "--env",
            "smoke",
            "--pipelines",
            "compare",
            "--params",
            ",".join(params),
        ],
        cwd=folder,
        env={
            **kept,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(folder / "lib")]),
            "COLUMNS": "200",
            "KAFAL_TEST_WAITS": waiting,
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def tracked(folder):
    """Status and tag of every run in MLflow, by its query."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    runs = client.search_runs(
        [experiment.experiment_id for experiment in client.search_experiments()], "params.seed='0'"
    )
    assert len({run.data.params["query"] for run in runs}) == len(runs)
    return {run.data.params["query"]: (run.info.status, run.data.tags.get("waiting_for")) for run in runs}


def test_runs_that_wait_are_listed_and_the_others_reported(folder):
    result = compare(folder, "random,entropy")
    assert result.returncode == 75, result.stdout + result.stderr
    assert "2 of 2 runs wait for labels. Label them" in result.stdout
    assert "Report  " not in result.stdout
    result = compare(folder)
    output = result.stdout + result.stderr
    assert result.returncode == 75, output
    assert "Report  data/08_reporting/smoke/comparison/default/report.html" in result.stdout
    said = result.stdout[result.stdout.rindex("1 of 2 runs wait for labels.") :].strip().splitlines()[1:]
    options = "--env smoke --params federation.rounds=1,query=entropy,update=fedavg,seed=0"
    assert said == [
        "smoke/entropy-fedavg/seed_0: 74 images wait for labels.", f"  kedro run --pipeline annotate {options}"
    ]  # fmt: skip
    for word in ("Error", "ERROR", "Traceback", " failed"):
        assert word not in output
    log = (folder / "data/09_tracking/smoke/entropy-fedavg/seed_0/run.log").read_text()
    assert log.strip().endswith("The files lie in data/annotation.") and "Error" not in log
    report = folder / "data/08_reporting/smoke/comparison/default"
    assert pd.read_csv(report / "runs.csv").set_index("query")["status"].to_dict() == {
        "entropy": "waiting", "random": "finished"
    }  # fmt: skip
    page = (report / "report.html").read_text()
    assert "1 waiting for labels" in page and "74 images wait for labels." in page and "1 run waits for labels" in page
    assert tracked(folder) == {"random": ("FINISHED", None), "entropy": ("SCHEDULED", "labels")}
    record = folder / "data/07_model_output/smoke/entropy-fedavg/seed_0/provenance.json"
    assert json.loads(record.read_text())["error"] is None
    shown = compare(folder, run_missing="false")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert pd.read_csv(report / "runs.csv").set_index("query")["reason"]["entropy"] == "waits for labels"
    (folder / "labels").touch()
    result = compare(folder)
    assert result.returncode == 0, result.stdout + result.stderr
    assert pd.read_csv(report / "runs.csv")["status"].tolist() == ["finished"] * 2
    assert tracked(folder) == {"random": ("FINISHED", None), "entropy": ("FINISHED", None)}


def test_a_process_says_that_its_run_waits(monkeypatch, tmp_path, capsys):
    def wait(*_):
        raise Waiting("2 images wait\nthree ways to label")

    monkeypatch.setattr(child, "_prepare", lambda log: None)
    monkeypatch.setattr(child, "_hooks", Mock())
    monkeypatch.setattr(child, "_run", wait)
    connection = Mock()
    child.main(SimpleNamespace(log=tmp_path / "log"), connection)
    assert [call.args for call in connection.send.call_args_list] == [(("waiting", "2 images wait"),)]
    assert capsys.readouterr().out == "2 images wait\nthree ways to label\n"


def test_a_task_that_waits_has_not_failed(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)  # where processes find it, too
    small_tasks = importlib.import_module("small_tasks")
    monkeypatch.setattr(launch, "main", small_tasks.small_task)
    monkeypatch.setattr(launch, "PRELOADED", [])
    launcher = launch.Launcher(2, 100.0, lambda key, message: None)
    tasks = [("a", small_tasks.SmallTask("wait", 0.0)), ("b", small_tasks.SmallTask("do", 0.0))]
    assert dict(launcher.run(tasks)) == {"a": None, "b": None}
    assert launcher.waiting == {"a": "2 images"}


def test_runs_that_wait_are_counted_apart(caplog):
    caplog.set_level("INFO")
    display = Display(3, 2)
    display.end("a", None, waits=True)
    display.end("b", "no")
    display.end("c", None)
    assert "2 of 3 runs done, 1 failed, 1 waiting for labels, c" in caplog.text


def plan(folder, **section):
    runs = [Layout(folder, resolve({"query": query})) for query in ("random", "entropy", "margin")]
    compare = CompareConfig.model_validate({"queries": ["random", "entropy", "margin"], "seeds": [0], **section})
    return Plan(compare, (), tuple(Planned(run, "absent") for run in runs))


def test_a_failed_run_is_an_error_whoever_waits(tmp_path):
    failures, waiting = {"digits/margin-kcfu/seed_0": "no"}, {"digits/entropy-kcfu/seed_0": "2 images"}
    page = r"annotate --env mine --params query=entropy,update=kcfu,seed=0"
    waits_for = rf"1 of 3 runs wait(?s:.)*entropy-kcfu/seed_0: 2 images\n.*{page}"
    said = rf"{waits_for}(?s:.)*1 of 3 runs failed(?s:.)*margin-kcfu/seed_0: no"
    with pytest.raises(UserError, match=said) as raised:
        nodes.conclude(plan(tmp_path), failures, waiting, ["report.html"], Session(env="mine"))
    assert not isinstance(raised.value, Waiting)
    nodes.conclude(plan(tmp_path, run_missing=False), failures, waiting, ["report.html"], Session())
    with pytest.raises(UserError, match=r"no finished run to compare: 2 images; no\."):
        nodes.load(plan(tmp_path), {**failures, "digits/random-kcfu/seed_0": "no"}, waiting, Session())


def test_what_waits_is_no_run_that_never_ran(tmp_path):
    there = plan(tmp_path, run_missing=False)
    waits.note(there.runs[1].layout, first_pool=True)
    failures, waiting = nodes.run(there, Mock(), Mock())
    assert waiting == {"digits/entropy-kcfu/seed_0": "waits for labels"}
    assert failures == dict.fromkeys(("digits/random-kcfu/seed_0", "digits/margin-kcfu/seed_0"), "never ran")
