"""Unrolls the cycles into a pipeline: one namespace for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kedro.pipeline import Node, Pipeline, node

from kafal_pipeline.lifecycle.resources import Resources
from kafal_pipeline.pipelines.fal import nodes
from kafal_pipeline.pipelines.fal.people import ask_for_initial_pool, ask_for_queried
from kafal_pipeline.runs.layout import cycle_name

Inputs = list[str] | dict[str, str]


def create_pipeline(cycles: int, resources: Resources, *, people: bool = False, data: str = "images") -> Pipeline:
    """Return the pipeline of a trial of that many cycles; cycle 0 trains on the initial pool.

    Where `people` annotate, each cycle also keeps what they answered. `data`: what clients train on, ``images`` or
    ``features``; people label the images.
    """
    return Pipeline([item for cycle in range(cycles) for item in _cycle(cycle, resources, people, data)])


def _cycle(cycle: int, resources: Resources, people: bool, data: str) -> list[Node]:
    here, before = cycle_name(cycle), cycle_name(cycle - 1)
    pool, rounds, model = f"{here}.pool", f"{here}.rounds", f"{here}.global_model"
    first = cycle == 0
    queried = [] if first else [f"{here}.queried", f"{here}.query_cost"]
    train_cost = f"{here}.train_cost"
    trained = [f"{before}.global_model", f"{before}.local_models", f"{before}.rounds"]

    annotations = f"{here}.annotations"
    labelled = [pool, annotations] if people else pool

    def make(function: Callable[..., Any], name: str, inputs: Inputs, outputs: str | list[str]) -> Node:
        return node(function, inputs, outputs, name=name, namespace=here, tags=["trial", here])

    if first:
        draw = _bound(ask_for_initial_pool, resources) if people else nodes.draw_initial_pool
        seen = "images" if people else data
        opening = [make(draw, "initial_pool", ["splits", "split_origin", seen, "parameters"], labelled)]
    else:
        opening = [
            make(
                _bound(nodes.query, resources, cycle),
                "query",
                [
                    f"{before}.pool",
                    *trained,
                    data,
                    "parameters",
                    *([f"{before}.query_memory"] if cycle > 1 else []),
                ],
                [*queried, f"{here}.query_memory"],
            ),
            make(
                _bound(ask_for_queried, resources, cycle) if people else _bound(nodes.annotate_queried, cycle),
                "annotate",
                [f"{before}.pool", queried[0], *([f"{before}.annotations"] if people else []), "images", "parameters"],
                labelled,
            ),
        ]
    return [
        *opening,
        make(
            _bound(nodes.train, resources, cycle),
            "train",
            [pool, data, "parameters", *([] if first else [f"{before}.global_model"])],
            [model, f"{here}.local_models", rounds, train_cost],
        ),
        make(
            _bound(nodes.evaluate, resources, cycle),
            "evaluate",
            {
                "global_model": model,
                "pool": pool,
                "rounds": rounds,
                "train_cost": train_cost,
                "images": data,
                "parameters": "parameters",
                **({} if first else {"query_cost": queried[1]}),
                **({"annotations": annotations} if people else {}),
            },
            f"{here}.metrics",
        ),
    ]


def _bound(function: Callable[..., Any], *values: Any) -> Callable[..., Any]:
    """Give a node's function its first arguments, and keep its name for Kedro's log."""

    def bound(*args, **kwargs):  # type: ignore[no-untyped-def]
        return function(*values, *args, **kwargs)

    bound.__name__ = function.__name__
    return bound
