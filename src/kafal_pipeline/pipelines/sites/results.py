"""Results of a trial over sites, step by step on disk, in the files and tables of a simulated trial."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import read_json, remove, write_json, write_with
from kafal_pipeline.evaluation import (
    CycleMetrics,
    class_table,
    client_table,
    confusion_figure,
    learning_curve,
    learning_curve_figure,
    queried_classes_figure,
    summary,
)
from kafal_pipeline.federation.between_rounds.cycle_state import CycleState
from kafal_pipeline.federation.between_rounds.store import Store
from kafal_pipeline.federation.trial import Queried
from kafal_pipeline.models.state import State, to_arrays, to_state
from kafal_pipeline.runs.layout import Layout, cycle_name
from kafal_pipeline.runs.lock import Lock
from kafal_pipeline.runs.provenance import deciding
from kafal_pipeline.sites.at_server.members import Members

if TYPE_CHECKING:
    import pandas as pd

AGAIN = "Start it again with restart=true, or remove the folder."


class Results:
    """What a trial has reached, on disk: whoever comes again finds which steps are done.

    Attributes
    ----------
    execution
        A name of this doing of the trial, the same before and after an interruption.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout, self.config = layout, layout.config
        self._note = layout.outputs / "sites.json"
        self.execution = ""

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run's lock: raises UserError if another process works on it."""
        lock = Lock()
        lock.acquire(self.layout)
        try:
            yield
        finally:
            lock.release()

    def members(self) -> Members | None:
        """Return the sites of the interrupted trial that is here; None if there is none.

        Raises
        ------
        UserError
            If it has other parameters, and ``restart`` does not say that it may be replaced.
        """
        try:
            found = read_json(self._note, AGAIN)
        except FileNotFoundError:
            return None
        if self.config.restart is True:
            return None
        if found["parameters"] != deciding(self.config):
            raise UserError(f"{self.layout.outputs}: a trial over sites with other parameters is here. {AGAIN}")
        if self.metrics(self.config.cycles - 1) is not None:
            return None  # it is finished, and done again
        self.execution = found["execution"]
        values = found["members"]
        return Members(**{**values, **{key: tuple(values[key]) for key in ("names", "classes", "sizes")}})

    def begin(self, members: Members) -> None:
        """Note who takes part in a trial that begins, and remove the results of the one before.

        Raises
        ------
        UserError
            If a simulated run lies there, and ``restart`` does not say that it may be replaced.
        """
        if self.config.restart is False and self.layout.provenance.exists():
            raise UserError(
                f"{self.layout.outputs}: a simulated run lies there. To keep both, give this one a folder of its own: "
                "dataset.label; to replace it: restart=true."
            )
        for folder in (*self.layout.of_cycles, self.layout.report):
            for path in folder.glob("*") if folder.exists() else ():
                remove(path)
        self.execution = uuid.uuid4().hex
        write_json(self.layout.configuration, deciding(self.config), indent=2)
        note = {"execution": self.execution, "parameters": deciding(self.config), "members": asdict(members)}
        write_json(self._note, note, indent=2)

    def run_name(self) -> str:
        """Return the name by which the sites keep this trial apart from others."""
        labels = f"{self.config.query.label}-{self.config.update.label}"[:60]
        return f"{labels}-{self.config.seed}-{self.execution[:8]}"

    def store(self, cycle: int) -> Store:
        """Return the store of a cycle's rounds; each is saved."""
        owner = json.dumps([self.execution, deciding(self.config)], sort_keys=True)
        return Store(self.layout.checkpoint(cycle), hashlib.sha256(owner.encode()).hexdigest())

    def _file(self, cycle: int, name: str) -> Path:
        return self.layout.outputs / cycle_name(cycle) / name

    def queried(self, cycle: int) -> Queried | None:
        """Return what the query of a cycle took; None if it has not been done."""
        found = self._read(cycle, "query_cost.json")
        return None if found is None else Queried(found["seconds"], found["bytes"])

    def save_queried(self, cycle: int, queried: Queried) -> None:
        """Save what a query took."""
        cost = {"seconds": queried.seconds, "bytes": queried.bytes_down + queried.bytes_up}
        write_json(self._file(cycle, "query_cost.json"), cost)

    def trained(self, cycle: int) -> CycleState | None:
        """Return what the training of a cycle left at the server; None if it has not been done."""
        import pandas as pd

        cost = self._read(cycle, "train_cost.json")  # written last
        if cost is None:
            return None
        rows: Any = pd.read_parquet(self._file(cycle, "rounds.parquet")).to_dict("records")
        rounds = self.config.federation.rounds
        return CycleState(cycle, rounds, self.model(cycle), rows=rows, seconds=cost["seconds"])

    def save_trained(self, state: CycleState) -> None:
        """Save a cycle's global model, rounds and seconds."""
        import pandas as pd
        from safetensors.numpy import save_file

        path = self.layout.global_model(state.cycle)
        write_with(path, lambda file: save_file(to_arrays(state.global_state), file))
        rounds = pd.DataFrame(state.rows)
        write_with(self._file(state.cycle, "rounds.parquet"), lambda file: rounds.to_parquet(file, index=False))
        write_json(self._file(state.cycle, "train_cost.json"), {"seconds": state.seconds})
        remove(self.layout.checkpoint(state.cycle))

    def model(self, cycle: int) -> State:
        """Return a cycle's global model."""
        from safetensors.numpy import load_file

        return to_state(load_file(self.layout.global_model(cycle)))

    def metrics(self, cycle: int) -> CycleMetrics | None:
        """Return a cycle's measures; None if it has not been evaluated."""
        found = self._read(cycle, "metrics.json")
        return None if found is None else cast(CycleMetrics, found)

    def save_metrics(self, cycle: int, metrics: dict[str, Any]) -> None:
        """Save a cycle's measures."""
        write_json(self.layout.metrics(cycle), metrics)

    def report(self) -> tuple[dict[str, Any], pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """Write the report; return the summary, the learning curve, and the tables of classes and of sites."""
        found = [self.metrics(cycle) for cycle in range(self.config.cycles)]
        metrics = [item for item in found if item is not None]
        curve, last, config = learning_curve(metrics), metrics[-1], self.config
        classes, title = tuple(last["classes"]), f"{config.query.label} with {config.update.label}, seed {config.seed}"
        tables = {"learning_curve": curve, "classes": class_table(last), "clients": client_table(last)}
        for name, table in tables.items():
            write_with(self.layout.report / f"{name}.csv", lambda file, table=table: table.to_csv(file, index=False))  # type: ignore[misc]
        summed = summary(curve, config)
        write_json(self.layout.report / "summary.json", summed, indent=2)
        histograms = {row["cycle"]: row["queried_histogram"] for row in metrics}
        figures = {
            "learning_curve": learning_curve_figure(curve, f"{config.dataset.folder}, {title}"),
            "confusion_matrix": confusion_figure(last.get("confusion_matrix", []), classes),
            "queried_classes": queried_classes_figure(histograms, classes),
        }
        for name, figure in figures.items():
            write_with(self.layout.report / f"{name}.png", lambda file, of=figure: of.savefig(file, format="png"))  # type: ignore[misc]
        return summed, curve, tables["classes"], tables["clients"]

    def _read(self, cycle: int, name: str) -> dict[str, Any] | None:
        try:
            return read_json(self._file(cycle, name), AGAIN)
        except FileNotFoundError:
            return None
