"""Flower's ServerApp: `flwr run flower hospitals` starts it next to the SuperLink."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import yaml
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from kafal_pipeline.common.brackets import split_outside_brackets
from kafal_pipeline.common.errors import UserError, Waiting
from kafal_pipeline.config import Config, resolve
from kafal_pipeline.pipelines.sites.trial import run_trial
from kafal_pipeline.sites.over_flower.carrier import OverFlower

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the trial that the server's file of parameters describes."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    options = context.run_config
    root = Path(str(options["folder"]))  # empty: where the SuperLink was started
    config = parameters(root / str(options["parameters"]), str(options["params"]))
    carrier = OverFlower(grid, float(str(options["timeout"])))
    carrier.wait_for(config.partition.clients, float(str(options["patience"])))
    try:
        run_trial(config, carrier, root)
    except Waiting as waiting:  # no failure: the run ends here, and the next one resumes
        print(f"\n{waiting}", flush=True)


def parameters(path: Path, more: str) -> Config:
    """Return the configuration that a YAML file describes; `more` has ``key=value`` in its place, with commas between.

    Raises
    ------
    UserError
        If the file is not there, is no YAML, or says what is not allowed.
    """
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        for item in split_outside_brackets(more):
            key, _, text = item.partition("=")
            *sections, last = key.strip().split(".")
            place = values
            for section in sections:
                place = place.setdefault(section, {})
            place[last] = yaml.safe_load(text)
    except (OSError, ValueError, AttributeError, TypeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())[:200]}).") from None
    config = resolve(values)
    if config.partition.method != "natural":
        raise UserError(f"{path}: partition.method: found {config.partition.method!r}; sites are `natural`.")
    return config
