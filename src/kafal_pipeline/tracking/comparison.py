"""Records a comparison in MLflow: its matrix, its report, tables and figures."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kafal_pipeline.common.errors import masked
from kafal_pipeline.tracking.describe import comparison_tags, flattened, run_tags
from kafal_pipeline.tracking.journal import COMPARISONS, JOURNAL, TRACKING, first
from kafal_pipeline.tracking.reachable import address
from kafal_pipeline.tracking.record import FOLDERS, finite_numbers
from kafal_pipeline.tracking.tracker import NullTracker, Tracker, begin

if TYPE_CHECKING:
    from kafal_pipeline.config import Config
    from kafal_pipeline.config.compare import CompareConfig

OF_RUNS = ("query", "update", "seed", "tracking", "restart")
"""Keys of the configuration that are no matter of the comparison as a whole."""


def record_comparison(
    compare: CompareConfig,
    config: Config,
    project: Path,
    files: Iterable[Path],
    scalars: Mapping[str, Any],
    members: Iterable[str] = (),
) -> Path:
    """Write the journal of a comparison and return its path; whoever delivers journals delivers it.

    Parameters
    ----------
    config
        Of any of its runs: they share experiment and protocol.
    files
        The report's; the page is shown in the run's top folder.
    scalars
        Numbers that sum it up; ``strategies.<key>`` in MLflow; those in mappings are ``strategies.<key>.<name>``.
    members
        The executions of its runs: those that another comparison made, or none, get this one's tag too.
    """
    folder = project / "data" / TRACKING / config.dataset.folder / COMPARISONS / compare.name
    protocol = flattened(config.model_dump(mode="json", exclude=set(OF_RUNS)))
    params = {**protocol, **_matrix(compare, config)}
    journal = begin(folder, config, project, name=f"comparison {compare.name}", params=params, system_metrics=False)
    tags = run_tags(config, project)
    for key in ("query", "update", "strategy", "seed", "mlflow.runColor"):
        del tags[key]
    tracker: NullTracker = Tracker(journal, None)
    tracker.tags(tags | comparison_tags(compare.name))
    for file in files:
        with contextlib.suppress(FileNotFoundError):  # another comparison of this name has taken it away meanwhile
            tracker.artifact(file, "" if file.suffix == ".html" else FOLDERS.get(file.suffix, ""))
    numbers = finite_numbers(scalars)
    for key, value in scalars.items():
        if isinstance(value, Mapping):
            numbers |= {f"{key}.{name}": number for name, number in finite_numbers(value).items()}
    # Names that sort behind those of the runs; a slash would make sections of charts, before all others.
    tracker.metrics({f"strategies.{key}": number for key, number in numbers.items()}, step=0)
    journal.append("members", comparison=compare.name, executions=sorted(members))
    tracker.finish("FINISHED")
    return journal.path


def untracked(members: Mapping[str, str], config: Config, project: Path) -> list[str]:
    """Return which of the runs (path: execution) have no journal for the comparison's tracker and experiment."""
    uri = address(config.tracking)
    place = (config.tracking.experiment or config.dataset.folder, masked(uri) if uri else None)
    return [
        path
        for path, execution in members.items()
        if not any(
            execution == start.get("execution") and place == (start.get("experiment"), start.get("uri"))
            for start in map(first, (project / "data" / TRACKING / path).glob(f"*/{JOURNAL}"))
        )
    ]


def _matrix(compare: CompareConfig, config: Config) -> dict[str, str]:
    """Return the matrix as parameters."""
    updates = [config.update] if compare.updates is None else compare.updates
    return {
        "comparison": compare.name,
        "compare.queries": ", ".join(query.label for query in compare.queries),
        "compare.updates": ", ".join(update.label for update in updates),
        "compare.seeds": ", ".join(map(str, compare.seeds)),
        "compare.baseline": compare.baseline,
        "compare.alpha": json.dumps(compare.alpha),
        "compare.targets": json.dumps(compare.targets),
    }
