"""Commands for the people of a site: the labelling page, files of other tools, and what is done so far."""

from __future__ import annotations

import getpass
import json
from pathlib import Path

from kafal_pipeline.annotation.desk import Desk
from kafal_pipeline.annotation.exchange.importing import conflict_lines, counted, import_file
from kafal_pipeline.annotation.requests import MANIFEST, latest
from kafal_pipeline.annotation.status import table
from kafal_pipeline.common.errors import UserError, did_you_mean
from kafal_pipeline.common.files import read_json
from kafal_pipeline.common.locks import alone
from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.sites.at_site.images import open_images
from kafal_pipeline.sites.at_site.people import desk_of, requests_of
from kafal_pipeline.sites.at_site.site_file import SiteFile

RESUME = "flwr run, at the server"
"""Sentence on how a trial resumes, for people at a site."""


def serve_page(site: SiteFile, run: str | None = None) -> None:
    """Serve the labelling page on this machine until Ctrl-C; raises UserError if nothing is to be labelled."""
    from kafal_pipeline.annotation.page.serve import serve  # Flask takes a moment to import

    desk = _desk(site, run)
    reached = serve(desk, _show, RESUME)
    print(f"{reached.line}\n{_next(desk)}")


def import_answers(site: SiteFile, file: Path, run: str | None = None) -> None:
    """Import a filled-in table, or an export of Label Studio or CVAT; raises UserError with all that is wrong in it."""
    desk = _desk(site, run)
    section = desk.config
    imported = import_file(file, desk.requests(), desk.store, _login(), section.annotators, requests_of(site))
    print("\n".join([*imported.lines(), f"Still to be answered: {counted(imported.missing, 'image')}.", _next(desk)]))


def show_status(site: SiteFile, run: str | None = None) -> None:
    """Print how many images were asked for in each cycle, and what people have said of them."""
    desk = _desk(site, run)
    requests, found = desk.requests(), desk.verdicts()
    lines = [f"trial {desk.run}", table(requests, found), *conflict_lines(requests, found), _next(desk)]
    print("\n".join(lines))


def _show(address: str) -> None:
    print(f"\nLabel the images here:  {address}\n\nCtrl-C ends it. Every answer is on disk at once.", flush=True)


def _desk(site: SiteFile, run: str | None) -> Desk:
    """Return the desk of a trial; None is the one that has asked last."""
    asked = {path.parents[2].name: path for path in sorted(requests_of(site).glob(f"*/cycle_*/client_*/{MANIFEST}"))}
    if not asked:
        raise UserError(
            f"{requests_of(site)}: nothing is asked yet. A trial asks once it runs with annotation.source: people, "
            "here and at the server."
        )
    if run is not None and run not in asked:
        raise UserError(f"--run: found {run!r}, which has asked for nothing here. {did_you_mean(run, asked)}")
    run = run or max(asked, key=lambda name: asked[name].stat().st_mtime_ns)
    folder = Path(site.work) / "runs" / run
    try:
        said = json.loads(
            read_json(folder / "run.json", f"Remove {folder}, and start the trial again.")["said"]["config"]
        )
    except FileNotFoundError:
        raise UserError(f"{folder}: the trial is no longer here; remove {requests_of(site) / run} too.") from None
    with alone(Path(site.work) / ".lock"):
        images = open_images(site, DatasetConfig.model_validate(said["dataset"]))
    return desk_of(site, run, images)


def _next(desk: Desk) -> str:
    found = desk.verdicts()
    waiting = [request for request in latest(desk.requests()) if not request.is_done(found, desk.config.complete)]
    if not waiting:
        return f"Enough is labelled here. The trial resumes by {RESUME}."
    missing = sum(len(request.missing(found)) for request in waiting)
    return (
        f"Next: label {counted(missing, 'image')} (python -m kafal_pipeline.site annotate site.yml), or fill in the "
        f"files in {desk.folder / waiting[0].place(found)} and import them. Then the trial resumes by {RESUME}."
    )


def _login() -> str:
    """Return the name by which the user is known to the system, which need not have one."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"
