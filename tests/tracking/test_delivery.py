"""What goes wrong on the way to MLflow holds up nothing else, is done only once, and ends up where the run meant."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import file_digest
from kafal_pipeline.config import resolve
from kafal_pipeline.tracking import Tracker, helper
from kafal_pipeline.tracking.deliver import __main__ as deliver
from kafal_pipeline.tracking.deliver.delivery import Addresses, Delivery
from kafal_pipeline.tracking.deliver.follow import TRY_LATER, Messages, follow
from kafal_pipeline.tracking.deliver.system_metrics import SYSTEM
from kafal_pipeline.tracking.journal import JOURNAL
from kafal_pipeline.tracking.progress import Progress

NOWHERE = Addresses(None, None)


@pytest.fixture
def journal(store, tmp_path):
    """Return a function that starts a run whose delivery is the test's, in an experiment of its own."""
    _, project, uri = store

    def start(**tracking):
        settings = {"uri": uri, "system_metrics": False, "experiment": tmp_path.name, **tracking}
        return Tracker.start(resolve({"tracking": settings}), tmp_path / "runs", project, comparison="of this test")

    return start


def of(run, client):
    return client.get_run(Progress.load(run.journal.parent).run_id)


def record_model(run, tmp_path):
    """Record a file as the model: what it holds is no matter to the delivery."""
    script = tmp_path / "model.pt"
    script.write_bytes(b"script")
    digest = file_digest(script)
    event = {
        "path": str(script),
        "sha256": digest,
        "state_sha256": "s",
        "pytorch_version": "2",
        "image_shape": [1, 2, 2],
    }
    run._append("model", **event, classes=["a", "b"], step=20)


def test_where_files_cannot_be_kept_the_numbers_and_the_end_are_delivered(journal, store, tmp_path, caplog):
    client, _, _ = store
    client.create_experiment(tmp_path.name, artifact_location="file:///proc/nowhere")
    run = journal()
    (tmp_path / "split.json").write_text("{}")
    run.artifact(tmp_path / "split.json")
    record_model(run, tmp_path)
    run.metrics({"accuracy": 0.5}, step=20)
    run.finish("FINISHED")
    for _ in range(3):
        assert deliver.main([str(run.journal)]) == TRY_LATER
    found = of(run, client)
    assert found.info.status == "FINISHED"
    assert found.data.metrics == {"accuracy": 0.5}
    progress = Progress.load(run.journal.parent)
    assert len(progress.pending) == 2
    assert "/proc/nowhere" in progress.problem
    assert len(client.search_logged_models([found.info.experiment_id])) <= 1


def test_a_file_that_had_to_wait_comes_later(journal, store, tmp_path, monkeypatch):
    import mlflow  # seconds

    client, _, _ = store
    run = journal()
    (tmp_path / "split.json").write_text("{}")
    run.artifact(tmp_path / "split.json")
    run.finish("FINISHED")
    with monkeypatch.context() as broken:
        broken.setattr(mlflow.MlflowClient, "log_artifact", lambda *_: (_ for _ in ()).throw(OSError("no space")))
        assert deliver.main([str(run.journal)]) == TRY_LATER
    assert deliver.main([str(run.journal)]) == 0
    progress = Progress.load(run.journal.parent)
    assert (progress.pending, progress.problem, progress.skipped) == ([], None, [])
    assert [file.path for file in client.list_artifacts(progress.run_id)] == ["split.json"]


def test_a_file_that_has_to_wait_is_not_forgotten_where_the_tracker_fails_meanwhile(
    journal, store, tmp_path, monkeypatch
):
    import mlflow  # seconds

    from kafal_pipeline.tracking.deliver.mlflow_run import Store

    client, _, _ = store
    run = journal()
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text("{}")
        run.artifact(tmp_path / name)
    run.finish("FINISHED")

    def down(*_):
        raise OSError("down")

    with monkeypatch.context() as broken:
        broken.setattr(mlflow.MlflowClient, "log_artifact", down)
        assert deliver.main([str(run.journal)]) == TRY_LATER
        assert len(Progress.load(run.journal.parent).pending) == 2
        broken.setattr(Store, "check", down)
        assert deliver.main([str(run.journal)]) == TRY_LATER
        assert len(Progress.load(run.journal.parent).pending) == 2
    assert deliver.main([str(run.journal)]) == 0
    files = [file.path for file in client.list_artifacts(Progress.load(run.journal.parent).run_id)]
    assert files == ["a.json", "b.json"]


