"""The pipeline that shows what people have been asked in a run, and what they have answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from kedro.pipeline import Pipeline, node

from kafal_pipeline.annotation.answers import AnswerStore
from kafal_pipeline.annotation.exchange.entries import SHOWN
from kafal_pipeline.annotation.exchange.importing import conflict_lines, counted
from kafal_pipeline.annotation.requests import Request, latest, read_requests, refills
from kafal_pipeline.annotation.status import table
from kafal_pipeline.annotation.verdicts import Verdict, verdicts
from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import Config, resolve
from kafal_pipeline.pipelines.annotations import Parameters
from kafal_pipeline.runs import provenance, waits
from kafal_pipeline.runs.layout import Layout


def create_pipeline(root: Path = Path(), options: str = "") -> Pipeline:
    """Return the pipeline ``parameters -> closing_lines``, which says how far the run in the folder `root` is.

    `options`: those of the command line that name the run.
    """

    def status(parameters: Parameters) -> str:
        return status_of(resolve(parameters), root, options)

    return Pipeline([node(status, "parameters", "closing_lines", name="annotate.status", tags=["annotate"])])


def status_of(config: Config, root: Path, options: str = "") -> str:
    """Return, for each client and cycle, how many images have which outcome; then conflicts, and what to do next."""
    layout = Layout(root, config)
    requests = requests_of(layout)
    found = verdicts(AnswerStore(layout.answers).read_all(), config.annotation.annotators)
    lines = [table(requests, found), *conflict_lines(requests, found), next_command(layout, requests, found, options)]
    return "\n".join(lines)


def requests_of(layout: Layout) -> list[Request]:
    """Return what a run has asked so far.

    Raises `UserError` if that is nothing.
    """
    requests = read_requests(layout.requests)
    if not requests:
        others = sorted(path.relative_to(layout.requests.parents[2]).as_posix() for path in _runs(layout))
        more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        hint = f" Runs that have: {', '.join(others[:SHOWN])}{more}." if others else ""
        source = layout.config.annotation.source
        why = "" if source == "people" else f" annotation.source is {source}: with `people` it asks for missing labels."
        raise UserError(
            f"{layout.from_root.requests}: the run {layout.name} has asked people for nothing yet.{why}{hint} Give the "
            "--params of the run, or begin it: kedro run --pipeline fal."
        )
    return requests


def _runs(layout: Layout) -> list[Path]:
    return [path for path in layout.requests.parents[2].glob("*/*/seed_*") if path.is_dir()]


def next_command(layout: Layout, requests: Sequence[Request], found: Mapping[str, Verdict], options: str) -> str:
    """Return what to do next: label what the latest cycle still waits for, or let the run resume, or nothing."""
    missing = [request for request in latest(requests) if not request.is_done(found, layout.config.annotation.complete)]
    resume = f"kedro run --pipeline fal{options}"
    if not missing:
        record = provenance.read(layout)
        if record is not None and record.finished and not waits.waits(layout):
            return (
                f"The run has finished: {layout.from_root.report}. Another {resume} starts it again, with the answers "
                "that are there now."
            )
        return f"Next: {resume}"
    still = sum(len(request.missing(found)) for request in missing)
    where = layout.from_root.requests / missing[0].place(found)
    unwritten = sum(
        max(0, len(request.asked(found)) - len(request.samples) - refills(layout.requests / request.name))
        for request in missing
    )
    files = f". Files of {unwritten} of them are not written yet: the last command writes them." if unwritten else ""
    return (
        f"Next: label {counted(still, 'image')}, with kedro run --pipeline annotate{options} or in the files of {where}"
        f"{' and others' if len(missing) > 1 else ''}; then {resume}{files}"
    )
