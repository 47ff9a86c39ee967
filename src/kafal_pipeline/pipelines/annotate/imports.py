"""The pipeline that imports a file of answers: a filled-in table, or an export of Label Studio or CVAT."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from pathlib import Path

from kedro.pipeline import Pipeline, node

from kafal_pipeline.annotation.answers import AnswerStore
from kafal_pipeline.annotation.exchange.importing import counted, import_file
from kafal_pipeline.annotation.requests import Request
from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import Config, resolve
from kafal_pipeline.pipelines.annotate.status import next_command, requests_of
from kafal_pipeline.pipelines.annotations import Parameters
from kafal_pipeline.runs.layout import Layout


def create_pipeline(root: Path = Path(), options: str = "") -> Pipeline:
    """Return the pipeline ``parameters -> closing_lines``, which imports ``annotation.file``; `root`: the project's.

    `options`: those of the command line that name the run.
    """

    def read(parameters: Parameters) -> str:
        return import_answers(resolve(parameters), root, options)

    return Pipeline([node(read, "parameters", "closing_lines", name="annotate.import", tags=["annotate"])])


def import_answers(config: Config, root: Path, options: str = "") -> str:
    """Import the configured file, and return what has changed and what to do next.

    Raises `UserError` if no file is named, if the run has asked for nothing, or with all that is wrong in the file.
    """
    layout, file = Layout(root, config), config.annotation.file
    if file is None:
        raise UserError(
            f"annotation.file: name the file to import: kedro run --pipeline annotate_import{options} --params "
            "annotation.file=PATH."
        )
    requests = requests_of(layout)
    imported = import_file(
        root / Path(file).expanduser(),
        requests,
        AnswerStore(layout.answers),
        config.annotation.annotator or login(),
        config.annotation.annotators,
        layout.requests.parents[2],
        labels_trained_with(layout, requests),
    )
    still = f"Still to be answered: {counted(imported.missing, 'image')}."
    return "\n".join([*imported.lines(), still, next_command(layout, requests, imported.verdicts, options)])


def login() -> str:
    """Return the name by which the user is known to the system, which need not have one."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"


def labels_trained_with(layout: Layout, requests: Sequence[Request]) -> dict[str, str]:
    """Return the labels in the latest pool of a run, by the ids of the images that it asked for."""
    pools = sorted(layout.pools.glob("cycle_*/pool.parquet"))
    if not pools:
        return {}
    import pandas as pd

    try:
        pool = pd.read_parquet(pools[-1], columns=["sample", "label"])
    except (OSError, ValueError):  # damaged: the run says so when it resumes
        return {}
    labels = pool.set_index("sample")["label"].to_dict()
    return {
        asked.sample: request.classes[labels[asked.row]]
        for request in requests
        for asked in request.all
        if asked.part == "train" and 0 <= labels.get(asked.row, -1) < len(request.classes)
    }
