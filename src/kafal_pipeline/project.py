"""The configuration of the run that Kedro is about to do, checked, with messages that name the file of each key."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from kafal_pipeline import saved_run
from kafal_pipeline.config import Config, ModelConfig, resolve
from kafal_pipeline.config.compare import CompareConfig, resolve_comparison
from kafal_pipeline.config.resolve import ConfigError
from kafal_pipeline.errors import UserError, did_you_mean
from kafal_pipeline.models import MODELS
from kafal_pipeline.query import QUERIES
from kafal_pipeline.registry import check_name, create
from kafal_pipeline.update import UPDATES

T = TypeVar("T")

PARAMS = "--params"
"""What messages call the command line's parameters."""


@dataclass(frozen=True)
class Session:
    """How Kedro was called, for whoever has it called again: folder, environment, `--conf-source` and `--params`."""

    root: Path = Path()
    env: str | None = None
    conf_source: str | None = None
    runtime_params: Mapping[str, Any] = field(default_factory=dict)


_session = Session()
_running = False
_going_on = False
_active: Config | None = None
"""Pipelines are registered, and paths in the catalog interpolated, without arguments: what they need stands here."""

_given: Mapping[str, Any] | None = None
"""Parameters that stand in for those of the files."""


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
    global _active, _session, _going_on, _running  # noqa: PLW0603 - see above
    _going_on = _running = False
    given = config_loader.runtime_params or {}
    if _given is not None:
        config_loader["parameters"] = dict(_given)
    elif saved_run.KEY in given:
        saved_run.check_alone(given)
        config_loader["parameters"] = saved_run.parameters_of(root, given[saved_run.KEY])

    def checked() -> Config:
        config = resolve(_parameters(config_loader))
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
        compare, runs = resolve_comparison(_parameters(config_loader))
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


def _parameters(config_loader: Any) -> Mapping[str, Any]:
    """Return the merged parameters, or say which environment is not there, or which file cannot be read and why."""
    try:
        return config_loader["parameters"]
    except Exception as error:  # a broken file can provoke errors of YAML, OmegaConf, Kedro and Python itself
        conf = Path(config_loader.conf_source)
        if config_loader.env and not (conf / str(config_loader.env)).is_dir():
            names = [folder.name for folder in conf.glob("*/") if folder.is_dir()]
            hint = did_you_mean(config_loader.env, names)
            raise UserError(f"--env: there is no folder {conf / str(config_loader.env)}. {hint}") from None
        for file in _parameter_files(config_loader):
            problem = _unreadable(file)
            if problem:
                raise UserError(f"{_shown(conf, file)}: cannot be read as YAML keys and values: {problem}") from error
        written = [(PARAMS, config_loader.runtime_params or {})]
        written += [(_shown(conf, file), _read(file)) for file in _parameter_files(config_loader)]
        for place, (source, values) in enumerate(written):
            for _, others in written[place + 1 :]:
                for clash in _clashes(values, others):
                    raise UserError(f"{source}: {clash}") from error
        key = getattr(error, "full_key", None)
        if key:
            sentence = " ".join(str(getattr(error, "msg", error)).split())
            raise UserError(f"{_source(config_loader, key)}: {key}: {sentence}") from error
        raise


def _clashes(values: Mapping[str, Any], others: Mapping[str, Any], section: str = "") -> Iterator[str]:
    """Yield the keys at which a list and a section meet, which cannot be merged."""
    for name, value in values.items():
        other = others.get(name)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            yield from _clashes(value, other, f"{section}{name}.")
        elif isinstance(value, Mapping | list) and isinstance(other, Mapping | list) and type(value) is not type(other):
            kind = "a section with keys" if isinstance(other, Mapping) else "a list"
            yield f"{section}{name}: found {value!r}; it must be {kind}, such as {other!r}."


def broken_file() -> str | None:
    """Return which file of the configuration cannot be read, and why; None if all can."""
    conf = Path(_session.conf_source or _session.root / "conf")
    for folder in (_session.env or "local", "base"):
        for file in sorted((conf / folder).glob("**/*.y*ml")):
            problem = _unreadable(file)
            if problem:
                return f"{_shown(conf, file)}: cannot be read as YAML keys and values: {problem}"
    return None


def _unreadable(file: Path) -> str:
    """Return what is wrong with a file of parameters, in one line; nothing if it can be read."""
    from omegaconf import DictConfig, OmegaConf  # noqa: PLC0415 - only where a message is made

    try:
        content = OmegaConf.load(file)
    except Exception as error:  # see above
        return " ".join(f"{type(error).__name__}: {error}".split())
    return "" if isinstance(content, DictConfig) else f"found a {type(content).__name__}; it must be a mapping."


def _located(config_loader: Any, check: Callable[[], T]) -> T:
    try:
        return check()
    except ConfigError as error:
        lines = [f"{_source(config_loader, key)}: {key}: {sentence}" for key, sentence in error.problems]
        raise UserError("\n".join(lines)) from None


def active() -> Config:
    """Return the run's configuration; the defaults where no run is under way (`kedro registry list`)."""
    return _active if _active is not None else resolve({})


