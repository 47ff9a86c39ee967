"""Resumes a run from results on disk, only if the same parameters, data and code made them."""

from __future__ import annotations

import logging
from contextlib import suppress

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import read_json, remove, remove_temporary, write_json
from kafal_pipeline.config.flat import flat
from kafal_pipeline.runs import provenance, waits
from kafal_pipeline.runs.layout import Layout, cycle_name

logger = logging.getLogger(__name__)

NAMED = 5
"""Parameters that a message names; of more it gives the number."""

ANEW = (
    "The parameters of the results next to it are not known. Start the run again: kedro run --pipeline fal --params "
    "restart=true."
)
KEEP = (
    "To keep both, give this one a folder of its own: --params dataset.label=...; to replace it: --params restart=true."
)


def begin(run: Layout) -> None:
    """Forget the results on disk but the initial pool: they are about to be replaced.

    Were they left, a run that is interrupted and resumes with what is missing would take them for its own.
    """
    provenance.forget(run)
    run.configuration.unlink(missing_ok=True)
    for folder in run.of_cycles:
        for cycle in folder.glob("cycle_*"):
            if cycle != run.pools / cycle_name(0):
                remove(cycle)


def tidy(run: Layout) -> None:
    """Remove what a process that was killed has left half-written; no other one may work on the run."""
    for folder in (*run.of_cycles, run.report):
        remove_temporary(folder)


def note(run: Layout) -> None:
    """Write down what makes the results of a run that starts again from its first round."""
    write_json(run.configuration, provenance.deciding(run.config), indent=2)
    provenance.begin(run, waits.execution(run))


def forget_checkpoints(run: Layout, cycle: int) -> None:
    """Remove what was written down of a cycle that is trained."""
    with suppress(OSError):
        remove(run.checkpoint(cycle))


def resumes(run: Layout) -> bool:
    """Tell whether an interrupted run is there that resumes now; its images and its split must be there.

    A finished run is done again, and one that has not finished its first round has nothing that could be mixed.

    Raises
    ------
    UserError
        If parameters, images, split or code are others than those of the interrupted run, and ``restart`` does not say
        what to do then.
    """
    found = _interrupted(run)
    if found is None:
        return False
    now = provenance.fingerprint(run)
    if now == found.fingerprint:
        return True
    if run.config.restart is False and _has_rounds(run):
        raise _refused(run, _differences(run) + _changed(run, found))
    return False


def check_parameters(run: Layout) -> None:
    """Check, before there are images and splits, that no run with other parameters would be lost.

    Raises
    ------
    UserError
        With the parameters that differ from those of a finished or an interrupted run.
    """
    if changed := finished_otherwise(run):
        raise UserError(f"{run.outputs}: a finished run with other parameters lies there ({changed}). {KEEP}")
    in_danger = run.config.restart is False and _interrupted(run) and _has_rounds(run)
    if in_danger and (differences := _differences(run)):
        raise _refused(run, differences)


def finished_otherwise(run: Layout) -> str:
    """Return the parameters in which a finished run differs that this one would replace; nothing if there is none.

    Nor where `restart` says that it may be replaced. Other code and data are no obstacle: a run that is done again
    after a change of these is what was asked for.
    """
    found = provenance.read(run)
    if run.config.restart is not False or found is None or not found.finished:
        return ""
    if found.fingerprint.get("configuration") == provenance.configuration_digest(run.config):
        return ""  # whatever has become of the file that holds them
    changed = _differences(run)
    return "; ".join(changed[:NAMED]) + (f"; and {len(changed) - NAMED} more" if len(changed) > NAMED else "")


_CHANGED = {
    "images": "the images are others",
    "split": "the split is another",
    "sources": "the code of query, update or federation is another",
    "weights": "the weights of model.pretrained are others",
}


def _interrupted(run: Layout) -> provenance.Provenance | None:
    """Return what is known of an interrupted run that may resume; None if there is none."""
    found = provenance.read(run)
    return None if run.config.restart is True or found is None or found.finished else found


def _has_rounds(run: Layout) -> bool:
    """Tell whether any round of the run on disk is finished."""
    return any(run.models.glob("cycle_*/checkpoint/[0-9]*")) or any(run.outputs.glob("cycle_*/rounds.parquet"))


def _refused(run: Layout, changed: list[str]) -> UserError:
    return UserError(
        f"{run.outputs}: an interrupted run is here, and what has changed since would mix with its "
        f"results ({'; '.join(changed)}). Change it back, and the same command resumes after the last round; or start "
        "again: --params restart=true."
    )


def _differences(run: Layout) -> list[str]:
    """Return the parameters in which the results on disk differ from this run's."""
    try:
        before = flat(read_json(run.configuration, ANEW))
    except FileNotFoundError:
        return []
    now = flat(provenance.deciding(run.config))
    keys = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    return [f"{key}: {before.get(key)!r} then, {now.get(key)!r} now" for key in keys]


def check(run: Layout, *, cycles: bool = True) -> None:
    """Check that the results on disk, if there are any, were made with the same parameters.

    Where `cycles` continue, images, split and code must be the same too.

    Raises
    ------
    UserError
        With what differs.
    """
    if not any(folder.exists() for folder in run.of_cycles):
        return
    if not run.configuration.is_file():
        raise UserError(
            f"{run.configuration}: the parameters of the results next to it are not known, so a part of the pipeline "
            "cannot use them. Run the whole pipeline: kedro run --pipeline fal."
        )
    if differences := _differences(run):
        raise UserError(
            f"{run.configuration}: the results on disk were made with other parameters ({'; '.join(differences)}). "
            "Give the same ones, or run the whole pipeline: kedro run --pipeline fal."
        )
    found = provenance.read(run)
    if cycles and found is not None and (changed := _changed(run, found)):
        raise UserError(
            f"{run.outputs}: the results there were made with something else: {'; '.join(changed)}. Change it back, "
            "or run the whole pipeline: kedro run --pipeline fal."
        )


def warn_of_another_machine(run: Layout) -> None:
    """Say that what follows has other last bits than it would have had where the run was begun."""
    if others := provenance.note_machine(run):
        logger.warning(
            "%s: the run was begun on another kind of processor, or with other settings (%s): it resumes, and its "
            "results are others than either would have given (docs/determinism.md)",
            run.outputs,
            "; ".join(others),
        )


def _changed(run: Layout, found: provenance.Provenance) -> list[str]:
    """Return which of images, split and code are others; what is not there is about to be made."""
    try:
        now = provenance.fingerprint(run)
    except provenance.Absent:
        now = {"sources": provenance.sources_digest(run.config)}
    return [_CHANGED[key] for key in now if key in _CHANGED and now[key] != found.fingerprint.get(key)]
