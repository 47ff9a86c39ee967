"""The checked configuration of the run that Kedro is about to do; messages name the file of each key."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.registry import DOTTED_PATH, check_name
from kafal_pipeline.config import Config, ModelConfig, Strategy, parameter_files, resolve
from kafal_pipeline.config.compare import CompareConfig, instead_of, resolve_comparison
from kafal_pipeline.config.resolve import ConfigError
from kafal_pipeline.models import MODELS
from kafal_pipeline.query import QUERIES
from kafal_pipeline.runs import saved_run
from kafal_pipeline.update import UPDATES

T = TypeVar("T")


@dataclass(frozen=True)
class Session:
    """How Kedro was called, for whoever has it called again: folder, environment, `--conf-source` and `--params`."""

    root: Path = Path()
    env: str | None = None
    conf_source: str | None = None
    runtime_params: Mapping[str, Any] = field(default_factory=dict)


_session = Session()
_running = False
_doing: str | None = None
_going_on = False
_active: Config | None = None
"""Pipelines are registered, and paths in the catalog interpolated, without arguments: what they need stands here."""

_given: Mapping[str, Any] | None = None
"""Parameters that stand in for those of the files."""

_trains = False


def give(parameters: Mapping[str, Any]) -> None:
    """Let this process's run have these parameters, whatever the files say."""
    global _given  # noqa: PLW0603 - see above
    _given = parameters


def activate(config_loader: Any, root: Path = Path()) -> Config:
    """Check the parameters that `config_loader` holds and make them those of the run in the project folder `root`.

    Raises
    ------
    UserError
        With every problem, each led by the file that holds the key.
    """
    global _active, _session, _going_on, _running, _doing  # noqa: PLW0603 - see above
    _going_on, _running, _doing = False, False, None
    given = config_loader.runtime_params or {}
    if _given is not None:
        config_loader["parameters"] = dict(_given)
    elif saved_run.KEY in given:
        saved_run.check_alone(given)
        config_loader["parameters"] = saved_run.parameters_of(root, given[saved_run.KEY])

    def checked() -> Config:
        config = resolve(parameter_files.merged(config_loader))
        check_strategies(config)
        return config

    config = _located(config_loader, checked)
    conf = None if config_loader.conf_source is None else str(config_loader.conf_source)
    _active, _session = config, Session(root, config_loader.env, conf, given)
    return config


def comparison(config_loader: Any) -> tuple[CompareConfig, list[Config]]:
    """Check what is to be compared and return it with the configurations of all its runs.

    Raises
    ------
    UserError
        With every problem, each led by the file that holds the key.
    """

    def checked() -> tuple[CompareConfig, list[Config]]:
        compare, runs = resolve_comparison(parameter_files.merged(config_loader))
        if unheeded := instead_of(config_loader.runtime_params or {}, compare):
            raise ConfigError(unheeded)
        strategies = {(config.query.label, config.update.label): config for config in runs}
        problems: dict[tuple[str, str], None] = {}
        for config in strategies.values():
            try:
                check_strategies(config)
            except ConfigError as error:
                problems |= dict.fromkeys((_of_matrix(key), sentence) for key, sentence in error.problems)
        if problems:
            raise ConfigError(list(problems))
        return compare, runs

    return _located(config_loader, checked)


def _of_matrix(key: str) -> str:
    """Return the key of the comparison that a run's key comes from."""
    for kind, many in (("query", "compare.queries"), ("update", "compare.updates")):
        if key == kind or key.startswith(f"{kind}."):
            return many + key.removeprefix(kind)
    return key


def broken_file() -> str | None:
    """Return which file of the configuration cannot be read, and why; None if all can."""
    conf = Path(_session.conf_source or _session.root / "conf")
    return parameter_files.broken(conf, [_session.env or "local", "base"])


def _located(config_loader: Any, check: Callable[[], T]) -> T:
    """Do a check whose problems are led by where each key was read."""
    try:
        return check()
    except ConfigError as error:
        lines = [f"{parameter_files.source(config_loader, key)}: {key}: {sentence}" for key, sentence in error.problems]
        raise UserError("\n".join(lines)) from None


def active() -> Config:
    """Return the run's configuration; the defaults where no run is under way (`kedro registry list`)."""
    return _active if _active is not None else resolve({})


def note_training(trains: bool) -> None:
    """Take note whether the pipeline that begins is one that trains: a run, or a comparison that makes runs."""
    global _trains  # noqa: PLW0603 - see above
    _trains = trains


