"""The run's side of tracking: it writes the journal and starts the helper; it never imports mlflow."""

from __future__ import annotations

import datetime
import logging
import math
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kafal_pipeline.common.errors import UserError, masked
from kafal_pipeline.common.files import CannotWrite, file_digest
from kafal_pipeline.tracking.describe import comparison_tags, run_name, run_params, run_tags
from kafal_pipeline.tracking.helper import LOG, start_process, wait
from kafal_pipeline.tracking.journal import JOURNAL, Journal, read
from kafal_pipeline.tracking.progress import Progress
from kafal_pipeline.tracking.reachable import address, written
from kafal_pipeline.tracking.torchscript import save_torchscript

if TYPE_CHECKING:
    from kafal_pipeline.config import Config

logger = logging.getLogger(__name__)

MODEL_FILE = "global_model-"
"""How the name of the recorded model begins, beside the journal; the beginning of its state's SHA-256 follows."""


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

    def finish(self, status: Literal["FINISHED", "FAILED"], error: str | None = None, limit: float = 60) -> None:
        """End the run with `status` and wait at most `limit` seconds for the delivery."""

    def abort(self, limit: float = 15) -> None:
        """Leave the run without an end, which makes it KILLED, and wait at most `limit` seconds for the delivery."""


class Tracker(NullTracker):
    """Records one run of one strategy as one MLflow run.

    Parameters
    ----------
    journal
        Where the events go.
    helper
        The process that delivers them. It takes the end of its standard input for the end of this process. None leaves
        the delivery to others.
    another
        Starts a helper that does not give way, should the first one get no core.
    """

    def __init__(
        self,
        journal: Journal,
        helper: subprocess.Popen[bytes] | None,
        another: Callable[[], subprocess.Popen[bytes]] | None = None,
    ) -> None:
        self._journal = journal
        self._helper = helper
        self._another = another
        self._ended = False
        self._warned: str | None = None
        self._recorded = _recorded_metrics(journal.path)
        # A child forked by the training keeps a copy of the pipe, and would hide this process's end from the helper.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._close_pipe)

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
        """Start tracking.

        Parameters
        ----------
        config
            The run's configuration; ``config.tracking`` says whether and where to track.
        folder
            The folder of this strategy's journals; every run has a folder of its own in it, named by its time.
        project
            The project's folder, where `mlflow ui` is started.
        restart
            Go on in the run of the same `execution` in `folder`; without a name, in the latest that has the same
            configuration and did not finish.
        patience
            Seconds for which the helper tries to reach the tracker once the run is over.
        comparison
            Name of the comparison that this is a run of, and that delivers it: then there is no helper.
        execution
            What tells this doing of the run from others; a new name if empty.
        """
        if not config.tracking.enabled:
            return NullTracker()
        uri = address(config.tracking)
        params = run_params(config)
        path = _unfinished(folder, params, execution) if restart else None
        journal = Journal(path or folder / f"{datetime.datetime.now():%Y%m%d-%H%M%S-%f}" / JOURNAL)
        if path:
            journal.append("restart", durable=True)
        else:
            journal.append(
                "start",
                durable=True,
                execution=execution or uuid.uuid4().hex,
                name=run_name(config),
                experiment=config.tracking.experiment or config.dataset.folder,
                project=str(project.resolve()),
                **written(uri),
                system_metrics=config.tracking.system_metrics,
                params=params,
            )
        tags = run_tags(config, project)
        if comparison is not None:
            journal.append("tags", values=tags | comparison_tags(comparison))
            return cls(journal, None)
        journal.append("tags", values=tags)
        start = partial(_start_helper, journal.path, project, uri, patience)
        return cls(journal, start(), partial(start, now=True))

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

    def finish(self, status: Literal["FINISHED", "FAILED"], error: str | None = None, limit: float = 60) -> None:
        """End the run with `status` and wait at most `limit` seconds for the delivery."""
        try:
            self._append("end", durable=True, status=status, error=masked(error) if error else None)
        except CannotWrite as problem:
            if status == "FINISHED":
                raise
            logger.warning("The end of the run is not in its journal, hence KILLED in MLflow. %s", problem)
        finally:
            self._leave(limit)

    def abort(self, limit: float = 15) -> None:
        """Leave the run without an end, which makes it KILLED, and wait at most `limit` seconds for the delivery."""
        self._leave(limit)

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

    def _leave(self, limit: float) -> None:
        if self._ended:
            return
        self._ended = True
        try:
            self._journal.close()
        except CannotWrite as problem:
            logger.warning("%s", problem)
        self._close_pipe()
        if self._helper is None:
            return
        folder = self._journal.path.parent
        try:
            code = wait(self._helper, folder, limit, self._relieve if self._another else None)
        except KeyboardInterrupt:  # all results are there: who does not want to wait need not
            code = None
        except UserError as problem:  # of the note of how far the delivery is, which is no matter to the run
            logger.warning("%s %s", problem, self._later())
            return
        if code is None:
            logger.warning("Process %s is still delivering this run to MLflow. %s", self._helper.pid, self._later())
            return
        try:
            progress = Progress.load(folder)
        except UserError as problem:
            logger.warning("%s", problem)
            return
        for note in progress.skipped:
            logger.warning("Not in MLflow: %s", note)
        if code != 0:
            logger.warning(
                "Not all of this run was delivered to MLflow: %s. Nothing is lost. %s",
                progress.problem or f"the helper ended with code {code}, see {folder / LOG}",
                self._later(),
            )

    def _relieve(self) -> subprocess.Popen[bytes]:
        assert self._another is not None
        logger.info("MLflow's helper gets no processor time; another one replaces it.")
        self._helper = self._another()
        self._close_pipe()
        return self._helper

    def _later(self) -> str:
        return f"To deliver it later: python -m kafal_pipeline.tracking.deliver {self._journal.path}"

    def _close_pipe(self) -> None:
        if self._helper is not None and self._helper.stdin and not self._helper.stdin.closed:
            self._helper.stdin.close()


def _start_helper(
    journal: Path, project: Path, uri: str | None, patience: float, *, now: bool = False
) -> subprocess.Popen[bytes]:
    """Start the helper that follows one journal; it gives way to others, or not if it is to be done `now`."""
    command = [sys.executable, "-m", "kafal_pipeline.tracking.deliver", "--follow", "--patience", str(patience)]
    command += ["--now"] if now else []
    return start_process([*command, str(journal.resolve())], journal.parent / LOG, project, uri)


def _unfinished(folder: Path, params: Mapping[str, str], execution: str) -> Path | None:
    """Return the journal in `folder` of this execution; without one, the latest that ended with these parameters open.

    An execution is the same whatever the number of its processes, and has something left to do if it asks.
    """
    if execution:
        starts = {path: next(iter(read(path)), None) for path in sorted(folder.glob(f"*/{JOURNAL}"))}
        own = [path for path, entry in starts.items() if entry and entry.event.get("execution") == execution]
        return own[-1] if own else None
    path = max(folder.glob(f"*/{JOURNAL}"), default=None)
    events = [entry.event for entry in read(path)] if path else []
    if not events or events[0].get("params") != dict(params) or events[-1].get("status") == "FINISHED":
        return None
    return path


def _recorded_metrics(path: Path) -> set[tuple[str, int]]:
    """Return (name, step) of every metric in the journal: values are the same again, but for seconds."""
    events = [entry.event for entry in read(path) if entry.event["type"] == "metrics"]
    return {(key, event["step"]) for event in events for key in event["values"]}
