"""The run of this process: how Kedro was called, its checked configuration, what it does, and what it holds."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import Config, parameter_files, resolve
from kafal_pipeline.config.compare import CompareConfig, instead_of, resolve_comparison
from kafal_pipeline.config.flat import flat
from kafal_pipeline.config.resolve import ConfigError
from kafal_pipeline.config.strategy import Strategy
from kafal_pipeline.lifecycle.resources import Resources
from kafal_pipeline.lifecycle.strategy_checks import check_strategies
from kafal_pipeline.runs import saved_run
from kafal_pipeline.runs.layout import FIRST_NODE, Layout, parsed

T = TypeVar("T")

COMMAND = ("restart", *(f"annotation.{key}" for key in ("client", "annotator", "port", "file")))
"""Parameters of one command, not of the run that it is about."""


@dataclass(frozen=True)
class Session:
    """How Kedro was called, for whoever has it called again: folder, environment, `--conf-source` and `--params`."""

    root: Path = Path()
    env: str | None = None
    conf_source: str | None = None
    runtime_params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def options(self) -> str:
        """The options of the command line that say which run it is, led by a space; for commands about the same run.

        >>> Session(env="mine", runtime_params={"seed": 1, "annotation": {"file": "a.csv"}}).options
        ' --env mine --params seed=1'
        """
        params = [f"{key}={_as_text(value)}" for key, value in flat(self.runtime_params).items() if key not in COMMAND]
        elsewhere = self.conf_source if self.conf_source != str(self.root / "conf") else None
        given = (("--env", self.env), ("--conf-source", elsewhere), ("--params", ",".join(params)))
        return "".join(f" {name} {shlex.quote(value)}" for name, value in given if value)

    def of_run(self, config: Config) -> Session:
        """Return how commands about one run of a comparison are called: with its query, update and seed.

        >>> Session(runtime_params={"cycles": 2, "compare": {"seeds": [0]}}).of_run(resolve({"query": "badge"})).options
        ' --params cycles=2,query=badge,update=kcfu,seed=0'
        """
        others = {key: value for key, value in self.runtime_params.items() if key != "compare"}
        own = {"query": _written(config.query), "update": _written(config.update), "seed": config.seed}
        return replace(self, runtime_params={**others, **own})


def _written(strategy: Strategy) -> str | dict[str, Any]:
    """Return a strategy as a user writes it."""
    short = strategy == Strategy.model_validate(strategy.name)
    return strategy.name if short else {"name": strategy.name, "label": strategy.label, **strategy.options}


def _as_text(value: Any) -> str:
    """Return a value as `--params` takes it."""
    if isinstance(value, list):
        return f"[{','.join(map(_as_text, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}: {_as_text(item)}' for key, item in value.items())}}}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class Kind:
    """What a pipeline does, decided before its first node runs."""

    begins: bool = False  # it has a run's first node: it starts a run, or resumes an interrupted one
    cycles: bool = False  # it has nodes of cycles
    reports: bool = False  # it makes the report of a run
    tracked: bool = False  # it trains or evaluates, which the tracker gets
    trains: bool = False  # it trains, or has runs trained: the same command resumes
    finishes: bool = False  # it has a run's last evaluation
    compares: bool = False  # it is a comparison

    @classmethod
    def of(cls, names: Collection[str], cycles: int, trains: Callable[[], bool] = lambda: False) -> Kind:
        """Return what nodes with these names do, in a run of so many cycles; a comparison is asked if it `trains`."""
        steps = {parsed(name) for name in names}
        tasks = {task for cycle, task in steps if cycle is not None}
        compares = any(name.startswith("compare.") for name in names)
        return cls(
            begins=FIRST_NODE in names,
            cycles=bool(tasks),
            reports=any(name.startswith("report.") for name in names),
            tracked=not tasks.isdisjoint({"train", "evaluate"}),
            trains=trains() if compares else "train" in tasks,
            finishes=(cycles - 1, "evaluate") in steps,
            compares=compares,
        )

    @property
    def of_a_run(self) -> bool:
        """Whether it reads or writes a run's own results."""
        return self.cycles or self.reports


class CurrentRun:
    """What runs in this process: made once, in `kafal_pipeline.settings`.

    Attributes
    ----------
    session
        How Kedro was called.
    kind
        What the pipeline does.
    resumes
        Whether the run resumes where an interrupted one stopped.
    node
        The node that runs, or ran last; None before the first, when errors are in what the user asked for.
    given
        Parameters that stand in for those of the files: a comparison's, in the process of one of its runs.
    resources
        Its processes and its progress display.
    """

    def __init__(self) -> None:
        self.session = Session()
        self.kind = Kind()
        self.resumes = False
        self.node: str | None = None
        self.given: Mapping[str, Any] | None = None
        self.resources = Resources()
        self._config: Config | None = None
        self._config_loader: Any = None

    @property
    def config(self) -> Config:
        """The configuration; the defaults where no run is under way (`kedro registry list`)."""
        return self._config if self._config is not None else resolve({})

    @property
    def root(self) -> Path:
        """The project's folder."""
        return self.session.root

    @property
    def layout(self) -> Layout:
        """The run's folders and files."""
        return Layout(self.root, self.config)

    @property
    def conf(self) -> Path:
        """The folder or archive of the configuration."""
        return Path(self.session.conf_source or self.root / "conf")

    def activate(self, config_loader: Any, root: Path = Path()) -> Config:
        """Check the parameters that `config_loader` holds and make them those of the run in the project folder `root`.

        Raises
        ------
        UserError
            With every problem, each led by the file that holds the key.
        """
        self.resumes, self.node, self.kind = False, None, Kind()
        given = config_loader.runtime_params or {}
        if self.given is not None:
            config_loader["parameters"] = dict(self.given)
        elif saved_run.KEY in given:
            saved_run.check_alone(given)
            config_loader["parameters"] = saved_run.parameters_of(root, given[saved_run.KEY])

        def checked() -> Config:
            config = resolve(parameter_files.merged(config_loader))
            check_strategies(config)
            return config

        self._config, self._config_loader = _located(config_loader, checked), config_loader
        conf = None if config_loader.conf_source is None else str(config_loader.conf_source)
        session = Session(root, config_loader.env, conf, given)
        self.session = session if self.given is None else session.of_run(self._config)
        return self._config

    def decide(self, names: Collection[str]) -> None:
        """Decide what kind of pipeline it is that begins, from the names of its nodes.

        Raises
        ------
        UserError
            If it is a comparison whose parameters are wrong.
        """
        self.kind = Kind.of(names, self.config.cycles, lambda: comparison(self._config_loader)[0].run_missing)

    def broken_file(self) -> str | None:
        """Return which file of the configuration cannot be read, and why; None if all can."""
        return parameter_files.broken(self.conf, [self.session.env or "local", "base"])

    def path(self, key: str) -> str:
        """Return a part of the run's paths: the resolver ``${run:...}`` of the catalog.

        They are ``dataset``, ``split`` (``<dataset>/seed_<n>``), ``path`` (``<dataset>/<query>-<update>/seed_<n>``).
        """
        config = self.config
        return {"dataset": config.dataset.folder, "split": config.split_path, "path": config.run_path}[key]


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


def _located(config_loader: Any, check: Callable[[], T]) -> T:
    """Do a check whose problems are led by where each key was read."""
    try:
        return check()
    except ConfigError as error:
        lines = [f"{parameter_files.source(config_loader, key)}: {key}: {sentence}" for key, sentence in error.problems]
        raise UserError("\n".join(lines)) from None
