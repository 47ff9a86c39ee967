"""Parameters as conf/ has them, read and checked without Kedro."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from kafal_pipeline.config import Config

CONF = Path(__file__).parents[1] / "conf"


def parameters(env: str) -> dict[str, Any]:
    """Return the parameters of an environment, an environment's sections on top of the base's."""
    values = yaml.safe_load((CONF / "base" / "parameters.yml").read_text())
    if env != "base":
        for key, value in yaml.safe_load((CONF / env / "parameters.yml").read_text()).items():
            values[key] = {**values[key], **value} if isinstance(value, dict) else value
    return values


def plain(config: Config) -> dict[str, Any]:
    """Return what a trial's results depend on, as JSON has it; the images go by the name in trial.json."""
    return config.model_dump(mode="json", exclude={"preset", "dataset", "tracking", "restart"})
