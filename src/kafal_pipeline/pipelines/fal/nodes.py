"""Kedro nodes of the trial: tables in, tables out, computed by the federation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from kafal_pipeline.annotation.measures import annotation_measures
from kafal_pipeline.annotation.pools import labels_of_tests, order_of_first
from kafal_pipeline.config import resolve
from kafal_pipeline.data import ImageData, check_origin
from kafal_pipeline.data.pools import annotate, initial_pool
from kafal_pipeline.lifecycle.resources import Resources
from kafal_pipeline.pipelines.annotations import DataFrame, Parameters, State, States
from kafal_pipeline.pipelines.fal.checks import Check, checked_pool, checker, in_table

if TYPE_CHECKING:
    from kafal_pipeline.query.base import Selection


def draw_initial_pool(
    splits: list[list[int]], split_origin: dict[str, Any], images: ImageData, parameters: Parameters
) -> DataFrame:
    """Have each client's first samples labelled; the split must be the one that is asked for."""
    config = resolve(parameters)
    check_origin(split_origin, config, images)
    order = order_of_first(images, config)
    return initial_pool(splits, images.train_labels, config.budget, config.cycles, config.seed, order)


def query(
    resources: Resources,
    cycle: int,
    pool: DataFrame,
    global_model: State,
    local_models: States,
    rounds: DataFrame,
    images: ImageData,
    parameters: Parameters,
    memory: States | None = None,
) -> tuple[DataFrame, dict[str, float], States]:
    """Let every client choose: the table of `queried_table`, what it cost, and what queries keep."""
    from kafal_pipeline.federation.between_rounds.store import key_of
    from kafal_pipeline.federation.simulation import Simulation
    from kafal_pipeline.federation.trial import Trial
    from kafal_pipeline.models.state import to_state

    config = resolve(parameters)
    check = checker(config, images, cycle - 1)
    clients = Simulation(
        config,
        resources.workers(images, config),
        checked_pool(pool, config, images, cycle - 1),
        store=lambda _: resources.store(config, cycle),
        sites=_sites(local_models, rounds, memory or {}, check),
        on_wait=resources.progress.on_wait(config, cycle),
    )
    found = Trial(config, images, clients).query(cycle, check(global_model, "global_model"))
    queried = queried_table(clients.selections, images, images.clients_of(config.partition.method))
    cost = {"seconds": found.seconds, "bytes": found.bytes_down + found.bytes_up}
    kept = {key_of("client", client): to_state(of) for client, of in clients.sites.memory.items() if of}
    return queried, cost, kept


def queried_table(
    selections: Mapping[int, Selection], images: ImageData, client_names: Sequence[str] | None
) -> DataFrame:
    """Return what the clients ask for.

    Returns
    -------
    pandas.DataFrame
        Columns ``client``, ``sample`` (the row of the image among the training images), ``score`` and ``rank``; where
        the data have them, also ``client_name`` and ``file``, the image's path in the dataset folder.
    """
    from kafal_pipeline.federation.querying import table_of

    queried = table_of(selections)
    if client_names is not None:
        queried.insert(1, "client_name", [client_names[client] for client in queried["client"]])
    if images.train_files is not None:
        queried["file"] = images.train_files[queried["sample"]].astype(object)
    return queried


def annotate_queried(
    cycle: int, pool: DataFrame, queried: DataFrame, images: ImageData, parameters: Parameters
) -> DataFrame:
    """Ask the oracle: the queried samples get their labels."""
    config = resolve(parameters)
    before = checked_pool(pool, config, images, cycle - 1)
    with in_table(config, cycle, "queried"):
        return annotate(before, queried, images.train_labels, cycle)


