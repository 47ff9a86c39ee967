"""Deliveries where the project has moved, the server asks to come back later, or the user has no home directory."""

from __future__ import annotations

import http.server
import sqlite3
import threading
from contextlib import closing

import pytest

from kafal_pipeline.config import resolve
from kafal_pipeline.tracking import Tracker
from kafal_pipeline.tracking.deliver.follow import TRY_LATER
from kafal_pipeline.tracking.deliver.local_store import follow_move
from kafal_pipeline.tracking.progress import Progress

DELIVER = "import sys; from kafal_pipeline.tracking.deliver.__main__ import main; sys.exit(main(sys.argv[1:]))"

NO_HOME = """
import os, pwd
os.environ.pop("HOME", None)
def getpwuid(number):
    raise KeyError(number)
pwd.getpwuid = getpwuid
"""


def record(project, name="run", **tracking):
    """Record a run with a file, and return its tracker."""
    settings = {"system_metrics": False, **tracking}
    folder = project / "data/09_tracking/digits/ksas-kcfu" / name
    run = Tracker.start(resolve({"tracking": settings}), folder, project, comparison="of this test")
    file = project / "data" / f"{name}.csv"
    file.write_text(name)
    run.artifact(file)
    run.metrics({"accuracy": 0.5}, step=20)
    run.finish("FINISHED")
    return run


def test_files_are_found_after_the_project_has_moved(tmp_path, run_python):
    from mlflow import MlflowClient  # seconds

    old, new = tmp_path / "old", tmp_path / "a new place"
    done = record(old, "done")
    assert run_python(DELIVER, done.journal).returncode == 0
    record(old, "open")
    old.rename(new)
    said = run_python(DELIVER, new / "data/09_tracking")
    assert said.returncode == 0, said.stderr
    assert "The project's folder has moved" in said.stderr
    client = MlflowClient(f"sqlite:///{new}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    assert len(runs) == 2
    for run in runs:
        (file,) = client.list_artifacts(run.info.run_id)
        assert (new / "mlruns" / run.info.experiment_id / run.info.run_id / "artifacts" / file.path).is_file()
    assert not old.exists()


@pytest.mark.parametrize(
    ("there", "place", "followed"),
    [
        ([], "old/mlruns/1", True),
        (["old/mlruns/1", "new/mlruns/1"], "old/mlruns/1", True),  # copied
        (["old/mlruns/1"], "old/mlruns/1", False),  # the store of another project
        ([], "of_my_own", False),
    ],
)
def test_a_store_follows_files_that_moved_and_no_others(tmp_path, there, place, followed):
    for folder in there:
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "new").mkdir(exist_ok=True)
    name, before = tmp_path / "new/mlflow.db", f"{tmp_path}/{place}"
    with closing(sqlite3.connect(name)) as store, store:
        store.execute("CREATE TABLE experiments (experiment_id INTEGER, artifact_location TEXT)")
        store.execute("CREATE TABLE runs (artifact_uri TEXT)")
        store.execute("INSERT INTO experiments VALUES (1, ?)", (before,))
        store.executemany("INSERT INTO runs VALUES (?)", [(f"{before}/a",), (f"{before}1/b",)])
    follow_move(f"sqlite:///{name}", tmp_path / "new")
    after = f"{tmp_path}/new/mlruns/1" if followed else before
    with closing(sqlite3.connect(name)) as store:
        assert store.execute("SELECT artifact_location FROM experiments").fetchall() == [(after,)]
        assert store.execute("SELECT artifact_uri FROM runs").fetchall() == [(f"{after}/a",), (f"{before}1/b",)]


def test_who_has_neither_name_nor_home_is_delivered_too(tmp_path, run_python):
    run = record(tmp_path)
    said = run_python(NO_HOME + DELIVER, run.journal)
    assert said.returncode == 0, said.stderr
    assert Progress.load(run.journal.parent).complete


class Later(http.server.BaseHTTPRequestHandler):
    """Answers with the status that is the first part of the path, and would have its client wait for an hour."""

    def do_GET(self):  # noqa: N802 - as its base class says
        status = int(self.path.split("/")[1])
        self.send_response(status)
        self.send_header("Retry-After", "3600")
        if status == http.HTTPStatus.FOUND:
            self.send_header("Location", self.path)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Later) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()
        thread.join()


def test_a_server_that_would_have_us_wait_is_left_for_later(tmp_path, run_python, server):
    runs = {status: record(tmp_path, status, uri=f"{server}/{status}") for status in ("429", "503", "302")}
    said = run_python(DELIVER, *(run.journal for run in runs.values()))  # which waits for a minute at most
    assert said.returncode == TRY_LATER, said.stderr
    for status, run in runs.items():
        problem = Progress.load(run.journal.parent).problem
        assert ("redirects" if status == "302" else status) in problem
