"""Reads the finished runs of a comparison from disk into tables."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.comparison import protocol
from kafal_pipeline.evaluation.curve import CycleMetrics, learning_curve

CONFIGURATION = "configuration.json"
FINISHED, FAILED, WAITING = "finished", "failed", "waiting"
RUN_COLUMNS = ("strategy", "query", "update", "seed", "status", "reason")


@dataclass(frozen=True)
class RunTables:
    """Everything that a comparison is made of."""

    # one row a run: `strategy`, `query`, `update`, `seed`, `status` (`FINISHED`, `FAILED` or `WAITING` for labels) and
    # the `reason` of the last two. The other tables hold finished runs only
    runs: pd.DataFrame
    # one row a run and cycle: `strategy`, `seed` and the columns of `learning_curve` but those of the classes
    cycles: pd.DataFrame
    # one row a run, cycle and class: `strategy`, `seed`, `cycle`, `class` (an index), test `accuracy` of that class
    # (NaN where the test set has none of it) and how many labels the cycle `queried`; cycle 0 is the initial pool
    classes: pd.DataFrame
    # one row a seed, client and class: `seed`, `client`, `class`, `count` of training samples; empty if the splits were
    # not given
    clients: pd.DataFrame
    class_names: tuple[str, ...]
    configuration: dict[str, Any]  # the configuration that all runs share, flattened; `strategies` has the rest
    strategies: dict[str, dict[str, Any]]  # by strategy, `query` and `update` as configured


@dataclass(frozen=True)
class _Run:
    configuration: dict[str, Any]
    metrics: list[CycleMetrics]

    @property
    def key(self) -> dict[str, Any]:
        query, update = self.configuration["query"]["label"], self.configuration["update"]["label"]
        return {"strategy": f"{query}-{update}", "query": query, "update": update, "seed": self.configuration["seed"]}


class _Unfinished(Exception):
    """The reason why a folder holds no finished run."""


def load_runs(
    folders: Iterable[Path],
    *,
    splits: Mapping[int, Path] | None = None,
    failures: Mapping[Path, str] | None = None,
    waiting: Mapping[Path, str] | None = None,
    keys: Mapping[Path, Mapping[str, str]] | None = None,
) -> RunTables:
    """Read the runs in `folders`; one that is missing or not finished is listed as failed.

    - `folders`: of the runs, ``data/07_model_output/<data set>/<query>-<update>/seed_<n>``.
    - `splits`: the table of each seed's split, ``data/03_primary/<data set>/seed_<n>/split_table.csv``. Without them
      the comparison has no accuracies of the clients.
    - `failures`, `waiting`: what is known of runs that failed, or wait for labels. Such a folder is not read: it may
      hold cycles of an earlier run.
    - `keys`: the `query` and `update` of runs, for those that cannot be read; without them the folder's name is taken
      apart.

    Raises `UserError` if no run is finished, or if the runs cannot be compared: labels by an oracle and by people,
    configurations that differ in more than query, update and seed, two runs of one strategy and seed, other classes,
    other initial pools for one seed.
    """
    folders, waiting = list(folders), waiting or {}
    known = {**(failures or {}), **waiting}
    runs: dict[Path, _Run] = {}
    others: list[dict[str, Any]] = []
    for folder in folders:
        try:
            if folder in known:
                raise _Unfinished(known[folder])
            runs[folder] = _read(folder)
        except _Unfinished as error:
            status = WAITING if folder in waiting else FAILED
            others.append({**_name_of(folder), **(keys or {}).get(folder, {}), "status": status, "reason": str(error)})
    if not runs:
        reasons = "; ".join(sorted({row["reason"].rstrip(".") for row in others})) or "no folder was given"
        raise UserError(
            f"There is no finished run to compare: {reasons}. kedro run --pipeline compare does what is "
            "missing or has failed."
        )
    protocol.check({folder: run.configuration for folder, run in runs.items()})
    protocol.check_pools({folder: (run.key["seed"], run.metrics[0]) for folder, run in runs.items()})
    finished = [run.key | {"status": FINISHED, "reason": ""} for run in runs.values()]
    first = next(iter(runs.values()))
    return RunTables(
        runs=pd.DataFrame([*finished, *others], columns=list(RUN_COLUMNS)).sort_values(["strategy", "seed"]),
        cycles=pd.concat([_cycles(run) for run in runs.values()], ignore_index=True),
        classes=pd.concat([_classes(run) for run in runs.values()], ignore_index=True),
        clients=_clients(splits or {}, {run.key["seed"] for run in runs.values()}),
        class_names=tuple(first.metrics[0]["classes"]),
        configuration=protocol.shared(first.configuration),
        strategies={
            run.key["strategy"]: {part: run.configuration[part] for part in ("query", "update")}
            for run in sorted(runs.values(), key=lambda run: run.key["strategy"])
        },
    )


def _read(folder: Path) -> _Run:
    """Read a run, or raise `_Unfinished` with the reason why there is none."""
    record = folder / CONFIGURATION
    if not folder.is_dir():
        raise _Unfinished("never ran")
    if not record.is_file():
        raise _Unfinished("stopped before its first cycle, or its parameters are not known")
    configuration = _json(record)
    cycles = [folder / f"cycle_{cycle:02d}" / "metrics.json" for cycle in range(configuration["cycles"])]
    missing = [cycle for cycle, file in enumerate(cycles) if not file.is_file()]
    if missing:
        raise _Unfinished(f"stopped in cycle {missing[0]} of 0..{len(cycles) - 1}")
    return _Run(configuration, [_json(file) for file in cycles])


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _Unfinished(f"{file.parent.name}/{file.name} cannot be read ({error})") from None


def _name_of(folder: Path) -> dict[str, Any]:
    """Return what the path of a run that cannot be read says about it."""
    seed = folder.name.removeprefix("seed_")
    query, _, update = folder.parent.name.rpartition("-")
    key = {"strategy": folder.parent.name, "query": query, "update": update}
    return key | {"seed": int(seed) if seed.isdecimal() else -1}


def _cycles(run: _Run) -> pd.DataFrame:
    curve = learning_curve(run.metrics)
    curve = curve.drop(columns=[f"accuracy_{name}" for name in run.metrics[0]["classes"]])
    return curve.assign(strategy=run.key["strategy"], seed=run.key["seed"])


def _classes(run: _Run) -> pd.DataFrame:
    cycles = [
        pd.DataFrame(
            {
                "cycle": row["cycle"],
                "class": range(len(row["classes"])),
                "accuracy": pd.Series(row["per_class_accuracy"], dtype="float64"),
                "queried": row["queried_histogram"],
            }
        )
        for row in run.metrics
    ]
    return pd.concat(cycles, ignore_index=True).assign(strategy=run.key["strategy"], seed=run.key["seed"])


def _clients(splits: Mapping[int, Path], seeds: set[int]) -> pd.DataFrame:
    missing = sorted(seed for seed in seeds & set(splits) if not splits[seed].is_file())
    if missing:
        raise UserError(
            f"{splits[missing[0]]}: there is no split of seed {missing[0]}. Make it: kedro run --pipeline partition."
        )
    tables = [pd.read_csv(splits[seed]).assign(seed=seed) for seed in sorted(seeds & set(splits))]
    columns = ["seed", "client", "class", "count"]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns, dtype="int64")
