"""Kedro's hooks, all in one class: it says what happens at each point of a run, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl

from kafal_pipeline.common.errors import Waiting
from kafal_pipeline.lifecycle.closing_lines import ClosingLines
from kafal_pipeline.lifecycle.guard import Guard
from kafal_pipeline.lifecycle.recorder import Recorder
from kafal_pipeline.lifecycle.saved_files import SavedFiles

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext
    from kedro.io import CatalogProtocol
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node

    from kafal_pipeline.lifecycle.current_run import CurrentRun


class ProjectHooks:
    """Calls, at each point of a run, what belongs there.

    Before a run: its parameters, then its folders and its lock, then the tracker, then the digests of results, so that
    what is wrong with the parameters is said first. After it: the tracker and the digests, which are still the run's
    own; then its processes end, then what it has reached is the last thing on the terminal.
    """

    def __init__(self, run: CurrentRun) -> None:
        self.run = run
        self._guard, self._saved = Guard(run), SavedFiles(run)
        self._recorder, self._closing = Recorder(run), ClosingLines(run)

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Check all parameters before anything is loaded; ``context.params`` would be too late for ``cycles``."""
        self.run.activate(context.config_loader, Path(context.project_path))

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Refuse what cannot go well."""
        self.run.decide([node.name for node in pipeline.nodes])
        self._guard.before_pipeline(run_params, pipeline, catalog)
        self._recorder.before_pipeline(run_params)
        self._saved.before_pipeline(catalog)

    @hook_impl
    def before_node_run(self, node: Node, inputs: dict[str, Any], catalog: CatalogProtocol) -> None:
        """Note what makes the node's results, once what the nodes before it have saved."""
        self.run.node = node.name
        self._guard.before_node(node, inputs)
        self._recorder.before_node(node, catalog)
        self._saved.note()

    @hook_impl
    def before_dataset_loaded(self, dataset_name: str) -> None:
        """Check what an earlier command saved."""
        self._saved.check(dataset_name)

    @hook_impl
    def before_dataset_saved(self, dataset_name: str) -> None:
        """Forget the digest of what is about to be replaced."""
        self._saved.forget(dataset_name)

    @hook_impl
    def after_dataset_saved(self, dataset_name: str, data: Any) -> None:
        """Record what a node made, once it is on disk."""
        self._recorder.record(dataset_name, data)
        self._saved.take(dataset_name)

    @hook_impl
    def after_node_run(self, node: Node, outputs: dict[str, Any], catalog: CatalogProtocol) -> None:
        """Before the first new result, forget what made the old ones; keep the table until the run has ended."""
        self._guard.after_node(node)
        self._closing.after_node(node, outputs)
        self._recorder.after_node(node, catalog)
        self._saved.after_node(node)

    @hook_impl
    def after_pipeline_run(self, catalog: CatalogProtocol) -> None:
        """End the run."""
        self._recorder.end(catalog)
        self._saved.note()
        self.run.resources.close()
        self._guard.finish()
        self._closing.show()
        self._guard.release()

    @hook_impl
    def on_pipeline_error(self, error: Exception) -> None:
        """End the run as failed, or leave it waiting for labels."""
        try:
            if isinstance(error, Waiting):
                self._guard.wait()
                self._recorder.wait()
            else:
                self._recorder.fail(error)
        finally:
            self.run.resources.close()
            self._closing.forget()
            self._guard.release()

    def abort(self) -> None:
        """Let go of the run, which the tracker marks KILLED: for whoever handles Ctrl-C and SIGTERM."""
        self.run.resources.close(patience=0.2)
        self._recorder.abort()
        self._guard.release()

    def join(
        self,
        parameters: Mapping[str, Any],
        comparison: str | None,
        on_cycle: Callable[[int], None],
        on_journal: Callable[[Path], None],
    ) -> None:
        """Let this process's run be one of a comparison, with these parameters, whatever the files say.

        The comparison, which has a name where anything is tracked, learns of each cycle that has been evaluated, and of
        the journal, which it delivers.
        """
        self.run.given = parameters
        self.run.resources.progress.listener = on_cycle
        self._recorder.comparison, self._recorder.on_journal = comparison, on_journal
