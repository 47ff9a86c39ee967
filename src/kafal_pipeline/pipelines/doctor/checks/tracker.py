"""Checks that the tracker answers and accepts the records of the run."""

from pathlib import Path

from kafal_pipeline.common.errors import masked
from kafal_pipeline.config import TrackingConfig
from kafal_pipeline.pipelines.doctor.finding import FAILURE, OK, WARNING, Finding
from kafal_pipeline.tracking import reachable

CHECK = "tracker"
ADVICE = "Correct tracking.uri or MLFLOW_TRACKING_URI (docs/tracking.md); or record nothing: --params tracking=off."


def check(tracking: TrackingConfig, root: Path) -> Finding:
    """Look at the tracker without importing mlflow; nothing is written to it that stays."""
    if not tracking.enabled:
        return Finding(CHECK, OK, "off: nothing is recorded")
    uri = reachable.address(tracking)
    shown = masked(uri) if uri else "a store in the project's folder"
    problem = reachable.problem(uri, root)
    if problem is None:
        return Finding(CHECK, OK, f"{shown} can be reached")
    return Finding(CHECK, FAILURE if tracking.required else WARNING, f"{shown} cannot be reached: {problem}", ADVICE)
