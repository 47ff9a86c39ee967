"""Runs that are killed again and again, at instants drawn at random, end with the bits of one that never was.

make test-faults                       # 100 kills
KAFAL_KILLS=1000 make test-faults
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("KAFAL_KILLS", "100"))
CASES = [
    pytest.param("smoke", 1, 0.43, id="smoke, 1 process"),
    pytest.param("smoke", 2, 0.43, id="smoke, 2 processes"),
    pytest.param(None, 1, 0.07, id="digits, 1 process"),
    pytest.param(None, 2, 0.07, id="digits, 2 processes"),
]
"""Environment, processes, and the share of the kills."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]


def begin(folder, env, processes):
    params = f"seed=5,training.processes={processes},tracking.system_metrics=false"
    if env == "smoke":  # whose cycles take less than a second
        params += ",training.checkpoint_every=0"
    command = [sys.executable, "-m", "kedro", "run", "--pipeline", "fal", "--params", params]
    log = (folder / "log.txt").open("a")
    return subprocess.Popen(
        [*command, *(["--env", env] if env else [])], cwd=folder, stdout=log, stderr=log, start_new_session=True
    )


def kill(process, helper_too):
    """Kill the run without warning, and its tracking helper with it if asked; its workers notice by themselves.

    Returns whether it was killed: it may just have ended.
    """
    try:
        helpers = psutil.Process(process.pid).children(recursive=True) if helper_too else []
    except psutil.Error:
        helpers = []
    process.kill()
    for helper in helpers:
        try:
            helper.kill()
        except psutil.Error:
            continue
    return process.wait() == -signal.SIGKILL


def finished(folder):
    """Return the name of the doing of the run on disk, in a set, if it has ended."""
    records = [json.loads(path.read_text()) for path in (folder / "data/07_model_output").rglob("provenance.json")]
    return {record["execution"] for record in records if record["finished"]}


def tracked(folder):
    """Status and metrics of every run in MLflow."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    return {
        run.info.run_id: (
            run.info.status,
            {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics},
        )
        for run in runs
    }


@pytest.mark.parametrize(("env", "processes", "share"), CASES)
def test_killed_at_random(tmp_path, copy_of_project, digests, env, processes, share, capsys):
    rng = random.Random(f"{env} {processes}")
    start = time.monotonic()
    whole = copy_of_project(tmp_path / "whole")
    assert begin(whole, env, processes).wait() == 0, (whole / "log.txt").read_text()
    duration = time.monotonic() - start
    expected = digests(whole / "data")
    (reference,) = tracked(whole).values()

    folder = copy_of_project(tmp_path / "killed")
    kills, done = 0, set()
    while kills < share * KILLS:
        start = time.monotonic()
        process = begin(folder, env, processes)
        try:
            # At a twentieth it imports packages still; no run gets anywhere if most are killed so early.
            process.wait(rng.uniform(0.05 if kills % 5 == 0 else 0.2, 1.0) * duration)
        except subprocess.TimeoutExpired:
            kills += kill(process, helper_too=rng.random() < 0.3)
            done |= finished(folder)  # if it was killed on its way out: the next one begins again
            continue
        assert process.returncode == 0, (folder / "log.txt").read_text()[-3000:]
        done |= finished(folder)
        duration = min(duration, time.monotonic() - start)  # the first one may have had to share the machine
        assert digests(folder / "data") == expected
    assert begin(folder, env, processes).wait() == 0
    done |= finished(folder)
    assert digests(folder / "data") == expected
    with capsys.disabled():
        print(f"\n{kills} kills survived; {len(done)} runs finished, with the same bits as an undisturbed one")

    deadline = time.monotonic() + 60  # helpers that outlived their runs may still deliver
    while {status for status, _ in tracked(folder).values()} != {"FINISHED"} and time.monotonic() < deadline:
        time.sleep(1)
    runs = tracked(folder)
    assert [status for status, _ in runs.values()] == ["FINISHED"] * len(done)
    for _, metrics in runs.values():
        assert metrics.keys() == reference[1].keys()
        for name, history in metrics.items():
            assert sorted(item.step for item in history) == sorted(item.step for item in reference[1][name]), name
            if "seconds" not in name:
                values = {item.step: item.value for item in history}
                assert values == {item.step: item.value for item in reference[1][name]}, name
