"""Digests of a run's results on disk: a later command reads exactly what was written."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import file_digest
from kafal_pipeline.runs import provenance
from kafal_pipeline.runs.damaged import REPAIR
from kafal_pipeline.runs.layout import FIRST_NODE, Layout, parsed

if TYPE_CHECKING:
    from kafal_pipeline.lifecycle.current_run import CurrentRun

SHOWN = 3
"""Missing results that a message names."""

CHOOSING = ("from_nodes", "from_inputs", "node_names", "tags", "namespaces")
"""Kedro's options that choose nodes, by which a run can begin with one whose inputs were never made."""


def check_named(pipeline: Pipeline, catalog: CatalogProtocol, conf: Path) -> None:
    """Check that the catalog says where a pipeline's results are kept: Kedro would hold them in memory, and lose them.

    Raises
    ------
    UserError
        With the names that the catalog of the configuration in `conf` lacks; a comparison's own stay in memory.
    """
    lacking = {name for name in pipeline.datasets() if name not in catalog and not name.startswith("comparison_")}
    if lacking:
        missing = sorted({re.sub(r"^cycle_\d+", "{cycle}", name) for name in lacking})
        raise UserError(
            f"{conf.name}/base/catalog.yml: found no entry for {', '.join(missing)}, so these results would not be "
            "saved. Each needs one: take the file as it comes with the project (git checkout)."
        )


def check_there(run: Layout, pipeline: Pipeline, catalog: CatalogProtocol, run_params: Mapping[str, Any]) -> None:
    """Check that a part of a run finds what the nodes before it have made.

    Raises
    ------
    UserError
        If the run has not come that far, with what is missing.
    """
    missing = sorted(name for name in pipeline.inputs() if _is_own(name) and not catalog.exists(name))
    found = provenance.read(run)
    if not missing or (found is not None and found.finished):  # it is said of the file that has been removed
        return
    given = [name for name in CHOOSING if run_params.get(name)]
    options = [f"--{name.replace('node_names', 'nodes').replace('_', '-')}" for name in given]
    names = f"{', '.join(missing[:SHOWN])}{', ...' if len(missing) > SHOWN else ''}"
    raise UserError(
        f"{', '.join(options) or '--pipeline'}: the run {run.name} has not come that far: there "
        f"is no {names}. Run it {f'without {options[0]}' if options else 'first'}, with the same parameters: kedro run "
        "--pipeline fal, which resumes from the last saved round if there is one."
    )


def _is_own(name: str) -> bool:
    """Tell whether a data set is one of a run's cycles."""
    return parsed(name)[0] is not None


class SavedFiles:
    """Notes a digest of every result in ``provenance.json``, and checks it before an earlier command's is read."""

    def __init__(self, run: CurrentRun) -> None:
        self._run = run
        self._catalog: CatalogProtocol | None = None
        self._earlier: dict[str, str] = {}  # digests that are still to be checked
        self._noted: set[str] = set()  # data sets whose digests are on disk
        self._saved: dict[str, str] = {}

    def before_pipeline(self, catalog: CatalogProtocol) -> None:
        """Learn what earlier commands have saved; the catalog knows where."""
        found = provenance.read(self._run.layout)
        self._catalog, self._earlier, self._saved = catalog, dict(found.files) if found else {}, {}
        self._noted = set(self._earlier)

    def check(self, name: str) -> None:
        """Refuse a result that is not what an earlier command saved.

        Raises
        ------
        UserError
            With its file.
        """
        expected = self._earlier.pop(name, None)  # once is enough: it is this command's to look after, then
        path = self._path(name) if expected is not None else None
        if path is not None and digest(path) != expected:
            raise UserError(f"{path}: not what the run saved there: it has been changed since, or is damaged. {REPAIR}")

    def forget(self, name: str) -> None:
        """Forget the digest of what is about to be replaced: a process killed in between leaves none then."""
        if name in self._noted:
            self.note({name})

    def take(self, name: str) -> None:
        """Take the digest of a result."""
        self._earlier.pop(name, None)
        path = self._path(name) if _is_own(name) else None
        if path is not None:
            self._saved[name] = digest(path)

    def note(self, replaced: Collection[str] = ()) -> None:
        """Note the digests of what has been saved, on disk, and no longer those of what is about to be `replaced`."""
        if self._saved or replaced:
            provenance.note_files(self._run.layout, self._saved, replaced)
        self._noted = (self._noted | self._saved.keys()) - set(replaced)
        self._saved = {}

    def after_node(self, node: Node) -> None:
        """Forget earlier results where a run starts again: they have been removed."""
        if node.name == FIRST_NODE and provenance.read(self._run.layout) is None:
            self._earlier, self._noted = {}, set()

    def _path(self, name: str) -> Path | None:
        """Return the file or folder of a data set, if it has one and it is there."""
        dataset: Any = self._catalog.get(name) if self._catalog is not None else None
        found = getattr(dataset, "path", None)
        return found if isinstance(found, Path) and found.exists() else None


def digest(path: Path) -> str:
    """Return the SHA-256 of a file; of a folder, that of its files' names and SHA-256s."""
    if path.is_file():
        return file_digest(path)
    files = sorted(item for item in path.rglob("*") if item.is_file())
    listed = "".join(f"{file.relative_to(path).as_posix()} {file_digest(file)}\n" for file in files)
    return hashlib.sha256(listed.encode()).hexdigest()
