"""The doctor's check of the tracker."""

from __future__ import annotations

import http.server
import sqlite3
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from kafal_pipeline.config import resolve
from kafal_pipeline.pipelines.doctor.checks import tracker
from kafal_pipeline.pipelines.doctor.finding import OK
from kafal_pipeline.tracking import reachable


@pytest.fixture
def server():
    """A server that answers with whatever status code `answer` says."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            state.asked.append((self.path, self.headers.get("Authorization")))
            self.send_response(state.answer)
            self.end_headers()

        def log_message(self, *_):
            pass

    state = SimpleNamespace(answer=200, asked=[])
    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"127.0.0.1:{serving.server_port}"
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield state
    serving.shutdown()
    serving.server_close()


class TestTracker:
    @pytest.fixture(autouse=True)
    def _no_tracker_from_outside(self, monkeypatch):
        for name in (
            "MLFLOW_TRACKING_URI",
            reachable.FOLDERS_ALLOWED,
            *reachable.CREDENTIALS,
            "http_proxy",
            "HTTP_PROXY",
        ):
            monkeypatch.delenv(name, raising=False)

    def check(self, root, uri=None):
        return tracker.check(resolve({"tracking": {"uri": uri}}).tracking, root)

    def test_off(self, tmp_path):
        assert tracker.check(resolve({"tracking": "off"}).tracking, tmp_path).found.startswith("off")

    def test_the_default_store_is_made_by_the_first_run(self, tmp_path):
        found = self.check(tmp_path)
        assert found.status == OK
        assert not list(tmp_path.iterdir())

    def test_a_database_that_is_there(self, tmp_path):
        sqlite3.connect(tmp_path / "mlflow.db").execute("CREATE TABLE runs (id)").connection.close()
        content = (tmp_path / "mlflow.db").read_bytes()
        assert self.check(tmp_path).status == OK
        assert (tmp_path / "mlflow.db").read_bytes() == content
        assert len(list(tmp_path.iterdir())) == 1

    def test_no_database(self, tmp_path):
        (tmp_path / "mlflow.db").write_bytes(b"rubbish" * 100)
        found = self.check(tmp_path)
        assert found.status == "failure"
        assert "not a database" in found.found

    def test_a_locked_database(self, tmp_path, monkeypatch):
        monkeypatch.setattr(reachable, "PATIENCE", 0.1)
        other = sqlite3.connect(tmp_path / "mlflow.db")
        other.execute("CREATE TABLE runs (id)")
        other.execute("BEGIN EXCLUSIVE")
        found = self.check(tmp_path)
        other.close()
        assert found.status == "failure"
        assert "database is locked" in found.found

    def test_a_folder_of_runs_from_before_is_the_default(self, tmp_path, monkeypatch):
        (tmp_path / "mlruns/0").mkdir(parents=True)
        (tmp_path / "mlruns/0/meta.yaml").touch()
        found = self.check(tmp_path)
        assert found.status == "failure"  # MLflow would refuse it
        assert f"{reachable.FOLDERS_ALLOWED}=true" in found.found
        monkeypatch.setenv(reachable.FOLDERS_ALLOWED, "true")
        assert self.check(tmp_path).status == OK

    @pytest.mark.parametrize("uri", ["file:{}/deep/store", "sqlite:///{}/deep/mlflow.db", "{}/deep"])
    def test_a_place_that_cannot_be_written_to(self, tmp_path, uri, monkeypatch):
        monkeypatch.setenv(reachable.FOLDERS_ALLOWED, "true")
        (tmp_path / "file").touch()
        found = self.check(tmp_path, uri.format(tmp_path / "file"))
        assert found.status == "failure"
        assert "tracking.uri" in found.advice

    @pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="only Linux has /proc")
    def test_a_folder_where_no_file_can_be_made(self, tmp_path):
        assert self.check(tmp_path, "sqlite:////proc/x.db").status == "failure"

    def test_a_tracker_that_is_not_required(self, tmp_path):
        section = resolve({"tracking": {"uri": "http://127.0.0.1:9", "required": False}}).tracking
        assert tracker.check(section, tmp_path).status == "warning"

    def test_a_server_that_answers(self, tmp_path, server):
        assert self.check(tmp_path, f"http://{server.address}/mlflow/").status == OK
        assert server.asked == [("/mlflow/health", None)]

    def test_the_environment_names_it_too(self, tmp_path, server, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{server.address}")
        assert server.address in self.check(tmp_path).found

    def test_a_password_is_neither_sent_nor_shown(self, tmp_path, server):
        server.answer = 401
        found = self.check(tmp_path, f"http://me:s3cret@{server.address}")
        assert found.status == OK
        assert "s3cret" not in str(found)
        assert server.asked == [("/health", None)]

    @pytest.mark.parametrize(
        ("answer", "status"), [(401, "failure"), (403, "failure"), (404, OK), (500, "failure"), (503, "failure")]
    )
    def test_other_answers(self, tmp_path, server, answer, status):
        server.answer = answer
        assert self.check(tmp_path, f"http://{server.address}").status == status

    def test_credentials_of_the_environment_count(self, tmp_path, server, monkeypatch):
        server.answer = 401
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "abc")
        assert self.check(tmp_path, f"http://{server.address}").status == OK

    def test_nobody_answers(self, tmp_path):
        found = self.check(tmp_path, "http://me:s3cret@127.0.0.1:9")
        assert found.status == "failure"
        assert "s3cret" not in str(found)

    def test_a_server_that_hangs(self, tmp_path, monkeypatch):
        monkeypatch.setattr(reachable, "PATIENCE", 0.2)
        import socket

        with socket.create_server(("127.0.0.1", 0)) as silent:
            assert self.check(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}").status == "failure"

    def test_an_address_that_is_none(self, tmp_path):
        assert self.check(tmp_path, "http://127.0.0.1:notaport").status == "failure"
