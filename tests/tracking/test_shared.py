"""Journals of several runs, and the comparison's own, delivered by one process."""

from __future__ import annotations

import logging
import os
from functools import partialmethod

import mlflow

from kafal_pipeline.config import resolve
from kafal_pipeline.config.compare import CompareConfig
from kafal_pipeline.tracking import Tracker
from kafal_pipeline.tracking.comparison import record_comparison, untracked
from kafal_pipeline.tracking.deliver import __main__ as deliver
from kafal_pipeline.tracking.deliver.delivery import Addresses, Delivery
from kafal_pipeline.tracking.deliver.mlflow_run import Store
from kafal_pipeline.tracking.helper import Helper
from kafal_pipeline.tracking.journal import read
from kafal_pipeline.tracking.progress import Progress


def test_one_process_delivers_finished_and_killed_runs_and_the_report(store, tmp_path, caplog, gives_way):
    client, project, uri = store
    config = resolve({"tracking": {"uri": uri, "system_metrics": False}})
    delivery = Helper(uri, project, tmp_path)
    runs = [Tracker.start(config, tmp_path / str(i), project, comparison="mine") for i in range(2)]
    for run in runs:
        delivery.follow(run.journal)
        run.metrics({"accuracy": 0.5}, step=10)
    if hasattr(os, "nice"):
        assert gives_way(delivery._process.pid) == min(deliver.COURTESY, 19 - os.nice(0))
    runs[0].finish("FINISHED")
    runs[1].abort()
    for run in runs:
        delivery.over(run.journal)
    page, figure = tmp_path / "report.html", tmp_path / "curves.png"
    page.write_text("<html></html>")
    figure.write_bytes(b"png")
    compare = CompareConfig.model_validate({"name": "mine", "queries": ["random", "ksas"], "seeds": "0-2"})
    scalars = {"winner": "ksas-kcfu", "seeds": 3, "aulc": {"ksas-kcfu": 0.75}}
    own = record_comparison(compare, config, tmp_path, [page, figure], scalars)
    delivery.follow(own)
    delivery.over(own)
    delivery.close()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    found = [client.get_run(Progress.load(journal.parent).run_id) for journal in (*(run.journal for run in runs), own)]
    assert [run.info.status for run in found] == ["FINISHED", "KILLED", "FINISHED"]
    assert {(run.data.tags["comparison"], run.data.tags["comparison.mine"]) for run in found} == {("mine", "yes")}
    assert len({run.info.experiment_id for run in found}) == 1
    report = found[2]
    assert report.info.run_name == "comparison mine"
    assert report.data.metrics == {"strategies.seeds": 3.0, "strategies.aulc.ksas-kcfu": 0.75}
    assert report.data.params["compare.queries"] == "random, ksas"
    assert report.data.params["training.lr"] == "0.05"
    assert {item.path for item in client.list_artifacts(report.info.run_id)} == {"report.html", "figures"}


def test_runs_that_are_used_again_get_a_tag_of_each_comparison(store, tmp_path, monkeypatch):
    client, project, uri = store
    search = mlflow.MlflowClient.search_runs  # in pages of two
    monkeypatch.setattr(mlflow.MlflowClient, "search_runs", partialmethod(search, max_results=2))
    config = resolve({"tracking": {"uri": uri, "system_metrics": False}})
    made = {"before": "earlier", "alone": None, "other": "earlier"}
    journals = {}
    for name, comparison in made.items():
        run = Tracker.start(config, tmp_path / name, project, comparison=comparison, execution=name)
        run.finish("FINISHED")
        journals[name] = run.journal
    for name in ("my-own.1", "later"):
        compare = CompareConfig.model_validate({"name": name, "queries": ["random"], "seeds": [0]})
        journals[name] = record_comparison(compare, config, tmp_path, [], {}, ["before", "alone", "untracked"])
    addresses = Addresses(uri, None)
    assert all(Delivery(journal, addresses).attempt(over=True, live=False) for journal in journals.values())
    ids = {name: Progress.load(journal.parent).run_id for name, journal in journals.items()}
    tags = {name: client.get_run(run_id).data.tags for name, run_id in ids.items()}
    assert {name: found["comparison"] for name, found in tags.items()} == {
        "before": "earlier", "alone": "my-own.1", "other": "earlier", "my-own.1": "my-own.1", "later": "later"
    }  # fmt: skip
    experiment = client.get_experiment_by_name("digits").experiment_id
    for name, users in {
        "earlier": {"before", "other"},
        "my-own.1": {"before", "alone", "my-own.1"},
        "later": {"before", "alone", "later"},
    }.items():
        found = search(client, [experiment], f"tags.\"comparison.{name}\" = 'yes'")
        assert {run.info.run_id for run in found} == {ids[user] for user in users}


