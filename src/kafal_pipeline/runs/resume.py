"""Resumes a run from results on disk, only if the same parameters, data and code made them."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import read_json, remove, remove_temporary, write_json
from kafal_pipeline.config import Config
from kafal_pipeline.config.flat import flat
from kafal_pipeline.runs import provenance

LAYERS = ("05_model_input", "06_models", "07_model_output")
"""Folders of ``data/`` that hold a run's cycles."""

logger = logging.getLogger(__name__)

NAMED = 5
"""Parameters that a warning names; of more it gives the number."""

ANEW = (
    "The parameters of the results next to it are not known. Start the run again: kedro run --pipeline fal --params "
    "restart=true."
)
CHECKPOINT = "checkpoint"
"""Folder of a cycle's checkpoints, beside its models until the cycle is trained."""


def _record(root: Path, config: Config) -> Path:
    return root / "data" / "07_model_output" / config.run_path / provenance.CONFIGURATION


def begin(root: Path, config: Config) -> None:
    """Forget the results on disk but the initial pool: they are about to be replaced.

    Were they left, a run that is interrupted and goes on with what is missing would take them for its own.
    """
    provenance.forget(root, config)
    _record(root, config).unlink(missing_ok=True)
    for layer in LAYERS:
        for folder in (root / "data" / layer / config.run_path).glob("cycle_*"):
            if layer != "05_model_input" or folder.name != "cycle_00":
                remove(folder)


def tidy(root: Path, config: Config) -> None:
    """Remove what a process that was killed has left half-written; no other one may work on the run."""
    for layer in (*LAYERS, "08_reporting"):
        remove_temporary(root / "data" / layer / config.run_path)


def note(root: Path, config: Config) -> None:
    """Write down what makes the results of a run that starts anew."""
    write_json(_record(root, config), provenance.deciding(config), indent=2)
    provenance.begin(root, config)


def checkpoint_folder(root: Path, config: Config, cycle: str) -> Path:
    """Return where the rounds of a cycle, ``cycle_00`` ..., are written down until it is trained."""
    return root / "data" / "06_models" / config.run_path / cycle / CHECKPOINT


def forget_checkpoints(root: Path, config: Config, cycle: str) -> None:
    """Remove what was written down of a cycle that is trained."""
    with suppress(OSError):
        remove(checkpoint_folder(root, config, cycle))


def goes_on(root: Path, config: Config) -> bool:
    """Tell whether an interrupted run is there that the run which begins now goes on with.

    A finished run is done anew, and one that has not finished its first round has nothing that could be mixed.

    Parameters
    ----------
    root
        The project's folder; the split and the images must be those of the run that begins.

    Raises
    ------
    UserError
        If parameters, images, split or code are others than those of the interrupted run, and ``restart`` does not say
        what to do then.
    """
    found = _interrupted(root, config)
    if found is None:
        return False
    now = provenance.fingerprint(root, config)
    if now == found.fingerprint:
        return True
    if config.restart is False and _has_rounds(root, config):
        raise _refused(root, config, _differences(root, config) + _changed(root, config, found))
    return False


def check_parameters(root: Path, config: Config) -> None:
    """Check, before there are images and splits, that no run with other parameters has been interrupted here.

    Raises
    ------
    UserError
        With the parameters that differ.
    """
    in_danger = config.restart is False and _interrupted(root, config) and _has_rounds(root, config)
    if in_danger and (changed := _differences(root, config)):
        raise _refused(root, config, changed)


def warn_of_replaced(root: Path, config: Config) -> None:
    """Say what is about to be replaced: the results of a finished run with other parameters."""
    found = provenance.read(root / provenance.OUTPUTS / config.run_path)
    if config.restart is not False or found is None or not found.finished:
        return
    if changed := _differences(root, config):
        more = f"; and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
        logger.warning(
            "%s: the results of a finished run with other parameters will be replaced (%s%s). To keep both, press "
            "Ctrl-C now and give this one a folder of its own: --params dataset.label=...",
            _record(root, config).parent,
            "; ".join(changed[:NAMED]),
            more,
        )


_CHANGED = {
    "images": "the images are others",
    "split": "the split is another",
    "sources": "the code of query, update or federation is another",
    "weights": "the weights of model.pretrained are others",
}


def _interrupted(root: Path, config: Config) -> provenance.Provenance | None:
    """Return what is known of an interrupted run that may go on; None if there is none."""
    found = provenance.read(root / provenance.OUTPUTS / config.run_path)
    return None if config.restart is True or found is None or found.finished else found


def _has_rounds(root: Path, config: Config) -> bool:
    """Tell whether any round of the run on disk is finished."""
    models, outputs = (root / "data" / layer / config.run_path for layer in LAYERS[1:])
    return any(models.glob(f"cycle_*/{CHECKPOINT}/[0-9]*")) or any(outputs.glob("cycle_*/rounds.parquet"))


def _refused(root: Path, config: Config, changed: list[str]) -> UserError:
    return UserError(
        f"{_record(root, config).parent}: an interrupted run is here, and what has changed since would mix with its "
        f"results ({'; '.join(changed)}). Change it back, and the same command resumes after the last round; or start "
        "again: --params restart=true."
    )


def _differences(root: Path, config: Config) -> list[str]:
    """Return the parameters in which the results on disk differ from `config`."""
    try:
        before = flat(read_json(_record(root, config), ANEW))
    except FileNotFoundError:
        return []
    now = flat(provenance.deciding(config))
    keys = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    return [f"{key}: {before.get(key)!r} then, {now.get(key)!r} now" for key in keys]


def check(root: Path, config: Config, *, cycles: bool = True) -> None:
    """Check that the results on disk, if there are any, were made with the parameters of `config`.

    Parameters
    ----------
    root
        The project's folder.
    config
        The run's configuration.
    cycles
        Whether cycles are to be gone on with: then images, split and code must be the same too.

    Raises
    ------
    UserError
        With what differs.
    """
    record = _record(root, config)
    if not any((root / "data" / layer / config.run_path).exists() for layer in LAYERS):
        return
    if not record.is_file():
        raise UserError(
            f"{record}: the parameters of the results next to it are not known, so a part of the pipeline cannot "
            "use them. Run the whole pipeline: kedro run --pipeline fal."
        )
    if differences := _differences(root, config):
        raise UserError(
            f"{record}: the results on disk were made with other parameters ({'; '.join(differences)}). Give the same "
            "ones, or run the whole pipeline: kedro run --pipeline fal."
        )
    found = provenance.read(record.parent)
    if cycles and found is not None and (changed := _changed(root, config, found)):
        raise UserError(
            f"{record.parent}: the results there were made with something else: {'; '.join(changed)}. Change it back, "
            "or run the whole pipeline: kedro run --pipeline fal."
        )


def _changed(root: Path, config: Config, found: provenance.Provenance) -> list[str]:
    """Return which of images, split and code are others; what is not there is about to be made."""
    try:
        now = provenance.fingerprint(root, config)
    except provenance.Absent:
        now = {"sources": provenance.sources_digest(config)}
    return [_CHANGED[key] for key in now if key in _CHANGED and now[key] != found.fingerprint.get(key)]
