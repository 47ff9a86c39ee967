"""The first view of an experiment in MLflow, and its guide."""

from __future__ import annotations

import json

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from kafal_pipeline.config import resolve
from kafal_pipeline.tracking import Tracker, view
from kafal_pipeline.tracking.deliver.delivery import Addresses, Delivery
from kafal_pipeline.tracking.deliver.system_metrics import SYSTEM
from kafal_pipeline.tracking.journal import JOURNAL, Journal
from kafal_pipeline.tracking.progress import Progress

TAG = f"mlflow.sharedViewState.{view.KEY}"


@pytest.fixture
def deliver(store, tmp_path):
    """Return a function that delivers a run, in an experiment of the test's own, and returns its progress."""
    _, project, uri = store

    def run(number):
        settings = {"uri": uri, "system_metrics": False, "experiment": tmp_path.name}
        tracker = Tracker.start(
            resolve({"tracking": settings}), tmp_path / f"{number}", project, comparison="of this test"
        )
        tracker.metrics({"train_round_loss": 1.0}, step=0)
        tracker.metrics({"labels": 20.0, "accuracy": 0.5}, step=20)
        tracker.finish("FINISHED")
        assert Delivery(tracker.journal, Addresses(None, None)).attempt(over=True, live=False)
        return Progress.load(tracker.journal.parent)

    return run


def test_the_view_has_accuracy_over_labels_and_the_two_scores_as_columns():
    state = json.loads(json.loads(view.tags()[TAG])["state"])
    (line,) = (chart for chart in state["compareRunCharts"] if chart["type"] == "LINE")
    assert (line["metricKey"], line["xAxisKey"], line["selectedXAxisMetricKey"]) == ("accuracy", "metric", "labels")
    assert state["selectedColumns"][:2] == ["metrics.`aulc`", "metrics.`final_accuracy`"]
    assert state["groupBy"]["groupByKeys"] == [{"mode": "param", "groupByData": "strategy"}]
    sections = {section["uuid"]: section for section in state["compareRunSections"]}
    shown = [sections[chart["metricSectionId"]] for chart in state["compareRunCharts"]]
    assert all(section["display"] for section in shown)
    assert {section["name"] for section in sections.values() if not section["display"]} == {
        "Model metrics",
        "System metrics",
    }
    assert all(len(value) <= 5000 for value in view.tags().values())  # the longest that MLflow takes
    assert view.NAME in view.NOTE


def test_an_experiment_gets_view_and_guide_once_and_runs_of_one_strategy_have_different_names(deliver, store):
    client, _, _ = store
    first = deliver(1)
    experiment = client.get_run(first.run_id).info.experiment_id
    assert view.tags().items() <= client.get_experiment(experiment).tags.items()
    client.set_experiment_tag(experiment, "mlflow.note.content", "My own.")
    second = deliver(2)
    assert client.get_experiment(experiment).tags["mlflow.note.content"] == "My own."
    names = [client.get_run(progress.run_id).info.run_name for progress in (first, second)]
    assert names == ["ksas-kcfu-seed0", "ksas-kcfu-seed0 (2)"]
    assert first.page == second.page == view.page(experiment)


def test_a_tracker_that_refuses_tags_of_experiments_is_given_the_numbers(deliver, store, monkeypatch):
    def refuse(*_):
        raise MlflowException("permission denied")

    monkeypatch.setattr(MlflowClient, "set_experiment_tag", refuse)
    found = store[0].get_run(deliver(1).run_id)
    assert found.data.metrics["accuracy"] == 0.5
    assert TAG not in store[0].get_experiment(found.info.experiment_id).tags


def test_the_first_metric_of_a_store_is_the_accuracy(deliver, store):
    assert next(iter(store[0].get_run(deliver(1).run_id).data.metrics)) == "accuracy"


def test_samples_of_the_machine_come_once_there_is_an_accuracy(store, tmp_path):
    _, project, uri = store
    settings = {"uri": uri, "system_metrics": False, "experiment": tmp_path.name}
    run = Tracker.start(resolve({"tracking": settings}), tmp_path, project, comparison="of this test")
    samples = Journal(run.journal.with_name(SYSTEM))
    samples.append("metrics", step=0, values={"system/cpu_utilization_percentage": 1.0})
    delivery = Delivery(run.journal, Addresses(None, None))
    assert delivery.attempt(over=False, live=True)
    assert delivery.progress.system == 0
    run.metrics({"accuracy": 0.5}, step=20)
    assert delivery.attempt(over=False, live=True)
    assert delivery.progress.system > 0
    assert next(iter(store[0].get_run(delivery.progress.run_id).data.metrics)) == "accuracy"


def test_the_page_is_the_newest_journals(tmp_path):
    assert Progress.newest_page(tmp_path) is None
    for time, page in (("20260101", "#/old"), ("20260102", "#/new"), ("20260103", None)):
        folder = tmp_path / time
        folder.mkdir()
        (folder / JOURNAL).touch()
        Progress(page=page).save(folder)
        assert Progress.newest_page(tmp_path) == page
    (folder / "delivered.json").write_text("{")
    assert Progress.newest_page(tmp_path) is None
