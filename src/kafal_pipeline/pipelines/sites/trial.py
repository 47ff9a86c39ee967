"""Runs a trial over sites from its first step, or resumes it where it was interrupted; records it in MLflow."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from kafal_pipeline.common.errors import Waiting
from kafal_pipeline.config import Config
from kafal_pipeline.evaluation import format_table
from kafal_pipeline.federation.trial import Trial
from kafal_pipeline.pipelines.sites.results import Results
from kafal_pipeline.runs.layout import Layout
from kafal_pipeline.sites.at_server.clients import SitesAsClients
from kafal_pipeline.sites.at_server.members import Members, gather
from kafal_pipeline.sites.packets import Carrier
from kafal_pipeline.tracking import record
from kafal_pipeline.tracking.tracker import NullTracker, Tracker

logger = logging.getLogger(__name__)


def run_trial(config: Config, carrier: Carrier, root: Path) -> dict[str, Any]:
    """Run a trial, and return its summary; results lie in the folder `root` as those of a simulated trial do.

    Raises
    ------
    Waiting
        If people at the sites have not labelled enough; the same command resumes.
    UserError
        If sites are missing, a step goes wrong, or another trial is in the way; what is done so far is kept, and the
        same command resumes.
    """
    results = Results(Layout(root, config))
    with results.held():
        members = results.members()
        if members is None:
            members = gather(carrier, config)
            results.begin(members)
        else:
            logger.info("%s: resumes", results.layout.name)
        restart = Tracker.start(config, results.layout.journals, root, execution=results.execution)
        try:
            summary = _run(results, carrier, members, restart)
        except BaseException as error:
            if isinstance(error, Waiting):
                restart.finish("SCHEDULED")
            elif isinstance(error, Exception):
                restart.finish("FAILED", f"{type(error).__name__}: {error}")
            else:
                restart.abort(1)
            raise
        restart.finish("FINISHED")
    return summary


def _run(results: Results, carrier: Carrier, members: Members, tracker: NullTracker) -> dict[str, Any]:
    config, labels = results.config, 0
    # Sites label what a query has chosen; labels of the cycle before are there in any case.
    done = [cycle for cycle in range(config.cycles) if results.trained(cycle) is not None]
    last = max(done, default=0)
    clients = SitesAsClients(config, carrier, members, results.run_name(), cycle=last, store=results.store)
    trial, model = Trial(config, members.images(), clients), None
    for cycle in range(config.cycles):
        if (metrics := results.metrics(cycle)) is None:
            queried = None
            if cycle:
                if (queried := results.queried(cycle)) is None:
                    queried = trial.query(cycle, results.model(cycle - 1))
                    results.save_queried(cycle, queried)
                clients.annotate(cycle)
            if (trained := results.trained(cycle)) is None:
                model = results.model(cycle - 1) if cycle else None
                trained = trial.train(cycle, model, _say_round)
                results.save_trained(trained)
            results.save_metrics(cycle, trial.evaluate(trained, queried))
            metrics = results.metrics(cycle)
            assert metrics is not None  # it has just been saved
        labels = metrics["labels"]
        logger.info("cycle %d: %d labels, accuracy %.1f %%", cycle, labels, 100 * metrics["accuracy"])
        record.record_metrics(tracker, metrics)
        trained_again = results.trained(cycle)
        if trained_again is not None:
            record.record_rounds(tracker, pd.DataFrame(trained_again.rows), config.federation.rounds)
    summary, curve, of_classes, of_clients = results.report()
    record.record_summary(tracker, summary, labels)
    for kind, table in (("class", of_classes), ("client", of_clients)):
        record.record_parts(tracker, kind, table.set_index(kind).drop(columns="images"), labels)
    record.record_results(tracker, results.layout.report)
    record.record_model(tracker, results.layout.global_model(config.cycles - 1), config, members.images(), labels)
    print(f"\n{format_table(curve)}\n\nSummary, tables, figures  {results.layout.report}", flush=True)
    return summary


def _say_round(state: Any) -> None:
    rows = [row for row in state.rows if row["round"] == state.round - 1]
    skipped = sum(bool(row["failed"]) for row in rows)
    left_out = f", {skipped} left out" if skipped else ""
    logger.info("cycle %d, round %d: %d sites%s", state.cycle, state.round - 1, len(rows), left_out)
