"""Processes side by side, with small tasks in the place of runs."""

from __future__ import annotations

import importlib
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from kafal_pipeline.config import resolve
from kafal_pipeline.pipelines.compare.side_by_side import execute, launch, others
from kafal_pipeline.runs import lock as run_lock
from kafal_pipeline.runs.layout import Layout

FORKSERVER = "multiprocessing.forkserver"


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)  # where processes find it, too
    monkeypatch.setattr(launch, "main", importlib.import_module("small_tasks").small_task)
    monkeypatch.setattr(launch, "PRELOADED", [])


def small(kind, seconds):
    return importlib.import_module("small_tasks").SmallTask(kind, seconds)


def run(tasks, jobs=2, limit=100.0):
    """Return how each task ended, and the most of them at any one time."""
    times = []
    launcher = launch.Launcher(jobs, limit, lambda key, message: times.append((message[1], message[0], key)))
    ended = dict(launcher.run((key, small(*task)) for key, task in tasks.items()))
    going, most = 0, 0
    for _, kind, _ in sorted(times):
        going += {"began": 1, "ended": -1}.get(kind, 0)
        most = max(most, going)
    return ended, most


def own_processes():
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if FORKSERVER in " ".join(child.cmdline()) and child.parent().pid != os.getpid()
    ]


def test_each_task_ends_in_its_own_way_and_none_ends_the_others():
    ways = {"a": ("do", 0.1), "b": ("fail", 0.1), "c": ("kill", 0.1), "d": ("exit", 0.1), "e": ("do", 0.1)}
    ended, _ = run(ways)
    assert ended == {
        "a": None,
        "b": "out of ideas",
        "c": "The process was ended by signal 9, perhaps for lack of memory (see small.log).",
        "d": "The process ended with 3 (see small.log).",
        "e": None,
    }


@pytest.mark.parametrize(("jobs", "limit", "expected"), [(1, 100.0, 1), (3, 100.0, 3), (3, 1e-9, 1)])
def test_as_many_side_by_side_as_jobs_and_memory_allow(jobs, limit, expected):
    ended, most = run({number: ("do", 0.7) for number in range(4)}, jobs, limit)
    assert ended == dict.fromkeys(range(4))
    assert most == expected


@pytest.mark.parametrize(
    ("first", "needs", "before", "after"),
    [
        ("cycle", 1.0, 4, 8),  # limit / 2 GB until one has got through a cycle, then as many as its memory allows
        ("fail", 1.0, 4, 4),  # which tells nothing
        ("do", 1.0, 4, 4),  # nor does one that found nothing to do
        ("cycle", 4.0, 4, 2),  # however many began before that was known
    ],
)
def test_memory_is_learnt_from_runs_that_got_somewhere(monkeypatch, first, needs, before, after):
    monkeypatch.setattr(launch, "_memory", lambda pid: needs)
    launcher = launch.Launcher(16, 8.0, lambda key, message: None)
    ends = launcher.run([("first", small(first, 1.0)), *((number, small("do", 60.0)) for number in range(15))])
    most = []
    monkeypatch.setattr(launch, "_start", lambda *task, start=launch._start: (most.append(task[1]), start(*task))[1])
    monkeypatch.setattr(launcher, "_wait", lambda wait=launcher._wait: (most.append(None), wait())[1])
    assert next(ends)[0] == "first"
    ends.close()
    assert most.index(None) == before
    launcher._children = [None] * (after - 1)
    assert launcher._has_room()
    launcher._children = [None] * after
    assert not launcher._has_room()


def test_the_usual_limit_of_a_small_machine_lets_two_runs_begin():
    launcher = launch.Launcher(2, 0.8 * 24, lambda key, message: None)
    launcher._children = [None]
    assert launcher._has_room()


def test_the_usual_limit_is_of_what_the_container_has_left(tmp_path, monkeypatch):
    for name, content in (("proc/self/cgroup", "0::/"), ("sys/fs/cgroup/memory.max", "6" + "0" * 9)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{content}\n")
    (tmp_path / "sys/fs/cgroup/memory.current").write_text("1000000000\n")
    monkeypatch.setattr(launch.psutil, "virtual_memory", lambda: SimpleNamespace(available=24e9))
    assert launch.memory_limit(None, tmp_path) == 4.0
    assert launch.first_runs(4.0) == 2
    assert launch.memory_limit(None, tmp_path / "none") == pytest.approx(0.8 * 24)
    assert launch.memory_limit(7.0, tmp_path) == 7.0
    assert launch.first_runs(0.5) == 1


def test_nothing_to_run():
    assert run({}) == ({}, 0)


def test_no_process_is_left_when_the_iteration_is_given_up():
    heard = []
    launcher = launch.Launcher(2, 100.0, lambda key, message: heard.append((key, message[0])))
    ends = launcher.run([("quick", small("do", 1.0)), ("deaf", small("deaf", 0.0)), ("never", small("do", 0.0))])
    assert next(ends) == ("quick", None)
    assert ("deaf", "deaf") in heard
    processes = own_processes()
    assert processes
    start = time.monotonic()
    ends.close()
    assert time.monotonic() - start < launch.PATIENCE + 5
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert not alive


@pytest.mark.parametrize("left", [True, False])
def test_what_another_command_works_on_is_waited_for_and_run_only_if_it_was_left_unfinished(
    tmp_path, monkeypatch, caplog, left
):
    monkeypatch.setattr(others, "LOOK", 0.05)
    monkeypatch.setattr(run_lock, "PATIENCE", 0.05)
    runs = {f"seed_{seed}": Layout(tmp_path, resolve({"seed": seed})) for seed in range(3)}
    other = run_lock.Lock()
    other.acquire(runs["seed_1"])
    asked = []

    def tasks(paths):
        asked.append(list(paths))
        return [(path, small("taken" if run_lock.held(runs[path]) else "do", 0.0)) for path in paths]

    def look(run, held=run_lock.held):
        if found := held(run):
            threading.Timer(0.2, other.release).start()
        return found

    launcher = launch.Launcher(2, 100.0, lambda key, message: None)
    ends = others.run_beside_others(launcher, runs, tasks, lambda run: left)
    with caplog.at_level("INFO"):
        first = [next(ends), next(ends)]
        monkeypatch.setattr(others.run_lock, "held", look)
        last = list(ends)
    assert sorted(first) == [("seed_0", None), ("seed_2", None)]
    assert last == [("seed_1", None)]
    assert asked == [["seed_0", "seed_1", "seed_2"]] + ([] if left else [["seed_1"]])
    assert "Another command works on seed_1" in caplog.text


@pytest.mark.parametrize(
    ("runs", "jobs", "processes", "expected"),
    [
        (8, 4, 1, [1] * 8),
        (5, 4, 1, [1, 1, 1, 1, 4]),
        (6, 4, 1, [1, 1, 1, 1, 2, 2]),
        (7, 4, 1, [1, 1, 1, 1, 1, 1, 1]),
        (2, 2, 2, [2, 2]),
        (3, 1, None, [None, None, None]),
        (0, 1, None, []),
    ],
)
def test_the_last_runs_train_on_the_cores_that_nothing_else_needs(monkeypatch, runs, jobs, processes, expected):
    monkeypatch.setattr(execute, "cores", lambda: 4)
    assert execute.shares(runs, jobs, processes) == expected
