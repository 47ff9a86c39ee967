"""A run that waits for labels: SCHEDULED in MLflow, and resumed in place."""

import subprocess

import pytest

from kafal_pipeline.config import resolve
from kafal_pipeline.tracking import Tracker
from kafal_pipeline.tracking.deliver.delivery import Addresses, Delivery
from kafal_pipeline.tracking.deliver.system_metrics import SYSTEM
from kafal_pipeline.tracking.journal import JOURNAL, Journal
from kafal_pipeline.tracking.progress import PROGRESS, Progress

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def track(store, tmp_path):
    """A function that starts the tracker of one doing of a run, delivered by hand."""
    _, project, uri = store
    config = resolve({"tracking": {"uri": uri, "system_metrics": False}})
    return lambda: Tracker.start(config, tmp_path, project, comparison="all", execution=tmp_path.name)


def deliver(folder, uri=None):
    (journal,) = folder.glob(f"*/{JOURNAL}")
    delivery = Delivery(journal, Addresses(uri, None))
    return delivery.attempt(over=True, live=True)


def in_mlflow(store, folder):
    """The run of a folder's only journal, if the experiment has no other one of this doing."""
    client, _, _ = store
    experiment = client.get_experiment_by_name("digits").experiment_id
    (run,) = client.search_runs([experiment], f"tags.execution = '{folder.name}'")
    return run


def test_a_run_that_waits_again_and_again_is_one_run_that_ends(store, track, tmp_path):
    client, _, _ = store
    for _ in range(3):  # for its first pool
        track().finish("SCHEDULED")
        assert deliver(tmp_path)
        run = in_mlflow(store, tmp_path)
        assert (run.info.status, run.info.end_time) == ("SCHEDULED", None)
        assert run.data.tags["waiting_for"] == "labels"
    tracker = track()
    tracker.metrics({"accuracy": 0.1}, step=10)
    tracker.finish("SCHEDULED")
    assert deliver(tmp_path)
    assert in_mlflow(store, tmp_path).data.tags["waiting_for"] == "labels"
    tracker = track()
    tracker.metrics({"accuracy": 0.1}, step=10)  # what the cycles on disk say once more
    tracker.metrics({"accuracy": 0.2}, step=20)
    assert deliver(tmp_path)
    assert "waiting_for" not in in_mlflow(store, tmp_path).data.tags
    tracker.finish("FINISHED")
    (tmp_path / next(tmp_path.glob("*")) / PROGRESS).unlink()  # all of it is delivered once more
    assert deliver(tmp_path)
    run = in_mlflow(store, tmp_path)
    assert (run.info.status, "waiting_for" in run.data.tags) == ("FINISHED", False)
    history = client.get_metric_history(run.info.run_id, "accuracy")
    assert [(point.step, point.value) for point in history] == [(10, 0.1), (20, 0.2)]


def test_what_a_tracker_that_was_down_did_not_get_comes_with_the_next_command(store, track, tmp_path):
    _, _, uri = store
    track().finish("SCHEDULED")
    assert not deliver(tmp_path, NOBODY)
    track().finish("SCHEDULED")
    assert deliver(tmp_path, uri)
    assert in_mlflow(store, tmp_path).info.status == "SCHEDULED"
    track()  # killed
    assert deliver(tmp_path, uri)
    assert in_mlflow(store, tmp_path).info.status == "KILLED"
    track().finish("SCHEDULED")
    assert deliver(tmp_path, uri)
    assert in_mlflow(store, tmp_path).data.tags["waiting_for"] == "labels"


def test_a_helper_that_is_killed_leaves_the_run_to_the_next_one(store, tmp_path, monkeypatch):
    client, project, uri = store
    config = resolve({"tracking": {"uri": uri, "system_metrics": False}})
    tracker = Tracker.start(config, tmp_path, project, execution=tmp_path.name)
    process = tracker._helper._process
    process.kill()
    process.wait()
    tracker.finish("SCHEDULED")
    tracker = Tracker.start(config, tmp_path, project, execution=tmp_path.name)
    assert isinstance(tracker._helper._process, subprocess.Popen)
    tracker.finish("SCHEDULED")
    assert in_mlflow(store, tmp_path).data.tags["waiting_for"] == "labels"


def test_system_metrics_wait_for_the_first_accuracy(store, track, tmp_path):
    """MLflow compares runs by the metric that came first."""
    client, _, _ = store
    tracker = track()
    tracker.finish("SCHEDULED")
    samples = Journal(tracker.journal.with_name(SYSTEM))
    samples.append("metrics", step=0, values={"system/cpu": 1.0})
    samples.close()
    assert deliver(tmp_path)
    assert in_mlflow(store, tmp_path).data.metrics == {}
    tracker = track()
    tracker.metrics({"accuracy": 0.1}, step=10)
    tracker.finish("SCHEDULED")
    assert deliver(tmp_path)
    assert in_mlflow(store, tmp_path).data.metrics == {"accuracy": 0.1, "system/cpu": 1.0}
    assert Progress.load(tracker.journal.parent).complete