def test_a_comparison_writes_its_tag_without_reading_those_of_others(store, tmp_path, monkeypatch):
    """Two that end together, and a run whose own tags come late, take nothing away from each other."""
    client, project, uri = store
    config = resolve({"tracking": {"uri": uri, "system_metrics": False}})
    run = Tracker.start(config, tmp_path / "run", project, comparison="maker", execution="late")
    run.finish("FINISHED")
    start, tags = [entry.event for entry in read(run.journal)][:2]
    made = Store(start, uri)
    at_once = client.search_runs([made.experiment_id], "tags.execution = 'late'")
    monkeypatch.setattr(mlflow.MlflowClient, "search_runs", lambda *_, **__: at_once)
    for name in ("first", "second"):
        made.apply({"type": "members", "comparison": name, "executions": ["late"]})
    made.log([tags])
    found = client.get_run(made.run_id).data.tags
    assert {key: value for key, value in found.items() if key.startswith("comparison")} == {
        "comparison": "maker", "comparison.maker": "yes", "comparison.first": "yes", "comparison.second": "yes"
    }  # fmt: skip


def test_what_is_delivered_late_gives_a_comparison_its_runs_first(store, tmp_path):
    """By their paths, comparisons come before most of the runs that they use."""
    client, project, uri = store
    config = resolve({"tracking": {"uri": uri, "system_metrics": False}})
    folder = tmp_path / "data/09_tracking"
    run = Tracker.start(config, folder / "digits/ksas-kcfu/seed_0", project, comparison="other", execution="member")
    run.finish("FINISHED")
    compare = CompareConfig.model_validate({"name": "mine", "queries": ["ksas"], "seeds": [0]})
    record_comparison(compare, config, tmp_path, [tmp_path / "taken_away.png"], {}, ["member"])
    assert deliver.main([str(folder)]) == 0
    assert client.get_run(Progress.load(run.journal.parent).run_id).data.tags["comparison.mine"] == "yes"


def test_runs_whose_journals_are_for_another_tracker_or_experiment_are_reported(tmp_path, monkeypatch):
    config = resolve({"tracking": {"uri": "http://here.example"}})
    others = [{"uri": "http://there.example"}, {"uri": "http://here.example", "experiment": "other"}]
    for name, tracking in zip(("made", "there", "other"), (config.tracking.model_dump(), *others), strict=True):
        made = resolve({"tracking": tracking})
        folder = tmp_path / "data/09_tracking" / name
        Tracker.start(made, folder, tmp_path, comparison="mine", execution=name).finish("FINISHED")
    damaged = tmp_path / "data/09_tracking/damaged/20260101/journal.jsonl"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("[]\nnothing\n")
    members = {name: name for name in ("made", "there", "other", "damaged", "never")}
    assert untracked(members, config, tmp_path) == ["there", "other", "damaged", "never"]
    assert untracked({"made": "done again"}, config, tmp_path) == ["made"]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there.example")
    assert untracked({"there": "there"}, resolve({}), tmp_path) == []


def test_nothing_is_started_where_nothing_is_tracked(tmp_path):
    delivery = Helper(None, tmp_path, tmp_path)
    delivery.over(tmp_path / "journal.jsonl")
    delivery.close()
    assert not list(tmp_path.iterdir())


def test_another_process_takes_over_from_one_that_is_gone(store, tmp_path, caplog):
    client, project, uri = store
    config = resolve({"tracking": {"uri": uri, "system_metrics": False}})
    delivery = Helper(uri, project, tmp_path)
    runs = [Tracker.start(config, tmp_path / str(i), project, comparison="mine") for i in range(2)]
    delivery.follow(runs[0].journal)
    gone = delivery._process
    gone.kill()
    gone.wait()
    delivery.follow(runs[1].journal)
    assert delivery._process is not gone
    for run in runs:
        run.metrics({"accuracy": 0.5}, step=10)
        run.finish("FINISHED")
        delivery.over(run.journal)
    delivery.close()
    found = [client.get_run(Progress.load(run.journal.parent).run_id).info.status for run in runs]
    assert found == ["FINISHED", "FINISHED"]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
