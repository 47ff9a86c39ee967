"""Runs of a part of the pipeline go on from results on disk: only from those that the same parameters made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from kafal_pipeline import provenance
from kafal_pipeline.config import Config
from kafal_pipeline.errors import UserError
from kafal_pipeline.files import write_json

LAYERS = ("05_model_input", "06_models", "07_model_output")
"""Folders of ``data/`` that hold a run's cycles."""


def _record(root: Path, config: Config) -> Path:
    return root / "data" / "07_model_output" / config.run_path / "configuration.json"


def begin(root: Path, config: Config) -> None:
    """Forget the results on disk but the initial pool: they are about to be replaced.

    Were they left, a run that is interrupted and goes on with what is missing would take them for its own.
    """
    provenance.forget(root, config)
    _record(root, config).unlink(missing_ok=True)
    for layer in LAYERS:
        for folder in (root / "data" / layer / config.run_path).glob("cycle_*"):
            if layer != "05_model_input" or folder.name != "cycle_00":
                shutil.rmtree(folder)


def note(root: Path, config: Config) -> None:
    """Write down what makes the results of a run that starts anew."""
    write_json(_record(root, config), provenance.deciding(config), indent=2)
    provenance.begin(root, config)


def check(root: Path, config: Config) -> None:
    """Check that the results on disk, if there are any, were made with the parameters of `config`.

    Raises
    ------
    UserError
        With the parameters that differ.
    """
    record = _record(root, config)
    if not any((root / "data" / layer / config.run_path).exists() for layer in LAYERS):
        return
    if not record.is_file():
        raise UserError(
            f"{record}: the parameters of the results beside it are not known, so that a part of the pipeline cannot "
            "go on from them. Run the whole pipeline: kedro run --pipeline fal."
        )
    before, now = _flat(json.loads(record.read_text(encoding="utf-8"))), _flat(provenance.deciding(config))
    keys = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    if keys:
        differences = "; ".join(f"{key}: {before.get(key)!r} then, {now.get(key)!r} now" for key in keys)
        raise UserError(
            f"{record}: the results on disk were made with other parameters ({differences}). Give the same ones, or "
            "run the whole pipeline: kedro run --pipeline fal."
        )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
