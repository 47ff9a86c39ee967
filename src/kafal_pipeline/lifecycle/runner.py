"""The runner of `kedro run`: an interrupted run resumes with the same command."""

from __future__ import annotations

import logging
from collections.abc import Container
from typing import Any

from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.runner import SequentialRunner

from kafal_pipeline.lifecycle import current_run
from kafal_pipeline.runs import provenance, resume
from kafal_pipeline.runs.layout import FIRST_NODE

logger = logging.getLogger(__name__)

OWN = ("cycle_", "report.")
"""How the names begin of nodes whose results are a run's own; others prepare data that runs share."""


class ResumableSequentialRunner(SequentialRunner):
    """Runs one node after the other, and leaves out the cycles' nodes that an interrupted run has done.

    Whether there is such a run, with the same parameters, images, split and code, shows once images and split are
    there. Parts of a pipeline (``--from-nodes``, ``--only-missing-outputs`` ...) run as they are asked for.
    """

    def _run(self, pipeline: Pipeline, catalog: CatalogProtocol, *arguments: Any, **options: Any) -> None:
        if FIRST_NODE not in {node.name for node in pipeline.nodes}:
            super()._run(pipeline, catalog, *arguments, **options)
            return
        before = [node for node in pipeline.nodes if not node.name.startswith(OWN)]
        if before:
            super()._run(Pipeline(before), catalog, *arguments, **options)
        own = Pipeline([node for node in pipeline.nodes if node.name.startswith(OWN)])
        if resume.goes_on(current_run.root(), current_run.active()):
            current_run.go_on()
            found = provenance.read(current_run.root() / provenance.OUTPUTS / current_run.active().run_path)
            own = _left(own, catalog, found.files if found else {})
            if not own.nodes:
                logger.info("Nothing is left to do; to start again: --params restart=true")
                return
            logger.info("An interrupted run resumes with %s; to start again: --params restart=true", own.nodes[0].name)
        super()._run(own, catalog, *arguments, **options)


def _left(pipeline: Pipeline, catalog: CatalogProtocol, known: Container[str]) -> Pipeline:
    """Return the nodes of the cycles whose results are not all there, all that follow from them, and the report's.

    A result whose digest is not `known`, since the run was killed in the instant after it was saved, is made again: it
    cannot be told from one that was changed since.
    """
    missing = [
        node.name
        for node in pipeline.nodes
        if node.name.startswith("cycle_") and not all(name in known and catalog.exists(name) for name in node.outputs)
    ]
    report = Pipeline([node for node in pipeline.nodes if not node.name.startswith("cycle_")])
    return report + pipeline.from_nodes(*missing) if missing else report
