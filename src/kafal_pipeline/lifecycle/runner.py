"""The runner of `kedro run`: an interrupted run resumes with the same command."""

from __future__ import annotations

import logging
from collections.abc import Container
from typing import Any

from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.runner import SequentialRunner

from kafal_pipeline.lifecycle.hooks import ProjectHooks
from kafal_pipeline.runs import provenance, resume
from kafal_pipeline.runs.layout import FIRST_NODE, parsed

logger = logging.getLogger(__name__)


class ResumableSequentialRunner(SequentialRunner):
    """Runs one node after the other, and leaves out the cycles' nodes that an interrupted run has done.

    Whether there is such a run, with the same parameters, images, split and code, shows once images and split are
    there. Parts of a pipeline (``--from-nodes``, ``--only-missing-outputs`` ...) run as they are asked for.
    """

    def _run(self, pipeline: Pipeline, catalog: CatalogProtocol, hook_manager: Any = None, *rest: Any) -> None:
        # Kedro makes the runner, from its name alone: what it needs to know comes with the project's hooks, if any.
        plugins = (hook_manager and hook_manager.get_plugins()) or ()
        run = next((plugin.run for plugin in plugins if isinstance(plugin, ProjectHooks)), None)
        if run is None or FIRST_NODE not in {node.name for node in pipeline.nodes}:
            super()._run(pipeline, catalog, hook_manager, *rest)
            return
        own = pipeline.only_nodes(*(node.name for node in pipeline.nodes if _is_own(node.name)))
        if (shared := pipeline - own).nodes:
            super()._run(shared, catalog, hook_manager, *rest)
        if resume.resumes(run.layout):
            run.resumes = True
            found = provenance.read(run.layout)
            own = _left(own, catalog, found.files if found else {})
            if not own.nodes:
                logger.info("Nothing is left to do; to start again: --params restart=true")
                return
            logger.info("An interrupted run resumes with %s; to start again: --params restart=true", own.nodes[0].name)
        super()._run(own, catalog, hook_manager, *rest)


def _is_own(name: str) -> bool:
    """Tell whether a node's results are a run's own; others prepare data that runs share."""
    return parsed(name)[0] is not None or name.startswith("report.")


def _left(pipeline: Pipeline, catalog: CatalogProtocol, known: Container[str]) -> Pipeline:
    """Return the nodes of the cycles whose results are not all there, all that follow from them, and the report's.

    A result whose digest is not `known`, since the run was killed in the instant after it was saved, is made again: it
    cannot be told from one that was changed since.
    """
    cycles = [node for node in pipeline.nodes if parsed(node.name)[0] is not None]
    missing = [node.name for node in cycles if not all(name in known and catalog.exists(name) for name in node.outputs)]
    report = pipeline - Pipeline(cycles)
    return report + pipeline.from_nodes(*missing) if missing else report
