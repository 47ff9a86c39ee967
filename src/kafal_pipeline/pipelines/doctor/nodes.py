"""The node of the doctor: all checks, one after another."""

from collections.abc import Iterator
from pathlib import Path

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import Config, resolve
from kafal_pipeline.pipelines.annotations import Parameters
from kafal_pipeline.pipelines.doctor.finding import FAILURE, Finding


def examine(parameters: Parameters, root: Path = Path()) -> None:
    """Check everything that the configured run needs and print a line for each check.

    Nothing that stays is written, nothing is downloaded, and no run is recorded.

    Raises `UserError` with all failures, if there is one.
    """
    from kafal_pipeline.pipelines.doctor.show import showing  # only where something is shown

    found = list(showing(findings(resolve(parameters), root)))
    failures = [str(finding) for finding in found if finding.status == FAILURE]
    if failures:
        raise UserError("\n".join([f"doctor: {len(failures)} of {len(found)} checks failed.", *failures]))


def findings(config: Config, root: Path) -> Iterator[Finding]:
    """Yield what each check finds, as it is found; a check whose ground is missing says so."""
    from kafal_pipeline.pipelines.doctor.checks import (  # only the doctor needs them
        dataset,
        device,
        disk,
        duration,
        features,
        memory,
        packages,
        torch_pair,
        tracker,
    )
    from kafal_pipeline.pipelines.doctor.probe import probe

    yield packages.check(root)
    pair = torch_pair.check(needed=dataset.needs_torchvision(config.dataset, root))
    yield pair.finding
    device_found = device.check(config) if pair.torch_works else None
    if device_found is not None:
        yield device_found
    seen = dataset.look(config.dataset, root, config.annotation.source)
    yield seen.finding
    yield tracker.check(config.tracking, root)
    shape = seen.shape
    if config.features.network is not None and pair.torch_works:
        finding, shape = features.look(config, root, seen.shape)
        yield finding
    usable = device_found is not None and device_found.status != FAILURE
    outcome = probe(config, shape) if usable and shape is not None else None
    yield disk.check(config, seen, outcome, root)
    yield memory.check(outcome)
    yield duration.check(config, shape, outcome)
