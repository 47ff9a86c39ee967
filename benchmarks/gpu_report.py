"""Report on a trial that ran on a GPU: the files and the table that a run of this machine ends with.

    python benchmarks/gpu_report.py results/trial.json OUT_DIR

Reads the file that benchmarks/gpu_trial.py brings back; the images are not needed. Of an unfinished trial the finished
cycles are reported.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import read_json, replacing, write_json, write_text
from kafal_pipeline.config import Config, resolve
from kafal_pipeline.config.resolve import ConfigError, explained
from kafal_pipeline.evaluation import (
    class_table,
    client_classes_figure,
    client_table,
    confusion_figure,
    format_table,
    learning_curve,
    learning_curve_figure,
    queried_classes_figure,
    summary,
)

AGAIN = "Take the trial.json that benchmarks/gpu_trial.py has written (docs/gpu.md)."

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]


class Cycle(BaseModel):
    """A row of the trial: `kafal_pipeline.evaluation.CycleMetrics`, and what training did."""

    model_config = ConfigDict(allow_inf_nan=False)

    cycle: Count
    labels: Annotated[int, Field(ge=1)]
    labelled_fraction: Annotated[float, Field(gt=0, le=1)]
    accuracy: Share
    balanced_accuracy: Share
    macro_f1: Share
    per_class_accuracy: list[Share | None]
    specificity_macro: Share | None = None  # from here to `confusion_matrix`: absent in files of earlier versions
    auroc_macro: Share | None = None
    calibration_error: Share | None = None
    per_class_specificity: list[Share | None] = []
    per_class_auroc: list[Share | None] = []
    confusion_matrix: list[list[Count]] = []
    classes: list[str]
    queried_histogram: list[Count]
    queried_entropy: float | None
    train_seconds: Annotated[float, Field(gt=0)]
    query_seconds: Seconds | None
    evaluate_seconds: Seconds
    bytes_sent: Count
    skipped_client_rounds: Count
    samples: Count
    samples_per_second: Seconds


class Client(BaseModel):
    """How many training samples of a class a client holds."""

    client: Count
    class_: Count = Field(alias="class")
    count: Count


class Trial(BaseModel):
    """What a report takes from trial.json."""

    model_config = ConfigDict(allow_inf_nan=False)

    dataset: str
    values: dict[str, Any]
    cycles: list[Cycle]
    split_table: Annotated[list[Client], Field(min_length=1)]
    finished: bool
    device: str
    torch: str
    peak_memory_mb: Seconds
    peak_gpu_memory_mb: Seconds | None

    @model_validator(mode="after")
    def _cycles_belong_together(self) -> Trial:
        first = self.cycles[0].classes if self.cycles else []
        for number, row in enumerate(self.cycles):
            later: list[list[Any]] = [row.per_class_specificity, row.per_class_auroc, row.confusion_matrix]
            lengths = {len(values) for values in (*later, *row.confusion_matrix) if values}
            lengths |= {len(row.per_class_accuracy), len(row.queried_histogram)}
            same = lengths == {len(first)} and row.classes == first
            before = self.cycles[max(0, number - 1)].labelled_fraction
            if row.cycle != number or row.labelled_fraction < before or not same:
                raise ValueError(f"the row of cycle {number} is not one that follows those before it")
        if any(row.class_ >= len(first) for row in self.split_table if first):
            raise ValueError(f"split_table has a class beyond the {len(first)} classes")
        return self


def read(path: Path) -> tuple[Trial, Config]:
    """Return the trial in a file, and the configuration of a run that would do its finished cycles.

    Raises
    ------
    UserError
        If there is no such file, if it is none of a trial, or of one that has not finished its first cycle.
    """
    try:
        content = read_json(path, AGAIN)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). {AGAIN}") from None
    if "values" in content and not content.get("cycles"):
        raise UserError(
            f"{path}: the trial has not finished any cycle, so there is nothing to report. The command that it was "
            "started with resumes from its last saved round."
        )
    try:
        trial = Trial.model_validate(content)
        own = {"dataset": {"name": trial.dataset}, "cycles": len(trial.cycles), "tracking": False}
        return trial, resolve({**trial.values, **own})
    except ValidationError as error:
        key, sentence = explained(error, Trial)[0]
        raise UserError(f"{path}: {key or 'cycles'}: {sentence} {AGAIN}") from None
    except ConfigError as error:
        raise UserError("\n".join(f"{path}: {key}: {sentence}" for key, sentence in error.problems)) from None


def report(trial: Trial, config: Config, folder: Path) -> str:
    """Write the report into a folder; return the table, with speed and memory below it."""
    rows: Any = [row.model_dump(exclude_unset=True) for row in trial.cycles]
    classes, last = rows[0]["classes"], rows[-1]
    title = f"{trial.dataset}, {config.query.label} with {config.update.label}, seed {config.seed}"
    curve = learning_curve(rows)
    curve["samples_per_second"] = [row["samples_per_second"] for row in rows]
    results = summary(curve, config)
    cost = results["cost"]
    cost["samples_per_second"] = sum(row["samples"] for row in rows) / cost["train_seconds"]
    cost |= trial.model_dump(include={"peak_memory_mb", "peak_gpu_memory_mb"}, exclude_none=True)
    results["trial"] = {
        **trial.model_dump(include={"finished", "device", "torch"}),
        "cycles": trial.values.get("cycles", len(rows)),
        "precision": config.training.precision,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "summary.json", results, indent=2)
    tables = {"learning_curve": curve, "classes": class_table(last), "clients": client_table(last)}
    for name, table in tables.items():
        write_text(folder / f"{name}.csv", table.to_csv(index=False))
    split = pd.DataFrame([row.model_dump(by_alias=True) for row in trial.split_table])
    figures = {
        "learning_curve": learning_curve_figure(curve, title),
        "client_classes": client_classes_figure(split, classes),
        "confusion_matrix": confusion_figure(last.get("confusion_matrix", []), classes),
        "queried_classes": queried_classes_figure({row["cycle"]: row["queried_histogram"] for row in rows}, classes),
    }
    for name, figure in figures.items():
        with replacing(folder / f"{name}.png") as path:
            figure.savefig(path, format="png")
    asked, gpu = results["trial"]["cycles"], trial.peak_gpu_memory_mb
    lines = [
        *([] if trial.finished else [f"Not finished  {len(rows)} of {asked} cycles; its command resumes it"]),
        f"Training      {cost['samples_per_second']:,.0f} samples/s ({trial.device}, {config.training.precision})",
        f"Most memory   {trial.peak_memory_mb:,.0f} MB{'' if gpu is None else f', {gpu:,.0f} MB on the GPU'}",
        f"Report        {folder}",
    ]
    return "\n".join([format_table(curve), "", *lines])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trial", type=Path, help="the file trial.json")
    parser.add_argument("folder", type=Path, metavar="OUT_DIR", help="where the report is written")
    options = parser.parse_args(arguments)
    try:
        print(report(*read(options.trial), options.folder))
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
