"""Executes what a comparison lacks: splits first, then runs; one process delivers them all to MLflow."""

import logging
import math
from collections.abc import Iterable
from pathlib import Path

from kafal_pipeline.common.machine import cores
from kafal_pipeline.lifecycle.current_run import Session
from kafal_pipeline.lifecycle.resources import Resources
from kafal_pipeline.pipelines.compare.plan import Plan
from kafal_pipeline.pipelines.compare.side_by_side.child import Message, Task, is_finished
from kafal_pipeline.pipelines.compare.side_by_side.display import Display
from kafal_pipeline.pipelines.compare.side_by_side.launch import Launcher, first_runs, memory_limit
from kafal_pipeline.pipelines.compare.side_by_side.others import run_beside_others
from kafal_pipeline.runs import provenance
from kafal_pipeline.runs.code_digest import code_parts
from kafal_pipeline.runs.layout import JOURNALS, Layout
from kafal_pipeline.training.devices import choose_device

logger = logging.getLogger(__name__)

CHANGED = "its code, split or images changed while it ran; the same command runs it again"


def execute(plan: Plan, session: Session, resources: Resources) -> tuple[dict[str, str], dict[str, str]]:
    """Run what is missing and return why runs failed and for what others wait, by their paths."""
    jobs, processes = side_by_side(plan)
    sources = {run.config.run_path: code_parts(run.config) for run in plan.missing}  # before processes import any
    limit = memory_limit(plan.compare.memory_limit)
    splits = {run.config.split_path: run for run in plan.splits}
    launcher = Launcher[str](jobs, limit, lambda _key, _message: None)

    def splitting(paths: list[str]) -> list[tuple[str, Task]]:
        return [_split_task(splits[path], session) for path in paths]

    unsplit = {path: error for path, error in run_beside_others(launcher, splits, splitting) if error is not None}
    runs = {run.layout.name: run.layout for run in plan.missing if run.config.split_path not in unsplit}
    _warn_of_replaced(runs.values())
    logger.info("%d runs to go, %d side by side, logs in %s", len(runs), jobs, JOURNALS)
    if (first := first_runs(limit)) < min(jobs, len(runs)):
        logger.info("Memory, %.1f GB, allows %d side by side until it is known what a run needs", limit, first)
    failures: dict[str, str] = {}
    journals: dict[str, Path] = {}
    delivery = resources.delivery(plan.runs[0].config, session.root)
    with Display(len(plan.missing), plan.runs[0].config.cycles) as display:

        def hear(path: str, message: Message) -> None:
            kind, value = message
            if kind == "cycle":
                display.cycle(path, value)
            elif kind == "journal":
                journals[path] = Path(value)
                delivery.follow(journals[path])

        def training(paths: list[str]) -> list[tuple[str, Task]]:
            counts = shares(len(paths), jobs, processes)
            return [
                _task(plan, runs[path], session, count, sources[path])
                for path, count in zip(paths, counts, strict=True)
            ]

        def fail(run: Layout, error: str) -> None:
            failures[run.name] = error
            provenance.fail(run, error)

        for run in plan.missing:
            if (error := unsplit.get(run.config.split_path)) is not None:
                fail(run.layout, f"the split {run.config.split_path} could not be made: {error}")
                display.end(run.layout.name, failures[run.layout.name])
        launcher = Launcher(jobs, limit, hear)
        for path, reason in run_beside_others(launcher, runs, training, is_finished):
            if path in journals:
                delivery.over(journals[path])
            waits = path in launcher.waiting
            error = CHANGED if reason is None and not waits and not is_finished(runs[path]) else reason
            if error is not None:
                fail(runs[path], error)
            display.end(path, error, waits=waits)
    return failures, launcher.waiting


def side_by_side(plan: Plan) -> tuple[int, int | None]:
    """Return how many runs go side by side, and in how many processes each trains; None leaves that to the run.

    Whole runs side by side are faster than clients side by side, since queries and evaluation have no part that waits.
    Where runs are fewer than cores the rest of the cores goes to the clients. A GPU is filled by one run.
    """
    config, wanted = plan.runs[0].config, plan.compare.jobs
    if choose_device(config.training.device).type != "cpu":
        return (1 if wanted == "auto" else wanted), None
    jobs = min(cores() if wanted == "auto" else wanted, len(plan.missing))
    if jobs == 1:
        return 1, None
    return jobs, max(1, math.floor(cores() / jobs))


def shares(runs: int, jobs: int, processes: int | None) -> list[int | None]:
    """Return in how many processes each run trains: the last ones, if fewer than jobs, have all cores for themselves.

    >>> shares(4, 2, None), shares(4, 2, 3)
    ([None, None, None, None], [3, 3, 3, 3])
    """
    left = runs % jobs if processes is not None else 0
    return [processes] * (runs - left) + ([max(1, cores() // left)] * left if left else [])


def _warn_of_replaced(runs: Iterable[Layout]) -> None:
    """Say how many finished runs lie where others are to be made, once the splits are there that they depend on."""
    replaced = 0
    for run in runs:
        found = provenance.read(run)
        replaced += bool(found and found.finished) and provenance.state(run) == "absent"
    if replaced:
        logger.warning(
            "%d of the runs to be made will replace one that was finished with other parameters, data or code; to keep "
            "both, give these a folder of their own: --params dataset.label=...",
            replaced,
        )


def _task(
    plan: Plan, run: Layout, session: Session, processes: int | None, sources: tuple[str, ...]
) -> tuple[str, Task]:
    parameters = run.config.model_dump(mode="json")
    if processes is not None:
        parameters["training"]["processes"] = processes
    comparison = plan.compare.name if run.config.tracking.enabled else None
    parameters["restart"] = "if_changed"  # what is there was made with something else, or resumes
    return run.name, Task(session, parameters, "trial", comparison, run.log, sources)


def _split_task(run: Layout, session: Session) -> tuple[str, Task]:
    return run.config.split_path, Task(session, run.config.model_dump(mode="json"), "partition", None, run.split_log)
