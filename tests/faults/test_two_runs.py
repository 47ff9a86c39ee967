"""Two runs at once: different ones do not harm each other, and the same one is not run twice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import kafal_pipeline
from kafal_pipeline.common import locks
from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import resolve
from kafal_pipeline.runs import lock as run_lock
from kafal_pipeline.runs.layout import Layout

HOLD = """
import sys, time
from pathlib import Path
from kafal_pipeline.runs.lock import Lock
from kafal_pipeline.runs.layout import Layout
from kafal_pipeline.config import resolve
lock = Lock()
lock.acquire(Layout(Path(sys.argv[1]), resolve({})))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def other(tmp_path, processes):
    """Another process that works on the default run."""
    environment = {**os.environ, "PYTHONPATH": str(Path(kafal_pipeline.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True
    )
    processes.append(process)
    assert process.stdout.readline() == "held\n"
    return process


class TestLock:
    def test_the_second_is_refused_by_process_and_folder(self, other, tmp_path):
        lock = run_lock.Lock()
        with pytest.raises(UserError) as caught:
            lock.acquire(Layout(tmp_path, resolve({})))
        assert f"process {other.pid} " in str(caught.value)
        assert str(tmp_path / "data/07_model_output/digits/ksas-kcfu/seed_0") in str(caught.value)
        lock.release()  # of what it has not got changes nothing
        with pytest.raises(UserError, match=f"process {other.pid} "):
            lock.acquire(Layout(tmp_path, resolve({})))

    def test_other_runs_go_on_beside_it(self, other, tmp_path):
        for changes in ({"seed": 1}, {"query": "random"}, {"update": "fedavg"}, {"dataset": {"label": "mine"}}):
            lock = run_lock.Lock()
            lock.acquire(Layout(tmp_path, resolve(changes)))
            lock.release()

    def test_the_system_lets_go_of_it_with_the_process(self, other, tmp_path):
        other.kill()
        other.wait()
        lock = run_lock.Lock()
        lock.acquire(Layout(tmp_path, resolve({})))
        lock.release()

    def test_nothing_is_left_behind(self, tmp_path):
        lock = run_lock.Lock()
        lock.acquire(Layout(tmp_path, resolve({})))
        lock.acquire(Layout(tmp_path, resolve({"seed": 1})))  # lets go of the first one
        lock.release()
        lock.release()
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
        assert not list(tmp_path.rglob("seed_*"))

    def test_a_process_that_says_nothing_of_itself_is_refused_too(self, other, tmp_path):
        (holder,) = tmp_path.rglob("run.json")
        for content in ("", "[]", "{}"):
            holder.write_text(content)
            with pytest.raises(UserError, match="another process works on this run"):
                run_lock.Lock().acquire(Layout(tmp_path, resolve({})))


def test_a_lock_whose_file_is_removed_keeps_others_out(tmp_path):
    path, inside, seen = tmp_path / "below" / "lock", [], []

    def work(number):
        for _ in range(30):
            with locks.alone(path):
                inside.append(number)
                seen.append(len(inside))
                inside.remove(number)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert seen == [1] * 120
    assert not list(path.parent.iterdir())


@pytest.mark.slow
def test_runs_that_begin_at_the_same_instant_give_what_they_give_alone(project, second_project, processes):
    from mlflow import MlflowClient

    uri = f"sqlite:///{project.folder}/runs.db"
    runs = {"smoke/ksas-kcfu/seed_0": "seed=0", "smoke/ksas-kcfu/seed_1": "seed=1"}
    runs["smoke/random-kcfu/seed_0"] = "seed=0,query=random"
    started = [
        project.start(f"{params},tracking.system_metrics=false", MLFLOW_TRACKING_URI=uri) for params in runs.values()
    ]
    processes += started
    for process in started:
        output, _ = process.communicate(timeout=400)
        assert process.returncode == 0, output
        assert "Traceback" not in output
    client = MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name("smoke").experiment_id])
    assert Counter(run.info.status for run in found) == {"FINISHED": 3}
    for run in found:
        for name in run.data.metrics:
            steps = [point.step for point in client.get_metric_history(run.info.run_id, name)]
            assert len(steps) == len(set(steps)), name
        assert len(client.get_metric_history(run.info.run_id, "accuracy")) == 2
    for path, params in runs.items():
        code, output = second_project.run(f"{params},tracking=off")
        assert code == 0, output
        assert project.results(path) == second_project.results(path)
        assert len(project.results(path)) > 10
    assert not [name for name in project.files() if name.endswith((".tmp", "run.lock", "run.json", "images.lock"))]


@pytest.mark.slow
def test_the_same_run_twice_is_refused_before_any_work(project, processes, wait):
    params = "query=own_gate.Gate,tracking=off"
    first = project.start(params)
    processes.append(first)
    wait(lambda: first.poll() is not None or project.gate.with_suffix(".reached").exists())
    before, results = project.files(), project.results("smoke/own_gate.Gate-kcfu/seed_0")
    for arguments in ([], ["--only-missing-outputs"], ["--pipeline", "report"]):
        code, output = project.run(params, *arguments)
        assert code == 1, output
        assert output.count("Error: ") == 1
        assert f"process {first.pid} " in output
        assert "07_model_output/smoke" in output
        assert "Traceback" not in output
    assert project.files() == before
    assert project.results("smoke/own_gate.Gate-kcfu/seed_0") == results
    project.gate.touch()
    output, _ = first.communicate(timeout=200)
    assert first.returncode == 0, output
    code, output = project.run(params)  # once it is over, it can be done again
    assert code == 0, output