def train(
    resources: Resources,
    cycle: int,
    pool: DataFrame,
    images: ImageData,
    parameters: Parameters,
    previous_model: State | None = None,
) -> tuple[State, States, DataFrame, dict[str, float]]:
    """Train the federation for one cycle: global model, what queries need of the clients, table of rounds, cost."""
    import pandas as pd

    from kafal_pipeline.catalog.many_states import Lazy
    from kafal_pipeline.federation.between_rounds.cycle_state import BROADCAST, CLIENT, WATCHED
    from kafal_pipeline.federation.simulation import Simulation
    from kafal_pipeline.federation.trial import Trial
    from kafal_pipeline.models.state import to_state

    config = resolve(parameters)
    if previous_model is not None:
        checker(config, images, cycle - 1)(previous_model, "global_model")
    workers, store = resources.workers(images, config), resources.store(config, cycle, pool)
    clients = Simulation(config, workers, checked_pool(pool, config, images, cycle), store=lambda _: store)
    done = Trial(config, images, clients).train(cycle, previous_model, resources.progress.on_round(config))
    kept = [key for key in store if key.rpartition("_")[0] in (BROADCAST, CLIENT, WATCHED)]
    local_models = Lazy(kept, lambda key: to_state(store[key]), store.export)
    return done.global_state, local_models, pd.DataFrame(done.rows), {"seconds": done.seconds}


def evaluate(
    resources: Resources,
    cycle: int,
    global_model: State,
    pool: DataFrame,
    rounds: DataFrame,
    train_cost: dict[str, float],
    images: ImageData,
    parameters: Parameters,
    query_cost: dict[str, float] | None = None,
    annotations: DataFrame | None = None,
) -> dict[str, Any]:
    """Measure the global model on the test set, and say what the cycle asked for and cost.

    Where people annotate, their annotations have labels of the test set too.
    """
    from kafal_pipeline.federation.between_rounds.cycle_state import CycleState
    from kafal_pipeline.federation.simulation import Simulation
    from kafal_pipeline.federation.trial import Queried, Trial

    config = resolve(parameters)
    model = checker(config, images, cycle)(global_model, "global_model")
    rows: Any = rounds.to_dict("records")
    trained = CycleState(cycle, config.federation.rounds, model, rows=rows, seconds=train_cost["seconds"])
    pool = checked_pool(pool, config, images, cycle)
    labels = None if annotations is None else labels_of_tests(images, annotations)
    clients = Simulation(config, resources.workers(images, config), pool, test_labels=labels)
    cost = None if query_cost is None else Queried(query_cost["seconds"], int(query_cost["bytes"]))
    metrics = Trial(config, images, clients).evaluate(trained, cost)
    if annotations is not None:
        metrics |= annotation_measures(annotations)
    resources.progress.on_evaluation(config, cycle, metrics["labels"], metrics["accuracy"])
    return metrics


def _number(key: str) -> int:
    return int(key.rpartition("_")[2])


def _sites(local_models: States, rounds: DataFrame, memory: States, check: Check) -> Any:
    """Put together what a finished cycle left behind at the sites."""
    from kafal_pipeline.catalog.many_states import Lazy
    from kafal_pipeline.evaluation.rounds import aggregated
    from kafal_pipeline.federation.between_rounds.cycle_state import BROADCAST, CLIENT, WATCHED
    from kafal_pipeline.federation.between_rounds.store import key_of
    from kafal_pipeline.federation.site import Sites
    from kafal_pipeline.models.state import to_arrays

    def read(kind: str, number: int) -> State:
        key = key_of(kind, number)
        return check(local_models[key], f"local_models/{key}")

    last = aggregated(rounds).groupby("client")["round"].max()  # a client that failed keeps what it had before
    downloaded = {int(client): int(last[client]) for client in last.index}
    local_states: Any = Lazy(downloaded, partial(read, CLIENT))  # nobody sets them
    broadcasts: Any = Lazy(set(downloaded.values()), partial(read, BROADCAST))
    watched = {_number(key): to_arrays(local_models[key]) for key in local_models if key.startswith(WATCHED)}
    kept = {_number(key): to_arrays(state) for key, state in memory.items()}
    return Sites({}, local_states, downloaded, broadcasts, watched, kept)
