"""Kedro hooks of tracking: they record a run's results as they are saved."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl

from kafal_pipeline.config import Config, resolve
from kafal_pipeline.lifecycle import current_run
from kafal_pipeline.runs import provenance
from kafal_pipeline.tracking import reachable, record
from kafal_pipeline.tracking.tracker import NullTracker, Tracker

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext
    from kedro.io import CatalogProtocol
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node

RECORDED = (".train", ".evaluate")
"""How the names of nodes end whose results are recorded."""

PARTS = ("from_nodes", "from_inputs", "node_names", "namespaces", "tags", "only_missing_outputs")
"""Kedro's options that run a part of the pipeline: such a run goes on where an earlier one stopped."""

ABORT_SECONDS = 1.0
"""How long Ctrl-C waits for the delivery, which ends by itself: it may still be importing MLflow."""


@dataclass
class _Run:
    """The run that is being recorded."""

    config: Config
    project: Path
    tracker: NullTracker
    labels: int = 0
    recorded: set[str] = field(default_factory=set)

    @property
    def last(self) -> str:
        """The last cycle, as the names of its nodes and data sets begin."""
        return f"cycle_{self.config.cycles - 1:02d}"

    def record_output(self, name: str, value: Any) -> None:
        """Record the data set `name`, if it is one that MLflow shows."""
        if name == "summary":
            record.record_summary(self.tracker, value, self.labels)
        elif name in ("class_table", "client_table"):
            kind = name.removesuffix("_table")
            record.record_parts(self.tracker, kind, value.set_index(kind).drop(columns="images"), self.labels)
        elif re.fullmatch(r"cycle_\d+\.rounds", name):
            record.record_rounds(self.tracker, value, self.config.federation.rounds)
        elif re.fullmatch(r"cycle_\d+\.metrics", name):
            record.record_metrics(self.tracker, value)
            self.labels = max(self.labels, int(value["labels"]))
        else:
            return
        self.recorded.add(name)

    def record_split(self) -> None:
        """Record the split, which lies on disk by the time that training begins."""
        path = self.project / "data" / "03_primary" / self.config.split_path / "splits.json"
        if "split" not in self.recorded and path.exists():
            record.record_split(self.tracker, path)
            self.recorded.add("split")

    def record_other_cycles(self, catalog: CatalogProtocol, after_too: bool) -> None:
        """Record the cycles that an earlier run left on disk, so that the curves of a part of a run are whole.

        Parameters
        ----------
        catalog
            Where they are.
        after_too
            Whether to trust the cycles after this run's as well as those before.
        """
        own = max((int(name[6:].partition(".")[0]) for name in self.recorded if name.startswith("cycle_")), default=-1)
        for cycle in range(self.config.cycles if after_too else own):
            for name in (f"cycle_{cycle:02d}.metrics", f"cycle_{cycle:02d}.rounds"):
                if name not in self.recorded and name in catalog and catalog.exists(name):
                    self.record_output(name, catalog.load(name))

    def record_end(self, catalog: CatalogProtocol) -> None:
        """Record the report and the final model, if the run came to its last cycle."""
        if f"{self.last}.metrics" not in self.recorded:
            return
        record.record_results(self.tracker, self.project / "data" / "08_reporting" / self.config.run_path)
        self.record_model(catalog)

    def record_model(self, catalog: CatalogProtocol) -> None:
        """Record the final model, once."""
        state = self.project / "data" / "06_models" / self.config.run_path / self.last / "global_model.safetensors"
        tracking = self.config.tracking
        if tracking.enabled and tracking.log_model and "model" not in self.recorded and state.exists():
            record.record_model(self.tracker, state, self.config, catalog.load("images"), self.labels)
            self.recorded.add("model")


class TrackingHooks:
    """Records every run that trains, from its first node to its end.

    A run that Ctrl-C, SIGTERM or SIGKILL ends reaches no hook: the helper notices, and marks it KILLED.
    """

    def __init__(self) -> None:
        self._context: KedroContext | None = None
        self._run_params: dict[str, Any] = {}
        self._run: _Run | None = None
        self._waiting = False
        self._comparison: str | None = None
        self._on_journal: Callable[[Path], None] = lambda _journal: None

    def join(self, comparison: str, on_journal: Callable[[Path], None]) -> None:
        """Record the runs of this process as runs of a comparison, which delivers them: `on_journal` gets journals."""
        self._comparison, self._on_journal = comparison, on_journal

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Keep the context, which knows the parameters and the project's folder."""
        self._context = context

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline) -> None:
        """Look for the tracker; tracking starts with the first training, once all input has proved good."""
        self._run, self._run_params = None, run_params
        self._waiting = any(node.name.endswith(RECORDED) for node in pipeline.nodes)
        if self._waiting or any(node.name.startswith("compare.") for node in pipeline.nodes):
            self._check_tracker()

    @hook_impl
    def before_node_run(self, node: Node, catalog: CatalogProtocol) -> None:
        """Start tracking with the first training, or with what an interrupted run has left; record the split."""
        if node.name.endswith(RECORDED) or (current_run.going_on() and node.name.startswith(("cycle_", "report."))):
            self._start()
            if self._run:
                self._run.record_split()
                if current_run.going_on():  # the summary's step is the last cycle's
                    self._run.record_other_cycles(catalog, after_too=True)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """Record what a node made, once it is on disk."""
        if self._run:
            self._run.record_output(dataset_name, data)

    @hook_impl
    def after_node_run(self, node: Node, catalog: CatalogProtocol) -> None:
        """Record the model as soon as it has been evaluated: its delivery takes longer than the report."""
        if self._run and node.name == f"{self._run.last}.evaluate":
            self._run.record_model(catalog)

    @hook_impl
    def after_pipeline_run(self, catalog: CatalogProtocol) -> None:
        """Record the results and the model, and end the run."""
        if self._run:
            if self._is_part:
                self._run.record_other_cycles(catalog, bool(self._run_params.get("only_missing_outputs")))
            self._run.record_end(catalog)
            self._run.tracker.finish("FINISHED")
            self._run = None

    @hook_impl
    def on_pipeline_error(self, error: Exception) -> None:
        """End the run as failed."""
        if self._run:
            self._run.tracker.finish("FAILED", f"{type(error).__name__}: {error}")
            self._run = None

    def abort(self) -> None:
        """Leave the run as killed: for whoever handles Ctrl-C and SIGTERM."""
        if self._run:
            self._run.tracker.abort(ABORT_SECONDS)
            self._run = None

    @property
    def _is_part(self) -> bool:
        return current_run.going_on() or any(self._run_params.get(option) for option in PARTS)

    def _check_tracker(self) -> None:
        """Check that the tracker can be reached; for the runs of a comparison, it has done so."""
        if self._context is None or self._comparison is not None:
            return
        config = resolve(self._context.config_loader["parameters"])
        if config.tracking.enabled:
            project = Path(self._context.project_path)
            comparison = not self._waiting
            journals = Path("data/09_tracking") / (config.dataset.folder if comparison else config.run_path)
            reachable.check(config.tracking, project, journals)

    def _start(self) -> None:
        if self._context is None or not self._waiting:
            return
        self._waiting = False
        config = resolve(self._context.config_loader["parameters"])
        root = Path(self._context.project_path)
        folder = root / "data" / "09_tracking" / config.run_path
        tracker = Tracker.start(
            config,
            folder,
            root,
            restart=self._is_part,
            comparison=self._comparison,
            execution=provenance.execution(root, config),
        )
        self._run = _Run(config, root, tracker)
        if isinstance(tracker, Tracker):
            self._on_journal(tracker.journal)
