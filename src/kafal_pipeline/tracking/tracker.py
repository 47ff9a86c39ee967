"""The run's side of tracking: it writes the journal and starts the helper; it never imports mlflow."""

from __future__ import annotations

import datetime
import logging
import math
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kafal_pipeline.common.errors import UserError, masked
from kafal_pipeline.common.files import CannotWrite, file_digest
from kafal_pipeline.tracking.describe import comparison_tags, run_name, run_params, run_tags
from kafal_pipeline.tracking.helper import Helper
from kafal_pipeline.tracking.journal import JOURNAL, Journal, first, read
from kafal_pipeline.tracking.progress import Progress
from kafal_pipeline.tracking.reachable import address
from kafal_pipeline.tracking.torchscript import save_torchscript

if TYPE_CHECKING:
    from kafal_pipeline.config import Config

logger = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "SCHEDULED"]
"""Ends of a run; SCHEDULED: it waits for labels, and resumes."""

MODEL_FILE = "global_model-"
"""Beginning of the recorded model's name, next to the journal; the beginning of its state's SHA-256 follows."""


class NullTracker:
    """Records nothing: `tracking: off`."""

    def metrics(self, values: Mapping[str, float], step: int, *, durable: bool = False) -> None:
        """Record numbers at `step`."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Record tags of the run; later values replace earlier ones."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """Record a file, shown in the run's folder `folder`."""

    def model(self, state: Path, classes: Sequence[str], step: int, **description: Any) -> None:
        """Record the final model, whose metrics are those at `step`; `save_torchscript` says what describes it."""

    def finish(self, status: Status, error: str | None = None, limit: float = 60) -> None:
        """End the run with `status` and wait at most `limit` seconds for the delivery."""

    def abort(self, limit: float = 15) -> None:
        """Leave the run without an end, which makes it KILLED, and wait at most `limit` seconds for the delivery."""