def trains() -> bool:
    """Tell whether the pipeline trains, so that it can go on from its last saved round."""
    return _trains


def session() -> Session:
    """Return how Kedro was called."""
    return _session


def go_on() -> None:
    """Take note that the run goes on where an interrupted one stopped."""
    global _going_on  # noqa: PLW0603 - see above
    _going_on = True


def end() -> None:
    """Take note that the run goes on no more: it has ended, or begins anew."""
    global _going_on  # noqa: PLW0603 - see above
    _going_on = False


def going_on() -> bool:
    """Tell whether the run goes on where an interrupted one stopped."""
    return _going_on


def start(node: str) -> None:
    """Take note that the pipeline's nodes have begun to run, and which one does now."""
    global _running, _doing  # noqa: PLW0603 - see above
    _running, _doing = True, node


def running() -> bool:
    """Tell whether nodes have begun to run: before that, errors are in what the user asked for."""
    return _running


def doing() -> str | None:
    """Return the name of the node that runs, or ran last; None before the first."""
    return _doing


def root() -> Path:
    """Return the project's folder."""
    return _session.root


def path(key: str) -> str:
    """Return a part of the run's paths: the resolver ``${run:...}`` of the catalog.

    Parameters
    ----------
    key
        ``dataset``, ``split`` (``<dataset>/seed_<n>``) or ``path`` (``<dataset>/<query>-<update>/seed_<n>``).
    """
    config = active()
    return {"dataset": config.dataset.folder, "split": config.split_path, "path": config.run_path}[key]


def check_strategies(config: Config) -> None:
    """Check names without importing anything; options, which are the classes' own, by making an instance."""
    problems = []
    for kind, strategy, entries in (("query", config.query, QUERIES), ("update", config.update, UPDATES)):
        try:
            check_name(kind, strategy.name, entries)
            if strategy.options or strategy.name not in entries:
                _make(kind, strategy)
        except UserError as error:
            problems.append(_keyed(kind, str(error).removeprefix(f"{kind}: ")))
    try:
        check_name("model", config.model.name, MODELS)
        if config.model.name not in MODELS or config.model.options or config.model.pretrained is not None:
            from kafal_pipeline.models.factory import check

            _check_weights(config.model.pretrained)
            check(config.model)
    except UserError as error:
        key, sentence = _keyed("model.name", str(error).removeprefix("model: "))
        near = difflib.get_close_matches(key.removeprefix("model."), ModelConfig.model_fields, n=1)
        unknown = "unknown option" in sentence and near and near[0] not in sentence
        problems.append((key, f"{sentence} Did you mean {near[0]!r}?" if unknown else sentence))
    if config.training.device not in {"auto", "cpu"}:
        from kafal_pipeline.training.devices import choose_device

        try:
            choose_device(config.training.device)
        except UserError as error:
            problems.append(("training.device", str(error).removeprefix("training.device: ")))
    if problems:
        raise ConfigError(problems)


def _make(kind: str, strategy: Strategy) -> None:
    """Make a query or an update: what is wrong with it shows before the results of an earlier run make place."""
    if kind == "query":
        from kafal_pipeline.query.factory import make_query

        make_query(strategy)
    else:
        from kafal_pipeline.update.factory import make_update

        make_update(strategy)


def names_own_class() -> bool:
    """Tell whether the run's query, update or model, or a part of one, may be a user's own class."""
    config = active()
    options = [str(value) for strategy in (config.query, config.update) for value in strategy.options.values()]
    names = [(config.query.name, QUERIES), (config.update.name, UPDATES), (config.model.name, MODELS)]
    return any(name not in entries for name, entries in names) or any(map(DOTTED_PATH.search, options))


def _check_weights(path: str | None) -> None:
    """Refuse a file of pretrained weights that is none before the results of an earlier run make place."""
    if path is None:
        return
    from safetensors import SafetensorError, safe_open  # only where weights are loaded

    if not os.path.isfile(path):
        raise UserError(f"model.pretrained: there is no file {os.path.abspath(path)!r}.")
    try:
        with safe_open(path, framework="numpy") as file:
            file.keys()
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"model.pretrained: {path} is no safetensors file ({error}); allowed: one with the weights of model.name."
        ) from error


def _keyed(key: str, message: str) -> tuple[str, str]:
    """Return the message with its key: its own where it begins with one, such as ``model.width: ...``."""
    own = re.match(r"((?:query|update|model)(?:\.\w+)+): (.*)", message, re.DOTALL)
    return (own[1], own[2]) if own else (key, message)
