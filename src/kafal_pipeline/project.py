"""The configuration of the run that Kedro is about to do, checked, with messages that name the file of each key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kafal_pipeline.config import Config, resolve
from kafal_pipeline.config.resolve import ConfigError
from kafal_pipeline.errors import UserError
from kafal_pipeline.models import MODELS
from kafal_pipeline.query import QUERIES
from kafal_pipeline.registry import check_name, create
from kafal_pipeline.update import UPDATES

_root = Path()
_running = False
_active: Config | None = None
"""Pipelines are registered, and paths in the catalog interpolated, without arguments: what they need stands here."""


def activate(config_loader: Any, root: Path = Path()) -> Config:
    """Check the parameters that `config_loader` holds and make them those of the run in the project folder `root`.

    Raises
    ------
    UserError
        With every problem, each led by the file that holds the key.
    """
    global _active, _root  # noqa: PLW0603 - see above
    try:
        config = resolve(config_loader["parameters"])
        _check_strategies(config)
    except ConfigError as error:
        lines = [f"{_source(config_loader, key)}: {key}: {sentence}" for key, sentence in error.problems]
        raise UserError("\n".join(lines)) from None
    _active, _root = config, root
    return config


def active() -> Config:
    """Return the run's configuration; the defaults where no run is under way (`kedro registry list`)."""
    return _active if _active is not None else resolve({})


def start() -> None:
    """Take note that the pipeline's nodes begin to run."""
    global _running  # noqa: PLW0603 - see above
    _running = True


def running() -> bool:
    """Tell whether nodes have begun to run: before that, errors are in what the user asked for."""
    return _running


def root() -> Path:
    """Return the project's folder."""
    return _root


def path(key: str) -> str:
    """Return a part of the run's paths: the resolver ``${run:...}`` of the catalog.

    Parameters
    ----------
    key
        ``dataset``, ``split`` (``<dataset>/seed_<n>``) or ``path`` (``<dataset>/<query>-<update>/seed_<n>``).
    """
    config = active()
    return {"dataset": config.dataset.folder, "split": config.split_path, "path": config.run_path}[key]


def _check_strategies(config: Config) -> None:
    """Check names without importing anything; options, which are the classes' own, by making an instance."""
    problems = []
    for kind, strategy, entries in (("query", config.query, QUERIES), ("update", config.update, UPDATES)):
        try:
            check_name(kind, strategy.name, entries)
            if strategy.options or strategy.name not in entries:
                create(kind, strategy.name, strategy.options, entries)
        except UserError as error:
            problems.append(_keyed(kind, str(error).removeprefix(f"{kind}: ")))
    try:
        check_name("model", config.model.name, MODELS)
        if config.model.name not in MODELS or config.model.options or config.model.pretrained:
            from kafal_pipeline.models.factory import check  # noqa: PLC0415 - torch takes seconds to import

            check(config.model)
    except UserError as error:
        problems.append(_keyed("model.name", str(error).removeprefix("model: ")))
    if config.training.device not in {"auto", "cpu"}:
        from kafal_pipeline.training.devices import choose_device  # noqa: PLC0415 - torch takes seconds to import

        try:
            choose_device(config.training.device)
        except UserError as error:
            problems.append(("training.device", str(error).removeprefix("training.device: ")))
    if problems:
        raise ConfigError(problems)


def _keyed(key: str, message: str) -> tuple[str, str]:
    """Return the message with its key: its own where it begins with one, such as ``model.width: ...``."""
    own = re.match(r"((?:query|update|model)(?:\.\w+)+): (.*)", message, re.DOTALL)
    return (own[1], own[2]) if own else (key, message)


def _source(config_loader: Any, key: str) -> str:
    """Return where a key's value was read: the command line, or the last file in Kedro's order that holds it."""
    parts = key.split(".")
    if _holds(config_loader.runtime_params or {}, parts):
        return "--params"
    conf = Path(config_loader.conf_source)
    folders = [config_loader.env or config_loader.default_run_env, config_loader.base_env]
    for length in range(len(parts), 0, -1):
        for folder in folders:
            for file in sorted((conf / str(folder)).glob("**/parameters*.y*ml")):
                if _holds(_read(file), parts[:length]):
                    return f"{conf.name}/{file.relative_to(conf).as_posix()}"
    return f"{conf.name}/{config_loader.base_env}/parameters.yml"


def _read(file: Path) -> Mapping[str, Any]:
    from omegaconf import OmegaConf  # noqa: PLC0415 - only where a message is made

    content = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    return content if isinstance(content, dict) else {}  # type: ignore[return-value]


def _holds(values: Any, parts: list[str]) -> bool:
    for part in parts:
        if not isinstance(values, Mapping) or part not in values:
            return False
        values = values[part]
    return True
