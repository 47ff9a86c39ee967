"""A process that trains clients is killed: the run ends with one message, and resumes to the same results."""

from __future__ import annotations

import contextlib

import psutil
import pytest

PARAMS = "tracking=off,training.processes=2,federation.rounds=30"
RUN = "smoke/ksas-kcfu/seed_0"


def workers_of(pid):
    """Return the processes that train: forked off the one that the run started for that."""
    with contextlib.suppress(psutil.Error):
        for server in psutil.Process(pid).children():
            if any("forkserver" in part for part in server.cmdline()):
                return server.children()
    return []


@pytest.mark.slow
def test_a_killed_worker_ends_the_run_which_then_resumes_to_the_same_bits(project, second_project, processes, wait):
    run = project.start(PARAMS)
    processes.append(run)
    for line in run.stdout:
        if "cycle 0/1, round 1/" in line:
            break
    workers = wait(lambda: workers_of(run.pid))
    assert len(workers) == 2
    workers[0].kill()
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 1, output
    assert output.count("Error: ") == 1
    assert "Traceback" not in output
    assert "A training process ended unexpectedly" in output
    assert "training.processes=1" in output
    assert all(not process.is_running() for process in workers)
    code, output = project.run(PARAMS, "--only-missing-outputs")
    assert code == 0, output
    code, output = second_project.run(PARAMS)
    assert code == 0, output
    assert project.results(RUN) == second_project.results(RUN)
