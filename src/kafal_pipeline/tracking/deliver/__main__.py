"""Delivers journals to MLflow: `python -m kafal_pipeline.tracking.deliver <journal or folder> ...`.

A run starts this as its helper (`--follow`); a user starts it to deliver what a tracker that was down did not get.
What is delivered already is not delivered again. Exit code: 0 when everything is, 75 when some must be tried later.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import json
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.processes import end_quickly
from kafal_pipeline.tracking.deliver.delivery import Addresses
from kafal_pipeline.tracking.deliver.follow import Messages, follow
from kafal_pipeline.tracking.journal import COMPARISONS, JOURNAL

logger = logging.getLogger("kafal_pipeline.tracking.deliver")

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # they take minutes, or as long as the server says; the journal has it all
    "MLFLOW_UV_AUTO_DETECT": "false",  # it would pack the project's uv.lock with the model
}

TIMEOUT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
"""Seconds that a server has to answer, where the user has not said otherwise."""

COURTESY = 19
"""Addition to the helper's `nice` value: it takes what the run's processes leave, such as the ends of rounds. Where
others leave it nothing, the run puts another one in its place at its end (`kafal_pipeline.tracking.helper.Helper`)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m kafal_pipeline.tracking.deliver", description="Deliver to MLflow.")
    parser.add_argument("paths", nargs="*", type=Path, help="journals, or folders in which to look for them")
    parser.add_argument("--uri", help="the tracker's address (default: the one the run was started with)")
    parser.add_argument("--check", action="store_true", help="only see whether the tracker can be reached")
    parser.add_argument("--follow", action="store_true", help="follow the journals that standard input names")
    parser.add_argument("--patience", type=float, default=15, help="seconds to keep trying after its end")
    parser.add_argument("--now", action="store_true", help="with the same right to the cores as others")
    options = parser.parse_args(arguments)
    if not (options.paths or options.follow or options.check):
        parser.error("name a journal, or a folder in which to look for some")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    addresses = Addresses(options.uri, os.environ.get("MLFLOW_TRACKING_URI"))
    os.environ.update({**TIMEOUT, **os.environ, **ENVIRONMENT})
    if os.path.expanduser("~") == "~":  # MLflow needs a home directory
        os.environ["HOME"] = tempfile.gettempdir()
    if options.check:
        from kafal_pipeline.tracking.deliver.mlflow_run import why_unreachable

        found = why_unreachable(options.uri or addresses.environment)
        print(found or "")
        return int(found is not None)
    messages: Messages = Messages()
    if options.follow:
        _give_way(nice=not options.now)
        threading.Thread(target=_listen, args=[messages], name="standard input", daemon=True).start()
        return follow(messages, addresses, options.patience)
    try:
        for journal in _journals(options.paths):
            messages.put({"follow": str(journal)})
    except UserError as error:
        logger.error("%s", error)
        return 1
    messages.put(None)
    return follow(messages, addresses, patience=0, live=False)


def _give_way(*, nice: bool) -> None:
    """Let the run's own processes have the cores first, if `nice`, and take less of them.

    Looking for garbage while MLflow is imported takes a quarter as long again, and at the end, while the run waits.
    """
    if nice and hasattr(os, "nice"):
        os.nice(COURTESY)
    gc.set_threshold(100_000, 50)
    atexit.register(end_quickly)


def _listen(messages: Messages) -> None:
    """Hand on what standard input says; its end means that the process at its other end is gone, however it went."""
    try:
        for line in sys.stdin:
            messages.put(json.loads(line))
    finally:
        messages.put(None)


def _journals(paths: Sequence[Path]) -> list[Path]:
    """Return the journals that the paths name, as absolute paths: the delivery changes the working directory.

    Those of comparisons come last: they give tags to their runs, which the tracker must have by then.
    """
    found = [journal for path in paths for journal in (sorted(path.rglob(JOURNAL)) if path.is_dir() else [path])]
    for journal in found:
        if not journal.is_file():
            raise UserError(f"{journal}: there is no such journal. Name a file {JOURNAL}, or a folder that holds some.")
    absolute = [journal.absolute() for journal in found]
    return sorted(absolute, key=lambda journal: journal.parts[-4:-3] == (COMPARISONS,))


if __name__ == "__main__":
    sys.exit(main())