def session() -> Session:
    """Return how Kedro was called."""
    return _session


def go_on() -> None:
    """Take note that the run goes on where an interrupted one stopped."""
    global _going_on  # noqa: PLW0603 - see above
    _going_on = True


def end() -> None:
    """Take note that the run has ended."""
    global _going_on  # noqa: PLW0603 - see above
    _going_on = False


def going_on() -> bool:
    """Tell whether the run goes on where an interrupted one stopped."""
    return _going_on


def start() -> None:
    """Take note that the pipeline's nodes begin to run."""
    global _running  # noqa: PLW0603 - see above
    _running = True


def running() -> bool:
    """Tell whether nodes have begun to run: before that, errors are in what the user asked for."""
    return _running


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
                _check_kind(kind, create(kind, strategy.name, strategy.options, entries), strategy.name)
        except UserError as error:
            problems.append(_keyed(kind, str(error).removeprefix(f"{kind}: ")))
    try:
        check_name("model", config.model.name, MODELS)
        if config.model.name not in MODELS or config.model.options or config.model.pretrained is not None:
            from kafal_pipeline.models.factory import check  # noqa: PLC0415 - torch takes seconds to import

            _check_weights(config.model.pretrained)
            check(config.model)
    except UserError as error:
        key, sentence = _keyed("model.name", str(error).removeprefix("model: "))
        near = difflib.get_close_matches(key.removeprefix("model."), ModelConfig.model_fields, n=1)
        unknown = "unknown option" in sentence and near and near[0] not in sentence
        problems.append((key, f"{sentence} Did you mean {near[0]!r}?" if unknown else sentence))
    if config.training.device not in {"auto", "cpu"}:
        from kafal_pipeline.training.devices import choose_device  # noqa: PLC0415 - torch takes seconds to import

        try:
            choose_device(config.training.device)
        except UserError as error:
            problems.append(("training.device", str(error).removeprefix("training.device: ")))
    if problems:
        raise ConfigError(problems)


def _check_kind(kind: str, strategy: object, name: str) -> None:
    """Refuse a class of the user's that is no strategy before the results of an earlier run make place for new ones."""
    if kind == "query" and not callable(getattr(strategy, "select", None)):
        raise UserError(f"query: found {name!r}, which has no method `select` (kafal_pipeline.query.base.Query).")
    if kind == "update":
        from kafal_pipeline.update.base import Update  # noqa: PLC0415 - torch takes seconds to import

        if not isinstance(strategy, Update):
            raise UserError(f"update: found {name!r}, which does not derive from kafal_pipeline.update.base.Update.")


def _check_weights(path: str | None) -> None:
    """Refuse a file of pretrained weights that is none before the results of an earlier run make place."""
    if path is None:
        return
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415 - only where weights are loaded

    if not os.path.isfile(path):
        raise UserError(f"model.pretrained: there is no file {os.path.abspath(path)!r}.")
    try:
        with safe_open(path, framework="numpy") as file:
            file.keys()
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"model.pretrained: {path} is no safetensors file ({error}).") from error


def _keyed(key: str, message: str) -> tuple[str, str]:
    """Return the message with its key: its own where it begins with one, such as ``model.width: ...``."""
    own = re.match(r"((?:query|update|model)(?:\.\w+)+): (.*)", message, re.DOTALL)
    return (own[1], own[2]) if own else (key, message)


def _source(config_loader: Any, key: str) -> str:
    """Return where a key's value was read: the command line, or the last file in Kedro's order that holds it."""
    parts = key.split(".")
    given = config_loader.runtime_params or {}
    if any(_holds(given, parts[:length]) for length in range(len(parts), 1 if len(parts) > 1 else 0, -1)):
        return PARAMS
    conf = Path(config_loader.conf_source)
    contents = [(file, _read(file)) for file in _parameter_files(config_loader)]
    for length in range(len(parts), 0, -1):
        for file, content in contents:
            if _holds(content, parts[:length]):
                return _shown(conf, file)
    return f"{conf.name}/{config_loader.base_env}/parameters.yml"


def _parameter_files(config_loader: Any) -> list[Path]:
    """Return the files that hold parameters, those that go before others first."""
    folders = [config_loader.env or config_loader.default_run_env, config_loader.base_env]
    conf = Path(config_loader.conf_source)
    return [file for folder in folders for file in sorted((conf / str(folder)).glob("**/parameters*.y*ml"))]


def _shown(conf: Path, file: Path) -> str:
    return f"{conf.name}/{file.relative_to(conf).as_posix()}"


def _read(file: Path) -> Mapping[str, Any]:
    from omegaconf import OmegaConf  # noqa: PLC0415 - only where a message is made

    content = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    return content if isinstance(content, dict) else {}  # type: ignore[return-value]


def _holds(values: Any, parts: list[str]) -> bool:
    """Tell whether a key is written in `values`, or a value of its own stands for the section that it is in."""
    for part in parts:
        if isinstance(values, str | bool | int | float | list):
            return True
        if not isinstance(values, Mapping) or part not in values:
            return False
        values = values[part]
    return True
