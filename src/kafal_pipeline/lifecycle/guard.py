"""Guards a run's results on disk: nothing is mixed or lost, one process works on them, and what made them is noted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.lifecycle.current_run import CurrentRun, Kind
from kafal_pipeline.lifecycle.resources import prepare
from kafal_pipeline.lifecycle.saved_files import check_named, check_there
from kafal_pipeline.lifecycle.strategy_checks import names_own_class
from kafal_pipeline.runs import provenance, resume, saved_run, waits
from kafal_pipeline.runs.layout import FIRST_NODE, parsed
from kafal_pipeline.runs.lock import Lock

if TYPE_CHECKING:
    from kedro.io import CatalogProtocol
    from kedro.pipeline import Pipeline
    from kedro.pipeline.node import Node


class Guard:
    """Guards the results of the run in this process."""

    def __init__(self, run: CurrentRun) -> None:
        self._run = run
        self._lock = Lock()
        self._only_missing = False

    def before_pipeline(self, run_params: Mapping[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Refuse what would mix results: another runner than the sequential one, a part of another run.

        Raises
        ------
        UserError
            With what would, and what to do.
        """
        run, kind = self._run, self._run.kind
        if not any(name in str(run_params.get("runner")) for name in ("SequentialRunner", "None")):
            raise UserError(
                "--runner: only SequentialRunner is allowed, since the cycles depend on each other. "
                "Clients train side by side as it is: training.processes."
            )
        if saved_run.KEY in run.session.runtime_params and kind != Kind(reports=True):
            raise UserError(
                f"--params: {saved_run.KEY}: only the report can be made of a saved run: kedro run --pipeline report."
            )
        check_named(pipeline, catalog, run.conf)
        if kind.of_a_run:
            self._lock.acquire(run.layout)
            resume.tidy(run.layout)
        self._only_missing = bool(run_params.get("only_missing_outputs"))
        if self._only_missing or (kind.of_a_run and not kind.begins):
            resume.check(run.layout, cycles=kind.cycles)
            if not self._only_missing:  # which may make them first, or need none
                check_there(run.layout, pipeline, catalog, run_params)
        elif kind.begins:
            resume.check_parameters(run.layout)
        run.resources.keep_checkpoints(run.root, run.session.options)

    def before_node(self, node: Node, inputs: Mapping[str, Any]) -> None:
        """Note the parameters once the first cycle's training begins: from then on results are theirs."""
        run, (cycle, task) = self._run, parsed(node.name)
        if cycle is None:
            return
        if node.name == FIRST_NODE:
            if names_own_class(run.config):  # before it replaces earlier results
                from kafal_pipeline.data import read_store
                from kafal_pipeline.federation.dry_run import dry_run

                features = run.config.features.network is not None
                dry_run(run.config, read_store(run.layout.features) if features else inputs["images"])
            return
        if task == "evaluate":
            resume.forget_checkpoints(run.layout, cycle)
        known = self._only_missing and provenance.execution(run.layout)
        if (cycle, task) == (0, "train") and not run.resumes and not known:
            resume.note(run.layout)
        else:
            provenance.reopen(run.layout)
            resume.warn_of_another_machine(run.layout)
        if task == "train":
            waits.over(run.layout)
        if task in ("query", "train"):
            prepare(run.config)

    def after_node(self, node: Node) -> None:
        """Before the first new result, forget what made the old ones."""
        if node.name == FIRST_NODE and not self._only_missing:  # missing alone, the pool is made as it was
            resume.begin(self._run.layout)
            self._run.resumes = False  # nothing is left to resume
        if parsed(node.name) == (self._run.config.cycles - 1, "evaluate"):
            self._run.resources.close_workers()  # nothing trains or predicts any more

    def finish(self) -> None:
        """Note that the run has come to its end, if it has."""
        if self._run.kind.finishes:
            provenance.finish(self._run.layout)

    def wait(self) -> None:
        """Note that the run waits for labels."""
        if self._run.kind.of_a_run:
            waits.note(self._run.layout, first_pool=self._run.node == FIRST_NODE)

    def release(self) -> None:
        """Let go of the run."""
        self._run.resumes = False
        self._lock.release()
