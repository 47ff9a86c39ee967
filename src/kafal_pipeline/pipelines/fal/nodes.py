"""Kedro nodes of the trial: tables in, tables out, computed by the federation."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from kafal_pipeline.config import resolve
from kafal_pipeline.data import ImageData, check_origin
from kafal_pipeline.data.pools import annotate, client_pools, initial_pool, label_counts
from kafal_pipeline.lifecycle.resources import Resources
from kafal_pipeline.pipelines.annotations import DataFrame, Parameters, State, States
from kafal_pipeline.pipelines.fal.checks import Check, checked_pool, checker, in_table

if TYPE_CHECKING:
    from kafal_pipeline.query.base import Selection


def draw_initial_pool(
    splits: list[list[int]], split_origin: dict[str, Any], images: ImageData, parameters: Parameters
) -> DataFrame:
    """Have each client's first samples labelled, drawn at random; the split must be the one that is asked for."""
    config = resolve(parameters)
    check_origin(split_origin, config, images)
    return initial_pool(splits, images.train_labels, config.budget, config.cycles, config.seed)


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
    from kafal_pipeline.federation.querying import query_cycle
    from kafal_pipeline.models.state import to_arrays, to_state

    config = resolve(parameters)
    check = checker(config, images, cycle - 1)
    checked_pool(pool, config, images, cycle - 1)
    start = time.perf_counter()
    trained = _trained(cycle - 1, check(global_model, "global_model"), local_models, rounds, check)
    before = {_number(key): to_arrays(state) for key, state in (memory or {}).items()}
    workers = resources.workers(images, config)
    store, on_wait = resources.store(config, cycle), resources.progress.on_wait(config, cycle)
    chosen = query_cycle(config, client_pools(pool), trained, cycle, workers, before, store, on_wait)
    queried = queried_table(chosen.selections, images, images.clients_of(config.partition.method))
    cost = {"seconds": time.perf_counter() - start, "bytes": chosen.bytes_down + chosen.bytes_up}
    kept = {key_of("client", client): to_state(s.memory) for client, s in chosen.selections.items() if s.memory}
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
    import pandas as pd

    sizes = [len(s.samples) for s in selections.values()]
    queried = pd.DataFrame(
        {
            "client": np.repeat(list(selections), sizes),
            "sample": np.concatenate([s.samples for s in selections.values()]),
            "score": np.concatenate([s.scores for s in selections.values()]),
            "rank": np.concatenate([np.arange(size) for size in sizes]),
        }
    )
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
    from kafal_pipeline.federation.cycle import train_cycle
    from kafal_pipeline.models.state import initial_state, to_state

    config = resolve(parameters)
    if previous_model is None or config.federation.between_cycles == "fresh":
        shape = {"in_channels": images.channels, "num_classes": images.num_classes}
        size = images.train_images.shape[1:3]
        start = initial_state(config.model, **shape, seed=config.seed, cycle=cycle, image_size=size)
    else:
        start = checker(config, images, cycle - 1)(previous_model, "global_model")
    workers, store = resources.workers(images, config), resources.store(config, cycle, pool)
    done = train_cycle(
        config,
        client_pools(checked_pool(pool, config, images, cycle)),
        start,
        cycle,
        workers,
        resources.progress.on_round(config),
        store,
    )
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
    queried: DataFrame | None = None,
    query_cost: dict[str, float] | None = None,
) -> dict[str, Any]:
    """Measure the global model on the test set, and say what the cycle asked for and cost."""
    from kafal_pipeline.evaluation.measures import entropy
    from kafal_pipeline.evaluation.model_measures import evaluate as measure
    from kafal_pipeline.evaluation.rounds import skipped
    from kafal_pipeline.federation.prediction import predict_test

    config = resolve(parameters)
    checked = checker(config, images, cycle)(global_model, "global_model")
    checked_pool(pool, config, images, cycle)
    start = time.perf_counter()
    logits = predict_test(checked, len(images.test_labels), resources.workers(images, config))
    clients = images.test_clients if config.partition.method == "natural" else None
    measures = measure(images.test_labels, logits, clients, images.client_names)
    asked = pool.loc[pool["labelled_in_cycle"] == cycle, "label"]
    histogram = np.bincount(asked, minlength=images.num_classes)
    labels = int(label_counts(pool, images.num_classes).sum())
    resources.progress.on_evaluation(config, cycle, labels, measures["accuracy"])
    return {
        "cycle": cycle,
        "labels": labels,
        "labelled_fraction": labels / len(pool),
        **measures,
        "classes": list(images.classes),
        "queried_histogram": histogram.tolist(),
        "queried_entropy": None if queried is None else entropy(histogram),
        "train_seconds": train_cost["seconds"],
        "query_seconds": None if query_cost is None else query_cost["seconds"],
        "evaluate_seconds": time.perf_counter() - start,
        "bytes_sent": int(rounds["bytes_down"].sum() + rounds["bytes_up"].sum() + (query_cost or {}).get("bytes", 0)),
        "skipped_client_rounds": skipped(rounds),
    }


def _number(key: str) -> int:
    return int(key.rpartition("_")[2])


def _trained(cycle: int, global_model: State, local_models: States, rounds: DataFrame, check: Check) -> Any:
    """Put together what a finished cycle left behind for queries."""
    from kafal_pipeline.catalog.many_states import Lazy
    from kafal_pipeline.evaluation.rounds import aggregated
    from kafal_pipeline.federation.between_rounds.cycle_state import BROADCAST, CLIENT, WATCHED, TrainedCycle
    from kafal_pipeline.federation.between_rounds.store import key_of
    from kafal_pipeline.models.state import to_arrays

    def read(kind: str, number: int) -> State:
        key = key_of(kind, number)
        return check(local_models[key], f"local_models/{key}")

    last = aggregated(rounds).groupby("client")["round"].max()  # a client that failed keeps what it had before
    downloaded = {int(client): int(last[client]) for client in last.index}
    return TrainedCycle(
        cycle,
        global_model,
        local_states=Lazy(downloaded, partial(read, CLIENT)),
        downloaded=downloaded,
        broadcasts=Lazy(set(downloaded.values()), partial(read, BROADCAST)),
        watched={_number(key): to_arrays(local_models[key]) for key in local_models if key.startswith(WATCHED)},
    )
