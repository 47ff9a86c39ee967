"""A run on disk, addressed by the name of its folder: ``digits/ksas-kcfu/seed_0``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import read_json
from kafal_pipeline.runs.layout import OUTPUTS, cycle_name

KEY = "run"
"""The parameter that names a saved run."""

ANEW = "Do the run again: kedro run --pipeline fal, with its parameters."

SHOWN = 5
"""Names that a message lists."""


def parameters_of(root: Path, name: object) -> dict[str, Any]:
    """Return the parameters that a finished run was made with; its name is ``<data set>/<query>-<update>/seed_<n>``.

    Raises
    ------
    UserError
        If there is no such run, with the names nearest to it, or if it has not finished all its cycles.
    """
    records = (root / OUTPUTS).glob("*/*/seed_*/configuration.json")
    saved = sorted(path.parent.relative_to(root / OUTPUTS).as_posix() for path in records)
    wanted = str(name).strip("/")
    if wanted not in saved:
        near = difflib.get_close_matches(wanted, saved, n=SHOWN, cutoff=0.0)
        there = f"Nearest: {', '.join(near)}." if near else "There is none yet: kedro run --pipeline fal."
        raise UserError(f"--params: {KEY}: found {name!r}, but {OUTPUTS.as_posix()} holds no such run. {there}")
    folder = root / OUTPUTS / wanted
    parameters = read_json(folder / "configuration.json", ANEW)
    missing = [c for c in range(parameters["cycles"]) if not (folder / cycle_name(c) / "metrics.json").is_file()]
    if missing:
        last = parameters["cycles"] - 1
        raise UserError(
            f"--params: {KEY}: {wanted} stopped in cycle {missing[0]} of 0..{last}. Finish it first: the "
            "command that it was started with resumes from its last saved round."
        )
    return parameters


def check_alone(given: Mapping[str, Any]) -> None:
    """Check that nothing is asked for next to the saved run, whose parameters are its own."""
    others = sorted(set(given) - {KEY, "tracking"})
    if others:
        raise UserError(f"--params: {others[0]}: a saved run has its own parameters, so give {KEY}={given[KEY]} alone.")
