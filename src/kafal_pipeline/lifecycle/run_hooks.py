"""Kedro hooks around a run: check the parameters first, print the result last, leave nothing running."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.lifecycle import current_run, resources
from kafal_pipeline.lifecycle.result_hooks import check_named, check_there
from kafal_pipeline.runs import lock as run_lock
from kafal_pipeline.runs import provenance, resume, saved_run
from kafal_pipeline.runs.layout import FIRST_NODE
from kafal_pipeline.tracking.journal import COMPARISONS
from kafal_pipeline.tracking.progress import Progress

REPORTING = Path("data/08_reporting")
JOURNALS = Path("data/09_tracking")
FIRST_TRAINING = "cycle_00.train"


class ProjectHooks:
    """Parameters, worker processes and the final table."""

    def __init__(self) -> None:
        self._closing_lines: Callable[[str | None], str] | None = None
        self._journals = Path()
        self._config_loader: Any = None
        self._lock = run_lock.Lock()
        self._only_missing = False

    @hook_impl
    def after_context_created(self, context: Any) -> None:
        """Check all parameters before anything is loaded; ``context.params`` would be too late for ``cycles``."""
        self._config_loader = context.config_loader
        current_run.activate(context.config_loader, Path(context.project_path))

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Refuse what would mix results: another runner than the sequential one, a part of another run."""
        if not any(name in str(run_params.get("runner")) for name in ("SequentialRunner", "None")):
            raise UserError(
                "--runner: only SequentialRunner is allowed, since the cycles depend on each other. "
                "Clients train side by side as it is: training.processes."
            )
        names = {node.name for node in pipeline.nodes}
        saved = saved_run.KEY in current_run.session().runtime_params
        if saved and any(not name.startswith("report.") for name in names):
            raise UserError(
                f"--params: {saved_run.KEY}: only the report can be made of a saved run: kedro run --pipeline report."
            )
        current_run.note_training(any(name.endswith(".train") for name in names))
        if any(name.startswith("compare.") for name in names):
            current_run.note_training(current_run.comparison(self._config_loader)[0].run_missing)
        check_named(pipeline, catalog, Path(self._config_loader.conf_source) / self._config_loader.base_env)
        if any(name.startswith(("cycle_", "report.")) for name in names):
            self._lock.acquire(current_run.root(), current_run.active())
            resume.tidy(current_run.root(), current_run.active())
        goes_on = any(name.startswith(("cycle_", "report.")) for name in names) and FIRST_NODE not in names
        self._only_missing = bool(run_params.get("only_missing_outputs"))
        if goes_on or self._only_missing:
            cycles = any(name.startswith("cycle_") for name in names)
            resume.check(current_run.root(), current_run.active(), cycles=cycles)
            if not self._only_missing:  # which may make them first, or need none
                check_there(pipeline, catalog, run_params)
        elif FIRST_NODE in names:
            resume.check_parameters(current_run.root(), current_run.active())
        resources.keep_checkpoints(current_run.root())

    @hook_impl
    def before_node_run(self, node: Node, inputs: dict[str, Any]) -> None:
        """Note the parameters once the first cycle's training begins: from then on results are theirs."""
        current_run.start(node.name)
        if node.name == FIRST_NODE and current_run.names_own_class():  # before it replaces earlier results
            from kafal_pipeline.federation.dry_run import dry_run

            dry_run(current_run.active(), inputs["images"])
        if node.name.endswith(".evaluate"):
            resume.forget_checkpoints(current_run.root(), current_run.active(), node.name.partition(".")[0])
        known = self._only_missing and provenance.execution(current_run.root(), current_run.active())
        if node.name == FIRST_TRAINING and not current_run.going_on() and not known:
            resume.note(current_run.root(), current_run.active())
        elif node.name.startswith("cycle_") and node.name != FIRST_NODE:
            provenance.reopen(current_run.root(), current_run.active())
            resume.warn_of_another_machine(current_run.root(), current_run.active())
        if node.name.endswith((".query", ".train")):
            resources.prepare(current_run.active())

    @hook_impl
    def after_node_run(self, node: Node, outputs: dict[str, Any]) -> None:
        """Keep the table until the run has ended; before the first new result, forget what made the old ones."""
        if node.name == FIRST_NODE and not self._only_missing:  # missing alone, the pool is made as it was
            resume.begin(current_run.root(), current_run.active())
            current_run.end()  # of going on: nothing is left to go on with
        if node.name == f"cycle_{current_run.active().cycles - 1:02d}.evaluate":
            resources.close_workers()  # nothing trains or predicts any more
        if node.name == "report.summarise":
            from kafal_pipeline.evaluation.table import format_table
            from kafal_pipeline.lifecycle.closing_lines import next_steps

            config, here = current_run.active(), "trial" not in outputs["summary"]
            made_on = provenance.processor_of(current_run.root(), config) if here else None
            table = format_table(outputs["learning_curve"], made_on)
            folder = REPORTING / config.run_path
            self._journals = JOURNALS / config.run_path
            self._closing_lines = lambda page: f"{table}\n\n{next_steps(config, folder, page)}"
        if node.name == "compare.plan":
            from kafal_pipeline.lifecycle.closing_lines import aligned, side_by_side

            config, name = current_run.active(), outputs["comparison_plan"].compare.name
            self._journals = JOURNALS / config.dataset.folder / COMPARISONS / name
            if config.tracking.enabled:
                self._closing_lines = lambda page: aligned(side_by_side(config, page))

    @hook_impl(trylast=True)
    def after_pipeline_run(self, pipeline: Pipeline) -> None:
        """Release the processes; the table is the last thing on the terminal."""
        resources.close()
        config = current_run.active()
        if f"cycle_{config.cycles - 1:02d}.evaluate" in {node.name for node in pipeline.nodes}:
            provenance.finish(current_run.root(), config)
        current_run.end()
        if self._closing_lines is not None:
            click.echo(f"\n{self._closing_lines(Progress.newest_page(current_run.root() / self._journals))}")
            self._closing_lines = None
        self._lock.release()

    @hook_impl(trylast=True)  # the tracker's end of the run still belongs to it
    def on_pipeline_error(self, error: Exception) -> None:
        """Release the processes."""
        resources.close()
        current_run.end()
        self._closing_lines = None
        self._lock.release()

    def abort(self) -> None:
        """Let go of the run: for whoever handles Ctrl-C and SIGTERM."""
        self._lock.release()
