"""A tracker that cannot be reached: at the start it is said before work; later on it costs neither results nor time."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import resolve
from kafal_pipeline.lifecycle.current_run import CurrentRun, Kind
from kafal_pipeline.lifecycle.recorder import Recorder
from kafal_pipeline.tracking import reachable

REFUSED = "http://me:hunter2@127.0.0.1:9"


@contextlib.contextmanager
def serving(answer):
    """Serve HTTP on a free port; `answer` is a status for each path, or None to never answer."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status = answer(self.path)
            if status is None:
                over.wait(60)
                return
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_PUT = do_PATCH = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        over.set()
        server.shutdown()
        server.server_close()


class TestAtTheStart:
    @pytest.mark.parametrize("status", [200, 401, 403, 404])
    def test_a_server_that_answers_is_there(self, status, tmp_path, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter2")
        asked = []
        with serving(lambda path: asked.append(path) or status) as uri:
            assert reachable.problem(f"{uri}/mlflow/", tmp_path) is None
        assert asked == ["/mlflow/health"]

    @pytest.mark.parametrize(("status", "said"), [(500, "500"), (503, "503"), (None, "timed out")])
    def test_one_that_fails_or_hangs_is_not(self, status, said, tmp_path, monkeypatch):
        monkeypatch.setattr(reachable, "PATIENCE", 0.6)
        with serving(lambda _: status) as uri:
            assert said in reachable.problem(uri, tmp_path)

    @pytest.mark.parametrize(
        ("uri", "said"),
        [
            (REFUSED, "Connection refused"),
            ("http://127.0.0.1:port", "nonnumeric port"),
            ("http://[::1", "Invalid IPv6 URL"),
            ("sqlite://", "names no file"),
            ("sqlite:///:memory:", "names no file"),
            ("sqlite+pysqlite:///", "names no file"),
            ("sqlite:///file:x?mode=memory&uri=true", "names no file"),
            ("sqlite://me:hunter2@runs.db", "names no file"),
            ("sqlite:runs.db", "names no file"),
            ("sqlite:///text.txt", "cannot be written as a sqlite database"),
            ("mlruns", "MLFLOW_ALLOW_FILE_STORE"),
            ("file:///mlruns", "MLFLOW_ALLOW_FILE_STORE"),
        ],
    )
    def test_what_is_wrong_is_said_without_the_password(self, uri, said, tmp_path, monkeypatch):
        monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
        (tmp_path / "text.txt").write_text("a text of more than sixteen bytes")
        found = reachable.problem(uri, tmp_path)
        assert said in found
        assert "hunter2" not in found

    @pytest.mark.parametrize(
        "uri", [None, "sqlite:///mlflow.db", "sqlite:///below/it/mlflow.db", "mlruns", "file:./runs"]
    )
    def test_local_stores_are_only_looked_at(self, uri, tmp_path, monkeypatch):
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        monkeypatch.setattr(socket, "socket", None)
        monkeypatch.setattr(socket, "create_connection", None)
        assert reachable.problem(uri, tmp_path) is None
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("uri", [None, "sqlite:///mlflow.db", "sqlite:///below/it/mlflow.db", "mlruns"])
    def test_local_stores_that_must_not_be_written_are_named(self, uri, tmp_path, monkeypatch):
        def refuse(*_, **__):
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
        assert str(tmp_path) in reachable.problem(uri, tmp_path)

    @pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="only Linux has /proc")
    @pytest.mark.parametrize("uri", ["sqlite:////proc/x.db", "sqlite:////proc/not/there/x.db", "/proc/runs"])
    def test_a_place_where_no_file_can_be_made_even_by_an_administrator(self, uri, tmp_path, monkeypatch):
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        assert reachable.problem(uri, tmp_path).startswith("/proc: cannot be written")

    def test_a_name_that_the_system_does_not_take(self, tmp_path):
        assert "File name too long" in reachable.problem(f"sqlite:///{'x' * 300}/y.db", tmp_path)

    def test_a_database_that_is_a_folder(self, tmp_path):
        assert "cannot be written as a sqlite database" in reachable.problem(f"sqlite:///{tmp_path}", tmp_path)

    def test_a_database_that_is_there_is_left_as_it_is(self, tmp_path):
        sqlite3.connect(tmp_path / "mlflow.db").execute("CREATE TABLE runs (id)").connection.close()
        before = (tmp_path / "mlflow.db").read_bytes()
        assert reachable.problem("sqlite:///mlflow.db", tmp_path) is None
        assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]

    def test_of_any_other_address_mlflow_says_what_is_wrong(self, tmp_path):
        found = reachable.problem("postgres://me:hunter2@host/runs", tmp_path)
        assert "postgres" in found
        assert "hunter2" not in found

    def test_any_other_address_that_mlflow_reaches_is_right(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "executable", "true")  # the program of this name answers 0
        assert reachable.problem("azureml://eastus", tmp_path) is None

    @pytest.mark.parametrize("where", ["tracking.uri", "MLFLOW_TRACKING_URI"])
    def test_a_required_tracker_ends_the_run_with_what_to_do(self, where, tmp_path, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", REFUSED if where == "MLFLOW_TRACKING_URI" else "sqlite:///other.db")
        config = resolve({"tracking": {"uri": REFUSED} if where == "tracking.uri" else {}}).tracking
        with pytest.raises(UserError) as caught:
            reachable.check(config, tmp_path, tmp_path / "journals")
        for part in (where, "127.0.0.1:9", "tracking.required=false", "tracking=off", f"deliver {tmp_path}/journals"):
            assert part in str(caught.value)
        assert "hunter2" not in str(caught.value)

    def test_one_that_is_not_required_is_a_warning_with_the_command_for_later(self, tmp_path, caplog):
        config = resolve({"tracking": {"uri": REFUSED, "required": False}}).tracking
        reachable.check(config, tmp_path, tmp_path / "journals")
        assert f"python -m kafal_pipeline.tracking.deliver {tmp_path}/journals" in caplog.text
        assert "hunter2" not in caplog.text

    @pytest.mark.parametrize(
        ("node", "comparison", "tracking", "looked_for"),
        [
            ("cycle_00.train", None, {}, True),
            ("compare.execute", None, {}, True),
            ("cycle_00.train", "mine", {}, False),
            ("cycle_00.train", None, "off", False),
            ("data.load", None, {}, False),
            ("report.draw", None, {}, False),
        ],
    )
    def test_only_who_will_need_it_looks_for_it(self, node, comparison, tracking, looked_for, tmp_path, monkeypatch):
        calls = []
        monkeypatch.setattr(reachable, "check", lambda *arguments: calls.append(arguments))
        run = CurrentRun()
        run._config, run.kind = resolve({"tracking": tracking}), Kind.of([node], 2)
        recorder = Recorder(run)
        recorder.comparison = comparison
        recorder.before_pipeline({})
        assert bool(calls) == looked_for

    def test_a_run_ends_before_it_has_written_anything(self, project):
        code, output = project.run("seed=0", MLFLOW_TRACKING_URI=REFUSED)
        assert code == 1
        assert output.count("Error: ") == 1
        assert "Traceback" not in output
        assert "MLFLOW_TRACKING_URI" in output
        assert "hunter2" not in output
        assert not project.files()


def runs_of(uri):
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("smoke")
    return client, client.search_runs([experiment.experiment_id]) if experiment else []


def assert_delivered_once(uri, journal):
    """Check that the tracker has every metric of a journal exactly once, and the run's end."""
    client, (run,) = runs_of(uri)
    assert run.info.status == "FINISHED"
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    assert run.info.end_time == events[-1]["time"]
    expected = Counter(
        (name, event["step"], value)
        for event in events
        if event["type"] == "metrics"
        for name, value in event["values"].items()
    )
    assert expected
    names = {name for name, _, _ in expected}
    found = Counter(
        (point.key, point.step, point.value)
        for name in names
        for point in client.get_metric_history(run.info.run_id, name)
    )
    assert found == expected
    assert {file.path for file in client.list_artifacts(run.info.run_id)} >= {"figures", "tables", "split"}


def deliver(project, *arguments):
    command = [sys.executable, "-m", "kafal_pipeline.tracking.deliver", "data/09_tracking", *arguments]
    return subprocess.run(
        command, cwd=project.folder, env=project.environment(), capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.slow
def test_a_tracker_that_is_not_required_gets_everything_later(project):
    params = "tracking.required=false,tracking.system_metrics=false,tracking.uri=http://127.0.0.1:9"
    code, output = project.run(params)
    assert code == 0
    assert "Traceback" not in output
    assert output.count("python -m kafal_pipeline.tracking.deliver data/09_tracking/smoke/ksas-kcfu/seed_0") >= 1
    (journal,) = project.folder.rglob("journal.jsonl")
    uri = f"sqlite:///{project.folder}/later.db"
    assert deliver(project).returncode == 75
    for _ in range(2):  # the second time adds nothing
        assert deliver(project, "--uri", uri).returncode == 0
        assert_delivered_once(uri, journal)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A real `mlflow server` on a port of its own."""

    def __init__(self, project, processes, wait):
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._project, self._processes, self._wait = project, processes, wait

    def start(self):
        folder = self._project.folder / "server"
        folder.mkdir(exist_ok=True)
        command = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        command += [
            "--backend-store-uri",
            f"sqlite:///{folder}/mlflow.db",
            "--artifacts-destination",
            str(folder / "files"),
        ]
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *command],
                cwd=folder,
                env=self._project.environment(MLFLOW_DISABLE_TELEMETRY="true"),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)
        self._wait(lambda: process.poll() is not None or reachable.problem(self.uri, folder) is None)
        assert process.poll() is None, (folder / "log").read_text()
        self._process = process

    def kill(self):
        """Kill it with its workers, unless it is dead already."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.mark.slow
def test_a_server_that_is_killed_in_the_middle_and_started_again_has_every_metric_once(project, processes, wait):
    server = Server(project, processes, wait)
    server.start()
    try:
        run = project.start("query=own_gate.Gate,tracking.system_metrics=false", MLFLOW_TRACKING_URI=server.uri)
        processes.append(run)
        wait(lambda: run.poll() is not None or project.gate.with_suffix(".reached").exists())
        (journal,) = project.folder.rglob("journal.jsonl")
        progress = journal.with_name("delivered.json")
        wait(lambda: progress.exists() and json.loads(progress.read_text())["journal"] == journal.stat().st_size)
        server.kill()
        project.gate.touch()
        output, _ = run.communicate(timeout=200)
        assert run.returncode == 0, output
        assert "Nothing is lost" in output
        assert f"python -m kafal_pipeline.tracking.deliver {journal}" in output
        assert json.loads(progress.read_text())["journal"] < journal.stat().st_size
        server.start()
        assert [found.info.status for found in runs_of(server.uri)[1]] == ["RUNNING"]
        for _ in range(2):
            assert deliver(project).returncode == 0
            assert_delivered_once(server.uri, journal)
    finally:
        server.kill()


@pytest.mark.slow
@pytest.mark.parametrize("status", [500, None], ids=["fails", "hangs"])
def test_a_server_that_fails_later_does_not_slow_the_run_down(status, project):
    with serving(lambda path: 200 if path == "/health" else status) as uri:
        code, output = project.run("tracking.system_metrics=false", MLFLOW_TRACKING_URI=uri)
    assert code == 0, output
    assert "Traceback" not in output
    assert "python -m kafal_pipeline.tracking.deliver" in output
    (journal,) = project.folder.rglob("journal.jsonl")
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    assert events[-1]["status"] == "FINISHED"
    began, ended = events[0]["time"] / 1000, events[-1]["time"] / 1000
    assert time.time() - ended < 60  # the wait for the helper, which gets nowhere
    trained = sum(json.loads(file.read_text())["seconds"] for file in project.folder.rglob("train_cost.json"))
    assert ended - began < trained + 30
