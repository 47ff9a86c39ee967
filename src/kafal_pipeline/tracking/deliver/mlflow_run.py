"""Applies events to an MLflow run. Applying an event twice does the same as applying it once."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import mlflow
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException

from kafal_pipeline.common.errors import masked
from kafal_pipeline.common.files import file_digest
from kafal_pipeline.tracking import view
from kafal_pipeline.tracking.deliver.local_store import follow_move, make_sqlite
from kafal_pipeline.tracking.describe import COMPARISON, comparison_tags

logger = logging.getLogger("kafal_pipeline.tracking.deliver")

EXECUTION = "execution"
"""Tag that says which journal a run is of."""

WAITING_FOR = "waiting_for"
"""Tag that says what a run waits for; its status is SCHEDULED."""

Event = Mapping[str, Any]
T = TypeVar("T")


class Undeliverable(Exception):
    """An event that the tracker can never be given."""


class Store:
    """The MLflow run of the journal with the first event `start`, made where the tracker has none yet."""

    def __init__(self, start: Event, uri: str | None) -> None:
        self.uri = connect(start, uri)
        self._client = mlflow.MlflowClient(self.uri)
        experiment = mlflow.set_experiment(start["experiment"])
        self.experiment_id = str(experiment.experiment_id)
        self._arrange(experiment.tags)
        self.run_id = self._find(start) or self._make(start)
        for part in _parts(list(start["params"].items()), 100):
            self._client.log_batch(self.run_id, params=[Param(key, value) for key, value in part])

    def log(self, events: Sequence[Event]) -> None:
        """Apply events of the types ``metrics`` and ``tags``."""
        metrics = [
            # The journal's time makes this repeatable: the tracker knows a metric by name, time, step and value.
            Metric(key, float(value), event["time"], event["step"])
            for event in events
            if event["type"] == "metrics"
            for key, value in event["values"].items()
        ]
        metrics.sort(key=lambda metric: str(metric.key))  # a store keeps the order: MLflow compares runs by the first
        tags = {key: value for event in events if event["type"] == "tags" for key, value in event["values"].items()}
        for metric_part in _parts(metrics, 1000):
            self._client.log_batch(self.run_id, metrics=metric_part)
        for tag_part in _parts(list(tags.items()), 100):
            self._client.log_batch(self.run_id, tags=[RunTag(key, value) for key, value in tag_part])

    def apply(self, event: Event) -> None:
        """Apply one event of another type; `Undeliverable` is raised where trying again is in vain."""
        getattr(self, f"_apply_{event['type']}")(event)

    def check(self) -> None:
        """Raise `MlflowException` if the tracker does not answer, or the run was deleted."""
        if self._client.get_run(self.run_id).info.lifecycle_stage == "deleted":
            raise MlflowException(
                f"the run was deleted in MLflow, which records nothing in it. Restore it with `mlflow runs restore "
                f"--run-id {self.run_id}`"
            )

    def end(self, status: str, milliseconds: int | None = None) -> None:
        """Set the run's status and the time at which it ended (default: now)."""
        self._client.set_terminated(self.run_id, status, milliseconds or time.time_ns() // 1_000_000)

    def _apply_start(self, _event: Event) -> None:
        self._client.update_run(self.run_id, status="RUNNING")

    def _apply_restart(self, event: Event) -> None:
        self._apply_start(event)
        if WAITING_FOR in self._client.get_run(self.run_id).data.tags:
            self._client.delete_tag(self.run_id, WAITING_FOR)

    def _apply_end(self, event: Event) -> None:
        if event["status"] == "SCHEDULED":  # it has not ended
            self._client.set_tag(self.run_id, WAITING_FOR, "labels")
            self._client.update_run(self.run_id, status="SCHEDULED")
            return
        if event["error"]:
            self._client.set_tag(self.run_id, "error", event["error"][:5000])
        self.end(event["status"], event["time"])

    def _apply_members(self, event: Event) -> None:
        """Give each run of a comparison its tag; one that the tracker does not have is left out.

        A run that no comparison made is named after the first that uses it.
        """
        members, token = set(event["executions"]), None
        while members and token != "":
            runs = self._client.search_runs([self.experiment_id], f"tags.{EXECUTION} != ''", page_token=token)
            for run in runs:
                if run.data.tags.get(EXECUTION) not in members:
                    continue
                new = comparison_tags(event["comparison"])
                if COMPARISON in run.data.tags:
                    del new[COMPARISON]
                self._client.log_batch(run.info.run_id, tags=[RunTag(key, value) for key, value in new.items()])
            token = runs.token or ""

    def _apply_artifact(self, event: Event) -> None:
        self._client.log_artifact(self.run_id, str(_unchanged(event, "path")), event["folder"] or None)

    def _apply_model(self, event: Event) -> None:
        if self._client.get_run(self.run_id).data.tags.get("model_sha256") == event["state_sha256"]:
            return
        path = _unchanged(event, "path")
        try:
            from kafal_pipeline.tracking.deliver.mlflow_model import log_model  # takes what an MLflow to come may lack

            uri = log_model(self._client, self.run_id, self.experiment_id, path, event)
        except OSError:  # the tracker's doing
            raise
        except MlflowException as error:
            if error.error_code == "ENDPOINT_NOT_FOUND":
                raise Undeliverable(f"the model {path}: the tracker is of an MLflow before 3 ({error})") from error
            raise
        except Exception as error:
            raise Undeliverable(f"the model {path}: {type(error).__name__}: {error}") from error
        self._client.log_batch(self.run_id, tags=[RunTag("model", uri), RunTag("model_sha256", event["state_sha256"])])

    def _arrange(self, there: Mapping[str, str]) -> None:
        """Give the experiment its first view and guide, where it has none; a tracker that refuses them goes without."""
        try:
            for key, value in view.tags().items():
                if key not in there:
                    self._client.set_experiment_tag(self.experiment_id, key, value)
        except MlflowException as error:
            logger.warning("the experiment has no view of its own in MLflow: %s", masked(str(error)))

    def _find(self, start: Event) -> str | None:
        """Return the run of this journal, deleted or not, if an earlier delivery made it."""
        query = f"tags.{EXECUTION} = '{start['execution']}'"
        runs = self._client.search_runs([self.experiment_id], query, ViewType.ALL)
        return str(runs[0].info.run_id) if runs else None

    def _make(self, start: Event) -> str:
        tags = {EXECUTION: start["execution"]}
        run = self._client.create_run(self.experiment_id, start["time"], tags=tags, run_name=self._name(start["name"]))
        return str(run.info.run_id)

    def _name(self, name: str) -> str:
        """Return the name, with a number where the experiment has runs of this name."""
        runs = self._client.search_runs([self.experiment_id], f"attributes.run_name LIKE '{name}%'")
        taken = {run.info.run_name for run in runs}
        numbered = (f"{name} ({number})" for number in count(2))
        return name if name not in taken else next(new for new in numbered if new not in taken)


def connect(start: Event, uri: str | None) -> str:
    """Point MLflow at the tracker and return its address."""
    if Path(start["project"]).is_dir():
        os.chdir(start["project"])  # MLflow's default store, and relative addresses, start from the working directory
    if uri is None:
        os.environ.pop("MLFLOW_TRACKING_URI", None)  # the default is meant, not what the variable says now
    mlflow.set_tracking_uri(uri)  # type: ignore[arg-type]  # None, MLflow's default, is missing from its types
    address = str(mlflow.get_tracking_uri())
    make_sqlite(address)
    follow_move(address, Path(start["project"]))
    return address


def why_unreachable(uri: str | None) -> str | None:
    """Return what MLflow says of a tracker that it cannot reach; None where it can."""
    try:
        mlflow.MlflowClient(uri).search_experiments(max_results=1)
    except Exception as error:
        return explain(error, uri)
    return None


def explain(error: Exception, uri: str | None) -> str:
    """Return one line that says what went wrong, without credentials."""
    return masked(" ".join(f"{uri or 'the local store'}: {error}".split()))[:500]


def in_vain(error: Exception) -> bool:
    """Return whether the tracker has refused the event itself, so that trying again is in vain."""
    refused = isinstance(error, MlflowException) and error.error_code in {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}
    return refused or isinstance(error, Undeliverable)


def _unchanged(event: Event, key: str) -> Path:
    """Return the event's file if it still is what it was when the event was written."""
    path = Path(event[key])
    if not path.is_file():
        raise Undeliverable(f"{path} is gone")
    if file_digest(path) != event["sha256"]:
        raise Undeliverable(f"{path} has been replaced since")
    return path


def _parts(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[begin : begin + size] for begin in range(0, len(items), size)]
