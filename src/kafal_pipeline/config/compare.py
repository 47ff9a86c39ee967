"""The section `compare`: the runs that a comparison is made of."""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from kafal_pipeline.common.errors import did_you_mean
from kafal_pipeline.config.base import FOLDER_NAME, AnyWhole, Fraction, Number, Section, Seed
from kafal_pipeline.config.resolve import Config, ConfigError, explained, resolve
from kafal_pipeline.config.strategy import Strategy


def _as_seeds(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return [value]
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d{1,10})-(\d{1,10})", value.strip())
    if match is None or not 0 <= int(match[2]) - int(match[1]) < 10_000:
        raise ValueError("must be a list such as [0, 1, 2], or a range such as 0-9")
    return list(range(int(match[1]), int(match[2]) + 1))


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str | dict) else value


Strategies = Annotated[list[Strategy], Field(min_length=1), BeforeValidator(_as_list)]


class CompareConfig(Section):
    """The matrix of a comparison, how it is measured, and how much of the machine it may use.

    >>> section = CompareConfig.model_validate({"queries": ["random", {"score": "ksas"}], "seeds": "0-2"})
    >>> section.seeds, [query.label for query in section.queries]
    ([0, 1, 2], ['random', 'compose_ksas'])
    """

    name: str = Field(default="default", pattern=FOLDER_NAME)
    queries: Strategies
    updates: Strategies | None = None
    seeds: Annotated[list[Seed], Field(min_length=1), BeforeValidator(_as_seeds)] = [0]
    baseline: str = "random"
    alpha: Number = Field(default=0.05, gt=0, lt=1)
    targets: list[Fraction] = []
    jobs: Annotated[AnyWhole, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    memory_limit: Number | None = Field(default=None, gt=0, le=1e6)
    run_missing: bool = True


def resolve_comparison(parameters: Mapping[str, Any]) -> tuple[CompareConfig, list[Config]]:
    """Check the section `compare` and return it with the configuration of each of its runs, seed by seed.

    Raises `ConfigError` with every problem found, such as what is named twice, and results that would have one name.
    """
    try:
        compare = CompareConfig.model_validate(parameters.get("compare", {}))
    except ValidationError as error:
        problems = explained(error, CompareConfig)
        raise ConfigError([(f"compare.{key}".rstrip("."), sentence) for key, sentence in problems]) from None
    problems = [
        *_twice("compare.seeds", [str(seed) for seed in compare.seeds], "Each seed counts once."),
        *_twice("compare.queries", [query.label for query in compare.queries], _LABEL),
        *_twice("compare.updates", [update.label for update in compare.updates or []], _LABEL),
    ]
    labels = [query.label for query in compare.queries]
    if compare.baseline != "random" and compare.baseline not in labels:
        found = (
            f"found {compare.baseline!r}, which is none of compare.queries. {did_you_mean(compare.baseline, labels)}"
        )
        problems.append(("compare.baseline", found))
    if problems:
        raise ConfigError(problems)
    own = {key: value for key, value in parameters.items() if key != "compare"}
    updates: list[Any] = (
        [own.get("update")] if compare.updates is None else [_written(item) for item in compare.updates]
    )
    runs = [
        resolve({**own, "query": _written(query), "update": update, "seed": seed})
        for seed in compare.seeds
        for update in updates
        for query in compare.queries
    ]
    if problems := _same_names(runs):
        raise ConfigError(problems)
    return compare, runs


def instead_of(parameters: Mapping[str, Any], compare: CompareConfig) -> list[tuple[str, str]]:
    """Return a problem for each of these parameters that a comparison would not heed, and what to write instead.

    `parameters`: those that were given for this comparison alone: files have values for other runs. `compare`: the
    section; without updates of its own, it takes the parameter `update`.
    """
    matrix = {"query": "queries", "seed": "seeds"} | ({} if compare.updates is None else {"update": "updates"})
    return [
        (
            key,
            f"found {parameters[key]!r}, which a comparison does not use: it is made of compare.queries, "
            f"compare.updates and compare.seeds. Write compare.{matrix[key]}=... instead.",
        )
        for key in ("query", "update", "seed")
        if key in matrix and parameters.get(key) is not None
    ]


_LABEL = "Leave one out, or give settings of one method different labels: {name: ..., label: ..., ...}."


def _written(strategy: Strategy) -> dict[str, Any]:
    return strategy.model_dump(mode="json")


def _same_names(runs: Iterable[Config]) -> list[tuple[str, str]]:
    """Return a problem for each name ``<query>-<update>`` that two strategies have, which would share a folder."""
    pairs: dict[str, dict[tuple[str, str], None]] = {}
    for run in runs:
        query, update = run.query.label, run.update.label
        pairs.setdefault(f"{query}-{update}", {})[query, update] = None
    return [
        (
            "compare.queries",
            f"found {' and '.join(f'{query!r} with {update!r}' for query, update in same)}, whose results would have "
            f"the one name {name!r}; allowed: one name a strategy. Give a query or an update another label: "
            "{name: ..., label: ..., ...}.",
        )
        for name, same in pairs.items()
        if len(same) > 1
    ]


def _twice(key: str, names: list[str], advice: str) -> list[tuple[str, str]]:
    doubles = sorted({name for name in names if names.count(name) > 1})
    return [(key, f"{', '.join(doubles)} is listed more than once. {advice}")] if doubles else []
