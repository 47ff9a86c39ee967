"""The file trial.json that `benchmarks/gpu_trial.py` brings back from a GPU, reported like a run of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import read_json
from kafal_pipeline.config.resolve import explained

if TYPE_CHECKING:
    from kafal_pipeline.evaluation import CycleMetrics

KEY = "trial"
"""The parameter that names the file of a trial."""

AGAIN = "Take the trial.json that benchmarks/gpu_trial.py has written (docs/gpu.md)."

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]


class _Cycle(BaseModel):
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


class _Client(BaseModel):
    """How many training samples of a class a client holds."""

    client: Count
    class_: Count = Field(alias="class")
    count: Count


class _File(BaseModel):
    """What a report takes from trial.json."""

    model_config = ConfigDict(allow_inf_nan=False)

    dataset: str
    values: dict[str, Any]
    cycles: list[_Cycle]
    split_table: Annotated[list[_Client], Field(min_length=1)]
    finished: bool
    device: str
    torch: str
    peak_memory_mb: Seconds
    peak_gpu_memory_mb: Seconds | None

    @model_validator(mode="after")
    def _cycles_belong_together(self) -> _File:
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


@dataclass(frozen=True)
class Trial:
    """A trial that has been run elsewhere.

    Attributes
    ----------
    parameters
        Those of a run that would do the same, for the cycles that are there; devices are left to this machine.
    metrics
        A row for each cycle, with `samples` and `samples_per_second` beside what a run's rows have.
    split_table
        Rows with ``client``, ``class`` and ``count``.
    finished, asked
        Whether it came to its end, and how many cycles that has.
    machine
        `device`, `torch`, `peak_memory_mb` and, on a GPU, `peak_gpu_memory_mb`.
    """

    parameters: dict[str, Any]
    metrics: list[CycleMetrics]
    split_table: list[dict[str, int]]
    finished: bool
    asked: int
    machine: dict[str, Any]


def read(name: object) -> Trial:
    """Return the trial that lies in a file.

    Raises
    ------
    UserError
        If there is no such file, if it is none of a trial, or of one that has not finished its first cycle.
    """
    path = Path(str(name)).expanduser()
    try:
        content = read_json(path, AGAIN)
    except OSError as error:
        raise UserError(f"--params: {KEY}: {path}: cannot be read ({error.strerror}). {AGAIN}") from None
    if "values" in content and not content.get("cycles"):
        raise UserError(
            f"--params: {KEY}: {path}: the trial has not finished any cycle, so there is nothing to report. The "
            "command that it was started with resumes from its last saved round."
        )
    try:
        file = _File.model_validate(content)
    except ValidationError as error:
        key, sentence = explained(error, _File)[0]
        raise UserError(f"--params: {KEY}: {path}: {key or 'cycles'}: {sentence} {AGAIN}") from None
    training = file.values.get("training", {})
    if isinstance(training, dict):
        training = {key: value for key, value in training.items() if key not in {"device", "processes"}}
    parameters = {
        **file.values,
        "dataset": {"name": file.dataset},
        "cycles": len(file.cycles),
        "training": training,
        "tracking": False,
    }
    machine = {"device": file.device, "torch": file.torch, "peak_memory_mb": file.peak_memory_mb}
    if file.peak_gpu_memory_mb is not None:
        machine["peak_gpu_memory_mb"] = file.peak_gpu_memory_mb
    rows: Any = [row.model_dump(exclude_unset=True) for row in file.cycles]
    table = [row.model_dump(by_alias=True) for row in file.split_table]
    asked = file.values.get("cycles")
    return Trial(parameters, rows, table, file.finished, asked if isinstance(asked, int) else len(rows), machine)


def check_alone(given: Mapping[str, Any]) -> None:
    """Check that nothing is asked for beside the trial, whose parameters are its own."""
    others = sorted(set(given) - {KEY, "tracking"})
    if others:
        raise UserError(f"--params: {others[0]}: a trial has its own parameters, so give {KEY}={given[KEY]} alone.")
