"""Kedro hooks that check a run's results on disk: a later command reads exactly what was written."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import file_digest
from kafal_pipeline.lifecycle import current_run
from kafal_pipeline.runs import provenance
from kafal_pipeline.runs.damaged import REPAIR
from kafal_pipeline.runs.layout import FIRST_NODE

OURS = "cycle_"
"""How the names of data sets and nodes begin whose results are a run's own."""

SHOWN = 3
"""Missing results that a message names."""

SHARED = ("images", "splits", "split_origin", "split_table")
REPORTED = (
    *("learning_curve", "summary", "class_table", "client_table"),
    *("learning_curve_figure", "client_classes_figure", "confusion_figure"),
    *("queried_classes_figure", "queried_by_client_figure"),
)
"""The other data sets that are kept in files."""

CHOOSING = {
    "from_nodes": "--from-nodes",
    "from_inputs": "--from-inputs",
    "node_names": "--nodes",
    "tags": "--tags",
    "namespaces": "--namespaces",
}
"""Kedro's options that choose nodes, by which a run can begin with one whose inputs were never made."""


def check_named(pipeline: Pipeline, catalog: CatalogProtocol, folder: Path) -> None:
    """Check that the catalog says where a pipeline's results are kept: Kedro would hold them in memory, and lose them.

    Parameters
    ----------
    pipeline
        What is about to run.
    catalog
        Its catalog.
    folder
        Where the configuration's base lies, whose ``catalog.yml`` names all data sets.

    Raises
    ------
    UserError
        With the names that are missing.
    """
    kept = [name for name in pipeline.datasets() if name.startswith(OURS) or name in (*SHARED, *REPORTED)]
    missing = sorted({_pattern(name) for name in kept if name not in catalog})
    if missing:
        raise UserError(
            f"{folder.parent.name}/{folder.name}/catalog.yml: found no entry for {', '.join(missing)}, so these "
            "results would not be saved. Each needs one: take the file as it comes with the project (git checkout)."
        )


def check_there(pipeline: Pipeline, catalog: CatalogProtocol, run_params: Mapping[str, Any]) -> None:
    """Check that a part of a run finds what the nodes before it have made.

    Raises
    ------
    UserError
        If the run has not come that far, with what is missing.
    """
    missing = sorted(name for name in pipeline.inputs() if name.startswith(OURS) and not catalog.exists(name))
    found = provenance.read(current_run.root() / provenance.OUTPUTS / current_run.active().run_path)
    if not missing or (found is not None and found.finished):  # it is said of the file that has been removed
        return
    options = [option for name, option in CHOOSING.items() if run_params.get(name)]
    names = f"{', '.join(missing[:SHOWN])}{', ...' if len(missing) > SHOWN else ''}"
    raise UserError(
        f"{', '.join(options) or '--pipeline'}: the run {current_run.active().run_path} has not come that far: there "
        f"is no {names}. Run it {f'without {options[0]}' if options else 'first'}, with the same parameters: kedro run "
        "--pipeline fal, which resumes from the last saved round if there is one."
    )


def _pattern(name: str) -> str:
    """Return what a data set is called in the catalog: those of all cycles have one entry."""
    return re.sub(rf"^{OURS}\d+", "{cycle}", name)


class SavedFiles:
    """Notes a digest of every result in ``provenance.json``, and checks it before an earlier command's is read."""

    def __init__(self) -> None:
        self._catalog: CatalogProtocol | None = None
        self._earlier: dict[str, str] = {}  # digests that are still to be checked
        self._noted: set[str] = set()  # data sets whose digests are on disk
        self._saved: dict[str, str] = {}

    @hook_impl
    def after_catalog_created(self, catalog: CatalogProtocol) -> None:
        """Keep the catalog, which knows where data sets lie."""
        self._catalog = catalog

    @hook_impl
    def before_pipeline_run(self) -> None:
        """Learn what earlier commands have saved."""
        found = provenance.read(current_run.root() / provenance.OUTPUTS / current_run.active().run_path)
        self._earlier, self._saved = dict(found.files) if found else {}, {}
        self._noted = set(self._earlier)

    @hook_impl
    def before_dataset_loaded(self, dataset_name: str) -> None:
        """Refuse a result that is not what an earlier command saved."""
        expected = self._earlier.pop(dataset_name, None)  # once is enough: it is this command's to look after, then
        if expected is None:
            return
        path = self._path(dataset_name)
        if path is not None and path.exists() and digest(path) != expected:
            raise UserError(f"{path}: not what the run saved there: it has been changed since, or is damaged. {REPAIR}")

    @hook_impl
    def before_dataset_saved(self, dataset_name: str) -> None:
        """Forget the digest of what is about to be replaced: a process killed in between leaves none then."""
        if dataset_name in self._noted:
            self._note({dataset_name})

    @hook_impl
    def after_dataset_saved(self, dataset_name: str) -> None:
        """Take the digest of a result."""
        self._earlier.pop(dataset_name, None)
        path = self._path(dataset_name) if dataset_name.startswith(OURS) else None
        if path is not None and path.exists():
            self._saved[dataset_name] = digest(path)

    @hook_impl(trylast=True)  # once it is noted what makes the results
    def before_node_run(self) -> None:
        """Note what the nodes before have saved."""
        self._note(set())

    @hook_impl(trylast=True)
    def after_node_run(self, node: Node) -> None:
        """Forget earlier results where a run starts anew: they have been removed."""
        if node.name == FIRST_NODE and provenance.read(self._outputs()) is None:
            self._earlier, self._noted = {}, set()

    @hook_impl
    def after_pipeline_run(self) -> None:
        """Note what the last node has saved."""
        self._note(set())

    def _note(self, replaced: set[str]) -> None:
        if self._saved or replaced:
            provenance.note_files(current_run.root(), current_run.active(), self._saved, replaced)
        self._noted = (self._noted | self._saved.keys()) - replaced
        self._saved = {}

    def _outputs(self) -> Path:
        return current_run.root() / provenance.OUTPUTS / current_run.active().run_path

    def _path(self, name: str) -> Path | None:
        dataset: Any = self._catalog.get(name) if self._catalog is not None else None
        found = getattr(dataset, "path", None)
        return found if isinstance(found, Path) else None


def digest(path: Path) -> str:
    """Return the SHA-256 of a file; of a folder, that of its files' names and SHA-256s."""
    if path.is_file():
        return file_digest(path)
    files = sorted(item for item in path.rglob("*") if item.is_file())
    listed = "".join(f"{file.relative_to(path).as_posix()} {file_digest(file)}\n" for file in files)
    return hashlib.sha256(listed.encode()).hexdigest()
