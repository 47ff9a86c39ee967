"""Samples of the machine's load."""

from __future__ import annotations

import time

import mlflow
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from kafal_pipeline.tracking.deliver.system_metrics import SYSTEM, SystemSampler
from kafal_pipeline.tracking.journal import read


def test_samples_are_mlflows_and_go_on_from_those_before_without_a_tracker(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where MLflow would begin a store of its own
    mlflow.set_tracking_uri(None)
    path = tmp_path / SYSTEM
    for _ in range(2):
        sampler = SystemSampler(path, interval=0.1)
        before, deadline = len(read(path)), time.monotonic() + 20
        while len(read(path)) < before + 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        sampler.stop()
    assert [item.name for item in tmp_path.iterdir()] == [SYSTEM]
    events = [entry.event for entry in read(path)]
    assert [event["step"] for event in events] == list(range(len(events)))
    assert len(events) >= 4
    values = events[-1]["values"]
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= set(values)
    assert 0 <= values["system/cpu_utilization_percentage"] <= 100
    assert values["system/system_memory_usage_megabytes"] > 0


def test_monitors_are_those_that_mlflow_chooses(tmp_path):
    theirs = SystemMetricsMonitor(run_id="", tracking_uri=f"sqlite:///{tmp_path / 'other.db'}").monitors
    sampler = SystemSampler(tmp_path / SYSTEM)
    sampler.stop()
    assert [type(monitor) for monitor in sampler._monitors] == [type(monitor) for monitor in theirs]