def test_a_model_is_logged_once_with_the_metrics_of_the_last_cycle(journal, store, tmp_path, monkeypatch):
    from kafal_pipeline.tracking.deliver.mlflow_run import Store

    client, _, _ = store
    run = journal()
    run.metrics({"train_round_loss": 2.0}, step=0)
    run.metrics({"accuracy": 0.5}, step=20)
    record_model(run, tmp_path)
    run.finish("FINISHED")
    with monkeypatch.context() as broken:  # between the model and the note that it is there
        broken.setattr(Store, "check", lambda _: None)
        real = client.__class__.log_batch

        def log_batch(self, run_id, metrics=(), params=(), tags=()):
            if any(tag.key == "model" for tag in tags):
                raise OSError("cut off")
            return real(self, run_id, metrics=metrics, params=params, tags=tags)

        broken.setattr(client.__class__, "log_batch", log_batch)
        assert deliver.main([str(run.journal)]) == TRY_LATER
    assert deliver.main([str(run.journal)]) == 0
    (model,) = client.search_logged_models([of(run, client).info.experiment_id])
    assert of(run, client).data.tags["model"] == f"models:/{model.model_id}"
    assert [(metric.key, metric.value) for metric in model.metrics] == [("accuracy", 0.5)]


def test_a_number_that_is_refused_takes_no_other_with_it(journal, store):
    client, _, _ = store
    run = journal()
    run.metrics({"first": 1.0, "not|allowed": 1.0}, step=0)
    run.metrics({"last": 1.0}, step=0)
    run.finish("FINISHED")
    assert deliver.main([str(run.journal)]) == 0
    assert of(run, client).data.metrics == {"first": 1.0, "last": 1.0}
    assert len(Progress.load(run.journal.parent).skipped) == 1


def test_a_run_that_was_deleted_gets_everything_once_it_is_restored(journal, store):
    client, _, _ = store
    run = journal()
    delivery = Delivery(run.journal, NOWHERE)
    assert delivery.attempt(over=False, live=True)
    client.delete_run(delivery.progress.run_id)
    for step in range(3):
        run.metrics({"accuracy": 0.5}, step=step)
        assert not delivery.attempt(over=False, live=True)
    assert "mlflow runs restore" in delivery.progress.problem
    assert not delivery.progress.skipped
    client.restore_run(delivery.progress.run_id)
    run.finish("FINISHED")
    assert deliver.main([str(run.journal)]) == 0
    assert of(run, client).info.status == "FINISHED"
    assert len(client.get_metric_history(delivery.progress.run_id, "accuracy")) == 3


def test_a_store_that_was_removed_is_delivered_to_again(journal, tmp_path, run_python):
    import mlflow  # seconds
    from sqlalchemy.engine import URL  # comes with mlflow

    folder = tmp_path / "a folder, 100%20"
    folder.mkdir()
    uri = URL.create("sqlite", database=str(folder / "own.db")).render_as_string()
    run = journal(uri=uri)
    run.metrics({"accuracy": 0.5}, step=1)
    run.finish("FINISHED")
    command = "import sys; from kafal_pipeline.tracking.deliver.__main__ import main; sys.exit(main(sys.argv[1:]))"
    assert run_python(command, run.journal).returncode == 0  # in processes of their own: MLflow keeps connections
    (folder / "own.db").unlink()
    assert "give --uri" in run_python(command, run.journal).stderr
    assert run_python(command, run.journal, "--uri", uri).returncode == 0
    assert of(run, mlflow.MlflowClient(uri)).data.metrics == {"accuracy": 0.5}


def test_an_address_with_credentials_is_asked_for(journal, monkeypatch, caplog):
    run = journal(uri="http://me:secret@127.0.0.1:9")
    run.finish("FINISHED")
    assert deliver.main([str(run.journal)]) == 1
    assert "Set MLFLOW_TRACKING_URI" in caplog.text
    assert "secret" not in run.journal.read_text()


def test_addresses_are_those_of_the_run(tmp_path):
    hidden, none = {"uri": "http://***@outside"}, {"uri": None}
    from_outside = Addresses(None, "http://me:secret@outside")
    assert from_outside.of(hidden, tmp_path) == "http://me:secret@outside"
    assert from_outside.of(none, tmp_path) is None
    assert Addresses("http://given", "http://outside").of(none, tmp_path) == "http://given"
    for other in (NOWHERE, Addresses(None, "http://me:secret@elsewhere")):
        with pytest.raises(UserError, match="credentials"):
            other.of(hidden, tmp_path)


