"""The nodes of a comparison."""

import json
import logging
from pathlib import Path
from typing import Any

import click

from kafal_pipeline.common.errors import UserError, Waiting
from kafal_pipeline.config.compare import resolve_comparison
from kafal_pipeline.data import ImageData
from kafal_pipeline.lifecycle.current_run import Session
from kafal_pipeline.lifecycle.resources import Resources
from kafal_pipeline.pipelines.annotations import Parameters, RunTables
from kafal_pipeline.pipelines.compare.plan import Plan, Planned, make_plan
from kafal_pipeline.runs import provenance, resume, waits
from kafal_pipeline.runs.layout import JOURNALS, OUTPUTS
from kafal_pipeline.tracking.comparison import record_comparison, untracked

logger = logging.getLogger(__name__)

NAMED = 5  # runs that a warning names; of more it gives the number


def plan(parameters: Parameters, images: ImageData, root: Path) -> Plan:
    """Find out which runs are missing."""
    compare, configs = resolve_comparison(parameters)
    found = make_plan(root, compare, configs, images)
    for item in found.runs:
        if item.state == "changed":
            names = ", ".join(str(path.relative_to(root)) for path in provenance.changed(item.layout))
            logger.warning("%s: not what the run saved there; the run is not used", names)
    if compare.run_missing:
        _check_replaced(found)
    total, missing = len(found.runs), len(found.missing)
    logger.info("%d runs, %d of them there already", total, total - missing)
    return found


def run(plan: Plan, session: Session, resources: Resources) -> tuple[dict[str, str], dict[str, str]]:
    """Run what is missing and return why runs failed and for what others wait, by their paths."""
    if not plan.compare.run_missing:
        waiting = {item.config.run_path: "waits for labels" for item in plan.missing if waits.waits(item.layout)}
        lacking = {item.config.run_path: _why_not_there(item) for item in plan.missing}
        return {path: reason for path, reason in lacking.items() if path not in waiting}, waiting
    if not plan.missing:
        return {}, {}
    from kafal_pipeline.pipelines.compare.side_by_side.execute import execute

    return execute(plan, session, resources)


def load(plan: Plan, failures: dict[str, str], waiting: dict[str, str], session: Session) -> RunTables:
    """Read the results of all runs; where all of them wait for labels, `Waiting` says so."""
    if plan.compare.run_missing and len(waiting) == len(plan.runs):
        raise Waiting(_of_waiting(plan, waiting, session))
    from kafal_pipeline.comparison import load_runs

    folders = {run.config.run_path: run.layout.outputs for run in plan.runs}
    return load_runs(
        folders.values(),
        splits={run.config.seed: run.layout.split_table for run in plan.runs},
        failures={folders[path]: reason for path, reason in failures.items()},
        waiting={folders[path]: reason for path, reason in waiting.items()},
        keys={
            run.layout.outputs: {"query": run.config.query.label, "update": run.config.update.label}
            for run in plan.runs
        },
    )


def report(plan: Plan, tables: RunTables, resources: Resources) -> list[str]:
    """Write the report, hand it to the tracker, and return its files."""
    from kafal_pipeline.comparison import write_report
    from kafal_pipeline.comparison.runs import FINISHED

    compare, first = plan.compare, plan.runs[0].layout
    config, root = first.config, first.root
    files = write_report(
        tables,
        first.comparison_report(compare.name),
        title=config.dataset.folder if compare.name == "default" else f"{compare.name}, {config.dataset.folder}",
        baseline=compare.baseline,
        alpha=compare.alpha,
        targets=compare.targets,
        versions=_versions(plan),
    )
    if config.tracking.enabled:
        (summary,) = (file for file in files if file.name == "comparison.json")
        scalars = json.loads(summary.read_text(encoding="utf-8"))
        finished = tables.runs[tables.runs["status"] == FINISHED]
        used = set(zip(finished["query"], finished["update"], finished["seed"], strict=True))
        # Where a run failed, or is missing, there may lie one of other parameters, which the report does not use.
        members = {
            item.config.run_path: provenance.execution(item.layout)
            for item in plan.runs
            if (item.config.query.label, item.config.update.label, item.config.seed) in used
        }
        journal = record_comparison(compare, config, root, files, scalars, filter(None, members.values()))
        delivery = resources.delivery(config, root)
        delivery.follow(journal)
        delivery.over(journal)
        if paths := untracked(members, config, root):
            logger.warning(
                "%d of %d runs were made without tracking, or have no journal for this tracker and experiment, and may "
                "not be in MLflow. To have them there, delete their folders in %s: the same command does them again. "
                "They are %s%s",
                len(paths),
                len(members),
                OUTPUTS,
                ", ".join(paths[:NAMED]),
                f" and {len(paths) - NAMED} more" if len(paths) > NAMED else "",
            )
    return [str(file) for file in files]


def conclude(plan: Plan, failures: dict[str, str], waiting: dict[str, str], files: list[str], session: Session) -> None:
    """Say where the report is; fail if a run has failed, and wait if one waits."""
    folder = plan.runs[0].layout.from_root.comparison_report(plan.compare.name)
    click.echo(f"\nReport  {folder / Path(files[0]).name}")
    if not plan.compare.run_missing:
        return
    said = [_of_waiting(plan, waiting, session)] if waiting else []
    if failures:
        said.append(
            f"{len(failures)} of {len(plan.runs)} runs failed; the report shows the others. The same command runs "
            f"what failed again.\n{_listed(failures)}"
        )
    if said:
        raise (UserError if failures else Waiting)("\n\n".join(said))


def _of_waiting(plan: Plan, waiting: dict[str, str], session: Session) -> str:
    """Return what to say of runs that wait for labels."""
    options = {run.layout.name: session.of_run(run.config).options for run in plan.runs}
    pages = {path: f"{reason}\n  kedro run --pipeline annotate{options[path]}" for path, reason in waiting.items()}
    return (
        f"{len(waiting)} of {len(plan.runs)} runs wait for labels. Label them on their pages or in other ways "
        f"(docs/annotate.md; the end of {JOURNALS}/<run>/run.log names all files), then give the same command again. "
        f"What several runs ask for is labelled once.\n{_listed(pages)}"
    )


def _listed(reasons: dict[str, str]) -> str:
    return "\n".join(f"{path}: {reason}" for path, reason in sorted(reasons.items()))


def _check_replaced(plan: Plan) -> None:
    """Refuse to replace finished runs of other parameters, before anything is done."""
    others = {item.config.run_path: resume.finished_otherwise(item.layout) for item in plan.missing}
    others = {path: differences for path, differences in others.items() if differences}
    if others:
        path, differences = next(iter(others.items()))
        raise UserError(
            f"{len(others)} of the {len(plan.missing)} runs to be made would replace a finished run with other "
            f"parameters, such as {path} ({differences}). {resume.KEEP}"
        )


def _why_not_there(item: Planned) -> str:
    if item.state == "changed":
        return "changed since it was finished"
    found = provenance.read(item.layout)
    if found is None:
        return "never ran"
    if found.error:
        return found.error
    return "made by other parameters, data or code" if found.finished else "not finished"


def _versions(plan: Plan) -> dict[str, str]:
    """Return what the runs were made with; several versions of a package stand side by side."""
    found: dict[str, set[str]] = {}
    for item in plan.runs:
        made_by: Any = provenance.read(item.layout)
        made = {**made_by.versions, **made_by.machine} if made_by and made_by.finished else {}
        for package, version in made.items():
            found.setdefault(package, set()).add(version)
    return {package: ", ".join(sorted(versions)) for package, versions in found.items()}
