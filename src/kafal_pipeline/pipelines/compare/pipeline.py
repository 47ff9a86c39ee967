"""The pipeline of a comparison."""

from collections.abc import Callable
from functools import partial, update_wrapper
from typing import Any

from kedro.pipeline import Node, Pipeline, node

from kafal_pipeline.lifecycle.current_run import Session
from kafal_pipeline.lifecycle.resources import Resources
from kafal_pipeline.pipelines.compare import nodes


def create_pipeline(session: Session, resources: Resources) -> Pipeline:
    """Return the pipeline ``parameters, images -> plan -> failures, waiting -> tables -> report``.

    `session` says how Kedro was called: the runs are called the same way. `resources` deliver the runs' journals.
    """

    def make(function: Callable[..., Any], inputs: list[str], outputs: str | list[str] | None, **given: Any) -> Node:
        bound = update_wrapper(partial(function, **given), function)
        return node(bound, inputs, outputs, name=f"compare.{function.__name__}", tags=["compare"])

    others = ["comparison_failures", "comparison_waiting"]
    return Pipeline(
        [
            make(nodes.plan, ["parameters", "images"], "comparison_plan", root=session.root),
            make(nodes.run, ["comparison_plan"], others, session=session, resources=resources),
            make(nodes.load, ["comparison_plan", *others], "comparison_tables", session=session),
            make(nodes.report, ["comparison_plan", "comparison_tables"], "comparison_report", resources=resources),
            make(nodes.conclude, ["comparison_plan", *others, "comparison_report"], None, session=session),
        ]
    )
