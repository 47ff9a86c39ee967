"""Records a run's results for the tracker as they are saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kafal_pipeline.lifecycle.saved_files import CHOOSING
from kafal_pipeline.runs import provenance, waits
from kafal_pipeline.runs.layout import cycle_name, parsed
from kafal_pipeline.tracking import reachable, record
from kafal_pipeline.tracking.tracker import NullTracker, Tracker

if TYPE_CHECKING:
    from kedro.io import CatalogProtocol
    from kedro.pipeline.node import Node

    from kafal_pipeline.lifecycle.current_run import CurrentRun

PARTS = (*CHOOSING, "only_missing_outputs")
"""Kedro's options that run a part of the pipeline: such a run resumes where an earlier one stopped."""

ABORT_SECONDS = 1.0
"""Time for which Ctrl-C waits for the delivery, which ends by itself: it may still be importing MLflow."""


class Recorder:
    """Records the run in this process from its first training or evaluation to its end.

    A run that Ctrl-C, SIGTERM or SIGKILL ends reaches no `end`: the helper notices, and marks it KILLED.

    Attributes
    ----------
    comparison
        Name of the comparison that delivers this run, if there is one.
    on_journal
        Called with the file of the journal, once it is there.
    """

    def __init__(self, run: CurrentRun) -> None:
        self.comparison: str | None = None
        self.on_journal: Callable[[Path], None] = lambda _journal: None
        self._run = run
        self._reset({})

    def _reset(self, run_params: Mapping[str, Any]) -> None:
        self._tracker: NullTracker | None = None
        self._is_part = any(run_params.get(option) for option in PARTS)
        self._only_missing = bool(run_params.get("only_missing_outputs"))
        self._labels = 0
        self._rounds: Any = None
        self._recorded: set[str] = set()

    def before_pipeline(self, run_params: Mapping[str, Any]) -> None:
        """Look for the tracker, where that is not a comparison's to do; once all input is good, tracking starts."""
        self._reset(run_params)
        run, tracking = self._run, self._run.config.tracking
        if tracking.enabled and self.comparison is None and (run.kind.tracked or run.kind.compares):
            place = run.layout.from_root
            reachable.check(tracking, run.root, place.data_set_journals if run.kind.compares else place.journals)

    def before_node(self, node: Node, catalog: CatalogProtocol) -> None:
        """Start tracking with the first training, or with what an interrupted run has left; record the split."""
        cycle, task = parsed(node.name)
        own = cycle is not None or task.startswith("report.")
        if not (cycle is not None and task in ("train", "evaluate")) and not (self._run.resumes and own):
            return
        if self._tracker is None:
            self._start()
        if self._tracker is None:
            return
        if "split" not in self._recorded and (path := self._run.layout.splits).exists():
            record.record_split(self._tracker, path)
            self._recorded.add("split")
        if self._run.resumes:  # the summary's step is the last cycle's
            self._record_other_cycles(catalog, after_too=True)

    def after_node(self, node: Node, catalog: CatalogProtocol) -> None:
        """Record the model as soon as it has been evaluated: its delivery takes longer than the report."""
        if parsed(node.name) == (self._last, "evaluate"):
            self._record_model(catalog)

    def end(self, catalog: CatalogProtocol) -> None:
        """Record the results and the model, and end the run."""
        if self._tracker is None:
            return
        if self._is_part or self._run.resumes:
            self._record_other_cycles(catalog, after_too=self._only_missing)
        if f"{cycle_name(self._last)}.metrics" in self._recorded:
            record.record_results(self._tracker, self._run.layout.report)
            self._record_model(catalog)
        self._tracker.finish("FINISHED")
        self._tracker = None

    def fail(self, error: Exception) -> None:
        """End the run as failed."""
        if self._tracker is not None:
            self._tracker.finish("FAILED", f"{type(error).__name__}: {error}")
            self._tracker = None

    def wait(self) -> None:
        """Leave the run waiting for labels; one that waits before its first training is recorded from here on."""
        if self._tracker is None:
            self._start()
        if self._tracker is not None:
            self._tracker.finish("SCHEDULED")
            self._tracker = None

    def abort(self) -> None:
        """Leave the run as killed."""
        if self._tracker is not None:
            self._tracker.abort(ABORT_SECONDS)
            self._tracker = None

    def record(self, name: str, value: Any) -> None:
        """Record the data set `name`, if it is one that MLflow shows."""
        if self._tracker is None:
            return
        cycle, inner = parsed(name)
        if name == "summary":
            record.record_summary(self._tracker, value, self._labels)
        elif name in ("class_table", "client_table"):
            kind = name.removesuffix("_table")
            record.record_parts(self._tracker, kind, value.set_index(kind).drop(columns="images"), self._labels)
        elif cycle is not None and inner == "rounds":
            if f"{cycle_name(cycle)}.metrics" not in self._recorded:
                self._rounds = value  # after the cycle's metrics: MLflow compares runs by the metric that came first
                return
            record.record_rounds(self._tracker, value, self._run.config.federation.rounds)
        elif cycle is not None and inner == "metrics":
            record.record_metrics(self._tracker, value)
            self._labels = max(self._labels, int(value["labels"]))
            self._recorded.add(name)
            if self._rounds is not None:
                rounds, self._rounds = self._rounds, None
                self.record(f"{cycle_name(cycle)}.rounds", rounds)
        else:
            return
        self._recorded.add(name)

    @property
    def _last(self) -> int:
        return self._run.config.cycles - 1

    def _start(self) -> None:
        run = self._run
        if not run.kind.tracked or not run.config.tracking.enabled:
            return
        self._tracker = Tracker.start(
            run.config,
            run.layout.journals,
            run.root,
            restart=self._is_part or run.resumes,
            comparison=self.comparison,
            execution=waits.execution(run.layout) or provenance.execution(run.layout),
        )
        if isinstance(self._tracker, Tracker):
            self.on_journal(self._tracker.journal)

    def _record_other_cycles(self, catalog: CatalogProtocol, after_too: bool) -> None:
        """Record the cycles that an earlier run left on disk, so that the curves of a part of a run are whole.

        Those after this run's own are trusted if `after_too`.
        """
        own = [cycle for cycle, _ in map(parsed, self._recorded) if cycle is not None]
        for cycle in range(self._last + 1 if after_too else max(own, default=-1)):
            for name in (f"{cycle_name(cycle)}.metrics", f"{cycle_name(cycle)}.rounds"):
                if name not in self._recorded and name in catalog and catalog.exists(name):
                    self.record(name, catalog.load(name))

    def _record_model(self, catalog: CatalogProtocol) -> None:
        """Record the final model, once."""
        config, state = self._run.config, self._run.layout.global_model(self._last)
        if self._tracker is None or not config.tracking.log_model or "model" in self._recorded or not state.exists():
            return
        record.record_model(self._tracker, state, config, catalog.load(self._run.layout.data.name), self._labels)
        self._recorded.add("model")