class Tracker(NullTracker):
    """Records one run of one strategy as one MLflow run: in a journal, which a helper delivers, or others if None."""

    def __init__(self, journal: Journal, helper: Helper | None) -> None:
        self._journal = journal
        self._helper = helper
        self._ended = False
        self._warned: str | None = None
        # (name, step) of what a resumed run has recorded: values are the same again, but for seconds.
        events = [entry.event for entry in read(journal.path) if entry.event["type"] == "metrics"]
        self._recorded = {(key, event["step"]) for event in events for key in event["values"]}

    @classmethod
    def start(
        cls,
        config: Config,
        folder: Path,
        project: Path,
        restart: bool = False,
        patience: float = 15,
        comparison: str | None = None,
        execution: str = "",
    ) -> NullTracker:
        """Start tracking, unless ``config.tracking`` says not to.

        Parameters
        ----------
        folder
            The folder of this strategy's journals; every run has a folder of its own in it, named by its time.
        restart
            Without an `execution`, resume the latest run in `folder` with the same configuration if it did not finish.
        patience
            Seconds for which the helper tries to reach the tracker once the run is over.
        comparison
            Name of the comparison that this is a run of, and that delivers it: then there is no helper.
        execution
            What tells this doing of the run from others: one that is in `folder` resumes. A new name if empty.
        """
        if not config.tracking.enabled:
            return NullTracker()
        params = run_params(config)
        path = _unfinished(folder, params, execution) if restart or execution else None
        if path:
            journal = Journal(path)
            journal.append("restart", durable=True)
        else:
            sampled = config.tracking.system_metrics
            journal = begin(
                folder, config, project, execution, name=run_name(config), params=params, system_metrics=sampled
            )
        tags = run_tags(config, project) | ({} if comparison is None else comparison_tags(comparison))
        journal.append("tags", values=tags)
        if comparison is not None:
            return cls(journal, None)
        helper = Helper(address(config.tracking), project, journal.path.parent, patience)
        helper.follow(journal.path)
        return cls(journal, helper)

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self._journal.path

    def metrics(self, values: Mapping[str, float], step: int, *, durable: bool = False) -> None:
        """Record numbers at `step`; what a restarted run recorded before it was interrupted is not repeated."""
        # JSON has no number for "not a number"; `float` reads the string back.
        encoded = {key: float(value) if math.isfinite(value) else str(float(value)) for key, value in values.items()}
        new = {key: value for key, value in encoded.items() if (key, step) not in self._recorded}
        self._recorded.update((key, step) for key in new)
        if new:
            self._append("metrics", durable=durable, step=step, values=new)

    def tags(self, values: Mapping[str, str]) -> None:
        """Record tags of the run; later values replace earlier ones."""
        self._append("tags", values=dict(values))

    def artifact(self, path: Path, folder: str = "") -> None:
        """Record a file, shown in the run's folder `folder`; it is copied as it is now, or not at all."""
        self._append("artifact", path=str(path.resolve()), folder=folder, sha256=file_digest(path))

    def model(self, state: Path, classes: Sequence[str], step: int, **description: Any) -> None:
        """Record the final model; `kafal_pipeline.tracking.torchscript.save_torchscript` says what describes it."""
        import torch  # seconds, but for a run that has trained

        digest = file_digest(state)
        path = self._journal.path.with_name(f"{MODEL_FILE}{digest[:12]}.pt")
        if not path.exists():  # else by this run, before it was interrupted
            try:
                save_torchscript(path, state, **description)
            except CannotWrite:
                raise
            except Exception as problem:
                logger.warning("Not in MLflow: the model %s: %s: %s", state, type(problem).__name__, problem)
                return
        self._append(
            "model",
            path=str(path.resolve()),
            sha256=file_digest(path),
            state_sha256=digest,
            pytorch_version=str(torch.__version__),
            image_shape=description["image_shape"],
            classes=list(classes),
            step=step,
        )

    def finish(self, status: Status, error: str | None = None, limit: float = 60) -> None:
        """End the run with `status` and wait at most `limit` seconds for the delivery."""
        try:
            self._append("end", durable=True, status=status, error=masked(error) if error else None)
        except CannotWrite as problem:
            if status == "FINISHED":
                raise
            logger.warning("The end of the run is not in its journal, hence KILLED in MLflow. %s", problem)
        finally:
            self.abort(limit)

    def abort(self, limit: float = 15) -> None:
        """Leave the run without an end, which makes it KILLED, and wait at most `limit` seconds for the delivery."""
        if self._ended:
            return
        self._ended = True
        try:
            self._journal.close()
        except CannotWrite as problem:
            logger.warning("%s", problem)
        if self._helper is not None:
            self._helper.close(limit)

    def _append(self, kind: str, **fields: Any) -> None:
        if self._ended:
            return
        self._journal.append(kind, **fields)
        try:
            problem = Progress.load(self._journal.path.parent).problem
        except UserError:  # the delivery's matter, which says so
            return
        if problem and problem != self._warned:
            logger.warning("The tracker cannot be reached; the run continues, recorded in its journal. %s", problem)
            self._warned = problem


def begin(folder: Path, config: Config, project: Path, execution: str = "", **fields: Any) -> Journal:
    """Make a journal in a folder of its own in `folder`, named by the time, and write its first event."""
    uri = address(config.tracking)
    journal = Journal(folder / f"{datetime.datetime.now():%Y%m%d-%H%M%S-%f}" / JOURNAL)
    journal.append(
        "start",
        durable=True,
        execution=execution or uuid.uuid4().hex,
        experiment=config.tracking.experiment or config.dataset.folder,
        project=str(project.resolve()),
        uri=masked(uri) if uri else None,
        **fields,
    )
    return journal


def _unfinished(folder: Path, params: Mapping[str, str], execution: str) -> Path | None:
    """Return the journal in `folder` of this execution; without one, the latest that ended with these parameters open.

    An execution is the same whatever the number of its processes, and has something left to do if it asks.
    """
    journals = sorted(folder.glob(f"*/{JOURNAL}"))
    if execution:
        return next((path for path in reversed(journals) if first(path).get("execution") == execution), None)
    events = [entry.event for entry in read(journals[-1])] if journals else []
    if not events or events[0].get("params") != dict(params) or events[-1].get("status") == "FINISHED":
        return None
    return journals[-1]