def test_a_run_without_an_address_goes_to_its_project_whatever_the_variable_says_later(
    tmp_path, run_python, monkeypatch
):
    run = Tracker.start(
        resolve({"tracking": {"system_metrics": False}}), tmp_path / "runs", tmp_path, comparison="of this test"
    )
    run.finish("FINISHED")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")
    command = "import sys; from kafal_pipeline.tracking.deliver.__main__ import main; sys.exit(main(sys.argv[1:]))"
    done = run_python(command, run.journal)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "other.db").exists()
    assert Progress.load(run.journal.parent).store.startswith(f"sqlite:///{tmp_path}/")


def test_a_damaged_file_beside_one_journal_ends_the_delivery_of_no_other(journal, store):
    client, _, _ = store
    good, bad = journal(), journal(system_metrics=True)
    bad.journal.with_name(SYSTEM).write_text("damaged\n")
    for run in (bad, good):
        run.metrics({"accuracy": 0.5}, step=1)
        run.finish("FINISHED")
    messages = Messages()
    for run in (bad, good):
        messages.put({"follow": str(run.journal)})
    messages.put(None)
    assert follow(messages, NOWHERE, patience=30) == 1
    assert of(good, client).info.status == "FINISHED"


def test_who_does_not_want_to_wait_for_the_delivery_has_a_finished_run_all_the_same(
    store, tmp_path, monkeypatch, caplog
):
    client, project, uri = store
    run = Tracker.start(resolve({"tracking": {"uri": uri, "system_metrics": False}}), tmp_path, project)
    process = run._helper._process

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as impatient:
        impatient.setattr(helper.Helper, "_wait", interrupted)
        run.finish("FINISHED")
    assert "is still delivering to MLflow" in caplog.text
    assert process.wait(60) == 0
    assert of(run, client).info.status == "FINISHED"


def test_a_helper_that_gets_no_core_is_replaced_by_one_that_does_not_give_way(store, tmp_path, monkeypatch):
    client, project, uri = store
    run = Tracker.start(resolve({"tracking": {"uri": uri, "system_metrics": False}}), tmp_path, project)
    first, started, waited = run._helper._process, [], iter(range(0, 1000, 10))
    os.kill(first.pid, signal.SIGSTOP)  # it does not get on
    start = subprocess.Popen

    def popen(*arguments, **options):
        started.append(start(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(helper.subprocess, "Popen", popen)
    monkeypatch.setattr(helper, "PATIENCE", 0.5)
    monkeypatch.setattr(helper, "seconds_ready", lambda _: next(waited))
    run.metrics({"accuracy": 0.5}, step=1)
    run.finish("FINISHED")
    assert first.returncode == -signal.SIGKILL
    assert [process.returncode for process in started] == [0]
    assert "--now" in started[0].args
    assert of(run, client).info.status == "FINISHED"
    assert of(run, client).data.metrics == {"accuracy": 0.5}


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="only Linux says so")
def test_it_is_known_how_long_a_process_waits_for_a_core():
    assert helper.seconds_ready(os.getpid()) >= 0
    assert math.isnan(helper.seconds_ready(2**30))


def test_a_damaged_note_of_progress_does_not_end_a_run_that_waits(store, tmp_path, caplog):
    _, project, uri = store
    run = Tracker.start(resolve({"tracking": {"uri": uri, "system_metrics": False}}), tmp_path, project)
    run.journal.with_name("delivered.json").write_text("{")
    run.finish("FINISHED")
    assert "To deliver it later" in caplog.text
    assert "damaged" in run.journal.with_name(helper.LOG).read_text()


def test_a_damaged_note_of_progress_does_not_end_the_run(journal, tmp_path):
    run = journal()
    run.journal.with_name("delivered.json").write_text("{")
    run.metrics({"accuracy": 0.5}, step=1)
    run.finish("FINISHED")
    copy = tmp_path / "copy"
    shutil.copytree(run.journal.parent, copy)
    assert deliver.main([str(copy / JOURNAL)]) == 1
    assert json.loads(run.journal.read_text().splitlines()[-1])["status"] == "FINISHED"
