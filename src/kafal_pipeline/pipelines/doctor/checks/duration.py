"""Estimates how long the run will take on this machine."""

from dataclasses import replace

from kafal_pipeline.config import Config
from kafal_pipeline.pipelines.doctor.finding import FAILURE, OK, WARNING, Finding
from kafal_pipeline.pipelines.doctor.probe import Measured
from kafal_pipeline.pipelines.doctor.shape import DataShape
from kafal_pipeline.pipelines.doctor.workload import workload

CHECK = "time"
BUSY = 0.7
"""Share of the processor's time below which others use it, and below which the estimate is too long without them."""

START_SECONDS = 10.0  # of a run that does nothing: imports, worker processes, tables and figures


def check(config: Config, shape: DataShape | None, measured: Measured | str | None) -> Finding:
    """Estimate the time of the whole run from the measured times of a step and of a prediction."""
    if isinstance(measured, str):
        advice = "The run would fail in the same way: correct what the message names."
        return Finding(CHECK, FAILURE, measured, advice)
    if measured is None or shape is None:
        return Finding(CHECK, WARNING, "not estimated, since something above is missing")
    work = workload(config, shape)
    found = (
        f"about {in_words(seconds(config, shape, measured))} ({work.steps:,} client steps at "
        f"{_milliseconds(measured.step_seconds)}, {measured.side_by_side} side by side)"
    )
    if measured.alone_seconds < BUSY * measured.step_seconds:
        share = measured.alone_seconds / measured.step_seconds
        undisturbed = replace(
            measured, step_seconds=measured.alone_seconds, image_seconds=share * measured.image_seconds
        )
        alone = seconds(config, shape, undisturbed)
        advice = f"Other programs use the processor now; without them it would be about {in_words(alone)}."
        return Finding(CHECK, WARNING, found, advice)
    return Finding(CHECK, OK, found)


def seconds(config: Config, shape: DataShape, measured: Measured) -> float:
    """Return the expected seconds of the run."""
    work = workload(config, shape, measured.side_by_side)
    training = work.steps_in_sequence * measured.step_seconds
    return START_SECONDS + training + work.predictions_in_sequence * measured.image_seconds


def in_words(duration: float) -> str:
    """Return a duration as one would say it.

    >>> [in_words(duration) for duration in (41, 260, 5000, 40_000, 200_000)]
    ['41 s', '4 min', '1.4 h', '11 h', '2.3 days']
    """
    if duration < 100:
        return f"{duration:.0f} s"
    if duration < 3600:
        return f"{duration / 60:.0f} min"
    if duration < 10 * 3600:
        return f"{duration / 3600:.1f} h"
    return f"{duration / 3600:.0f} h" if duration < 86_400 else f"{duration / 86_400:.1f} days"


def _milliseconds(duration: float) -> str:
    if duration >= 10:
        return f"{duration:.0f} s"
    return f"{1000 * duration:.2g} ms" if duration < 0.1 else f"{1000 * duration:.0f} ms"
