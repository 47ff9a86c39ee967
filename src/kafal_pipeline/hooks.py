"""Around Kedro's runs: check the parameters first, print the result last, leave nothing running."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from kafal_pipeline import active, continuity, project, provenance, saved_run, saved_trial
from kafal_pipeline.errors import UserError
from kafal_pipeline.pipelines import runtime
from kafal_pipeline.pipelines.cycles import FIRST_NODE
from kafal_pipeline.saved_files import check_named, check_there

REPORTING = Path("data/08_reporting")
FIRST_TRAINING = "cycle_00.train"


class ProjectHooks:
    """Parameters, worker processes and the final table."""

    def __init__(self) -> None:
        self._closing_lines = ""
        self._config_loader: Any = None
        self._lock = active.Lock()
        self._only_missing = False

    @hook_impl
    def after_context_created(self, context: Any) -> None:
        """Check all parameters before anything is loaded; ``context.params`` would be too late for ``cycles``."""
        self._config_loader = context.config_loader
        project.activate(context.config_loader, Path(context.project_path))

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Refuse what would mix results: another runner than the sequential one, a part of another run."""
        if not any(name in str(run_params.get("runner")) for name in ("SequentialRunner", "None")):
            raise UserError(
                "--runner: only SequentialRunner is allowed, since the cycles depend on each other. "
                "Clients train side by side as it is: training.processes."
            )
        names = {node.name for node in pipeline.nodes}
        given = [key for key in (saved_run.KEY, saved_trial.KEY) if key in project.session().runtime_params]
        if given and any(not name.startswith("report.") for name in names):
            raise UserError(
                f"--params: {given[0]}: only the report can be made of a saved run: kedro run --pipeline report."
            )
        project.note_training(any(name.endswith(".train") for name in names))
        if any(name.startswith("compare.") for name in names):
            project.note_training(project.comparison(self._config_loader)[0].run_missing)
        check_named(pipeline, catalog, Path(self._config_loader.conf_source) / self._config_loader.base_env)
        if any(name.startswith(("cycle_", "report.")) for name in names):
            self._lock.acquire(project.root(), project.active())
            continuity.tidy(project.root(), project.active())
        goes_on = any(name.startswith(("cycle_", "report.")) for name in names) and FIRST_NODE not in names
        self._only_missing = bool(run_params.get("only_missing_outputs"))
        if goes_on or self._only_missing:
            cycles = any(name.startswith("cycle_") for name in names)
            continuity.check(project.root(), project.active(), cycles=cycles)
            if not self._only_missing:  # which may make them first, or need none
                check_there(pipeline, catalog, run_params)
        elif FIRST_NODE in names:
            continuity.check_parameters(project.root(), project.active())
            continuity.warn_of_replaced(project.root(), project.active())
        runtime.keep_checkpoints(project.root())

    @hook_impl
    def before_node_run(self, node: Node, inputs: dict[str, Any]) -> None:
        """Note the parameters once the first cycle's training begins: from then on results are theirs."""
        project.start(node.name)
        if node.name == FIRST_NODE and project.names_own_class():  # before it replaces the results of an earlier run
            from kafal_pipeline.federation.dry_run import dry_run  # noqa: PLC0415 - torch takes seconds to import

            dry_run(project.active(), inputs["images"])
        if node.name.endswith(".evaluate"):
            continuity.forget_checkpoints(project.root(), project.active(), node.name.partition(".")[0])
        known = self._only_missing and provenance.execution(project.root(), project.active())
        if node.name == FIRST_TRAINING and not project.going_on() and not known:
            continuity.note(project.root(), project.active())
        elif node.name.startswith("cycle_") and node.name != FIRST_NODE:
            provenance.reopen(project.root(), project.active())
        if node.name.endswith((".query", ".train")):
            runtime.prepare(project.active())

    @hook_impl
    def after_node_run(self, node: Node, outputs: dict[str, Any]) -> None:
        """Keep the table until the run has ended; before the first new result, forget what made the old ones."""
        if node.name == FIRST_NODE and not self._only_missing:  # missing alone, the pool is made as it was
            continuity.begin(project.root(), project.active())
            project.end()  # of going on: nothing is left to go on with
        if node.name == f"cycle_{project.active().cycles - 1:02d}.evaluate":
            runtime.close_workers()  # nothing trains or predicts any more
        if node.name == "report.summarise":
            from kafal_pipeline.evaluation.table import (  # noqa: PLC0415 - imports pandas
                format_table,
                format_trial,
                next_steps,
            )

            config, table = project.active(), format_table(outputs["learning_curve"])
            folder = REPORTING / config.run_path
            trial = outputs["summary"].get("trial")
            end = next_steps(config, folder) if trial is None else format_trial(outputs["summary"], folder)
            self._closing_lines = f"{table}\n\n{end}"

    @hook_impl(trylast=True)
    def after_pipeline_run(self, pipeline: Pipeline) -> None:
        """Release the processes; the table is the last thing on the terminal."""
        runtime.close()
        config = project.active()
        if f"cycle_{config.cycles - 1:02d}.evaluate" in {node.name for node in pipeline.nodes}:
            provenance.finish(project.root(), config)
        project.end()
        if self._closing_lines:
            click.echo(f"\n{self._closing_lines}")
            self._closing_lines = ""
        self._lock.release()

    @hook_impl(trylast=True)  # the tracker's end of the run still belongs to it
    def on_pipeline_error(self, error: Exception) -> None:
        """Release the processes."""
        runtime.close()
        project.end()
        self._lock.release()

    def abort(self) -> None:
        """Let go of the run: for whoever handles Ctrl-C and SIGTERM."""
        self._lock.release()
